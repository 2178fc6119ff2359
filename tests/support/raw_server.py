"""A server of bytes: for replies that are no proper HTTP, and for connections that are closed at a chosen moment."""

import asyncio
import contextlib
import re
from typing import Self

from tests.support.background import background

OK_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
ANSWERED = OK_HEAD + b'content-length: 15\r\n\r\n{"answer": "x"}'


class RawServer:
    """Answers the requests on each connection with these bytes, one after the other; the last one ends it."""

    def __init__(self, *replies: bytes) -> None:
        self.connections = 0
        self._replies = replies
        self._server = background.run(asyncio.start_server(self._serve, "127.0.0.1"))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            for reply in self._replies:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                assert length
                await reader.readexactly(int(length[1]))
                writer.write(reply)
        writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        background.call(self._server.close)
