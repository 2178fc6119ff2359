"""Faults of the network: a port that refuses, and a proxy that can be cut, frozen and refused."""

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import Self

from tests.support.background import background

# For clients: nothing here speaks TLS, and a context of their own would read the system's certificates.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class RefusedPort:
    """A port of 127.0.0.1 that is taken, but on which nobody listens: connecting is refused."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reset_on_close(writer: asyncio.StreamWriter | asyncio.BaseTransport) -> None:
    """Make the closing of a connection a reset (RST) instead of an orderly end."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class TcpProxy:
    """Stands between a client and 127.0.0.1:`target`; `port` is where it listens.

    `cut` resets all connections and refuses new ones, `freeze` lets everything stand still while the
    connections stay, `mend` ends both; `forget` is what a middlebox does to connections that were
    idle for long. Use it as a context manager, or call `close`.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._forgotten: list[asyncio.Event] = []
        self._server: asyncio.Server | None = None
        background.run(self._listen())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            reset_on_close(writer)
            writer.close()
            return
        pair, flowing = {writer, upstream_writer}, self._flowing
        self._open |= pair
        if self._server is None:  # cut meanwhile
            await self._reset_all()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream_writer, flowing))
                group.create_task(self._pump(upstream_reader, writer, flowing))
        except* OSError:
            pass
        finally:
            self._open -= pair
            for end in pair:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        while data := await reader.read(65536):
            await flowing.wait()
            writer.write(data)
            await writer.drain()
        await flowing.wait()
        if writer.can_write_eof():
            writer.write_eof()

    async def _stop_listening(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await asyncio.sleep(0)  # what is being accepted needs the server for a moment more
            server.close()

    async def _reset_all(self) -> None:
        for writer in list(self._open):
            reset_on_close(writer)
            writer.transport.abort()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        background.run(self._stop_listening())
        background.run(self._reset_all())

    def reset(self) -> None:
        """Reset every connection; new ones are taken."""
        background.run(self._reset_all())

    def freeze(self) -> None:
        """Pass nothing on any more; connections stay open and new ones are taken."""
        background.call(self._flowing.clear)

    def forget(self) -> None:
        """Pass nothing on any more of the connections that there are, without a word; new ones are not concerned."""

        async def forget() -> None:
            self._forgotten.append(self._flowing)
            self._flowing.clear()
            self._flowing = asyncio.Event()
            self._flowing.set()

        background.run(forget())

    def mend(self) -> None:
        """Undo `cut` and `freeze`."""
        background.call(self._flowing.set)
        if self._server is None:
            background.run(self._listen())

    @property
    def connections(self) -> int:
        """How many connections go through the proxy now."""
        return len(self._open) // 2

    def close(self) -> None:
        """End the proxy and its connections."""
        for flowing in (*self._forgotten, self._flowing):
            background.call(flowing.set)
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
