"""The LLM server and the MCP server of a benchmark, on one port and much cheaper than what is measured.

A prompt says how long its answer takes: `[1000]` in it means 1,000 ms, nothing means at once, and `{100x50}` a stream
of 100 pieces 50 ms apart. What the stub says has a number for the load generator in it, `[<ns>]`: for the LLM server
the nanoseconds that it really took, for the MCP server and each piece of a stream the time.monotonic_ns() of it.

`python -m benchmarks.stub PORT [PORT OF A GATEWAY ...]`: with gateways, each MCP call asks one of them who is logged
in, as the real server does; the persona's id says which.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import cast

import uvloop

# About as long as what a language model says about a card.
ANSWER = "해외 결제 수수료가 없고 공항 라운지를 쓸 수 있는 카드를 추천해 드려요. 연회비는 3만 원이에요. " * 3
LLM_REPLY = '{"answer":"' + ANSWER + '[%d]","tool_response":null}'
MCP_REPLY = '{"answer":"' + ANSWER + '[%d]","login_required":false,"card_list":["카드의정석2"]}'

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
DELAY = re.compile(rb"\[(\d+)\]")
STREAM = re.compile(rb"\{(\d+)x(\d+)\}")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = "카드 혜택을 "
PIECE_EVENT, LAST_EVENT = '{"delta":"[%d] ' + PIECE + '"}', '{"answer":"%s","tool_response":null}'
PERSONA = re.compile(rb'"session_id": *"([^"]+)".*"persona_id": *(\d+)', re.DOTALL)

gateways: list[int] = []
tasks: set[asyncio.Task[None]] = set()


def complete_request(data: bytes) -> tuple[bytes, bytes] | None:
    """Head and body, or None as long as something is missing."""
    head, end, body = data.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return (head, body) if end and len(body) >= (int(length[1]) if length else 0) else None


class Stub(asyncio.Protocol):
    """One connection; it is kept alive, and a request comes when the one before has been answered."""

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop has its own class

    def data_received(self, data: bytes) -> None:
        self.data += data
        request = complete_request(self.data)
        if request is None:
            return
        self.data = b""
        head, body = request
        if head.startswith(b"POST /tools/"):
            task = asyncio.create_task(self.recommend(body))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return
        if stream := STREAM.search(body):
            self.transport.write(STREAM_HEAD)
            self.stream(int(stream[1]), int(stream[1]), int(stream[2]) / 1000)
            return
        delay = DELAY.search(body)
        if delay is None:
            self.reply(LLM_REPLY % 0)
        else:
            asyncio.get_running_loop().call_later(int(delay[1]) / 1000, self.answer, time.monotonic_ns())

    def answer(self, asked_at: int) -> None:
        self.reply(LLM_REPLY % (time.monotonic_ns() - asked_at))

    def stream(self, left: int, pieces: int, pause: float) -> None:
        if self.transport.is_closing():
            return
        event = PIECE_EVENT % time.monotonic_ns() if left else LAST_EVENT % (PIECE * pieces)
        chunk = f"data: {event}\n\n".encode()
        self.transport.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) + (b"" if left else b"0\r\n\r\n"))
        if left:
            asyncio.get_running_loop().call_later(pause, self.stream, left - 1, pieces, pause)

    async def recommend(self, body: bytes) -> None:
        if gateways:
            await ask_persona(body)
        self.reply(MCP_REPLY % time.monotonic_ns())

    def reply(self, text: str) -> None:
        body = text.encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


async def ask_persona(body: bytes) -> None:
    found = PERSONA.search(body)
    assert found is not None, body
    session_id, persona_id = found[1], int(found[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", gateways[persona_id % len(gateways)])
    question = b'{"session_id":"%s"}' % session_id
    head = b"POST /api/login/persona_id HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
    writer.write(head + b"content-length: %d\r\n\r\n" % len(question) + question)
    reply = await reader.read()
    writer.close()
    assert reply.endswith(b'{"persona_id":%d}' % persona_id), reply


async def main() -> None:
    port, *others = map(int, sys.argv[1:])
    gateways.extend(others)
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
