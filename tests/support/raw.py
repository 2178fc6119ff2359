"""A WebSocket client by hand, for what a good client would never do: not read, not answer, dribble."""

import base64
import json
import os
import socket
import struct
from typing import Any, Protocol, Self

from tests.support.keys import remember
from tests.support.waiting import PATIENCE_SECONDS

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def masked(first: int, payload: bytes = b"") -> bytes:
    """A frame of a client, with a mask of zeros."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack("!BH", 0x80 | 126, len(payload))
    return bytes([first]) + length + b"\0\0\0\0" + payload


class HasPort(Protocol):
    @property
    def port(self) -> int:
        """Where a gateway listens on this machine."""


class RawSocket:
    """A TCP connection to a gateway. It reads only when told to, with a small receive buffer if wanted.

    Over loopback's large segments the gateway's kernel takes megabytes before the gateway has to wait; over segments of
    `segment_bytes` much less.
    """

    def __init__(
        self,
        gateway: HasPort,
        *,
        receive_buffer: int | None = None,
        segment_bytes: int | None = None,
        seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.gateway = gateway
        self.socket = socket.socket()
        self.socket.settimeout(seconds)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if segment_bytes is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
        self.socket.connect(("127.0.0.1", gateway.port))
        self._buffer = b""

    def handshake(self, query: str = "") -> str:
        """Open a WebSocket and read its first frame; the session's id."""
        self.ask_for_handshake(query)
        return self.read_handshake()

    def ask_for_handshake(self, query: str = "") -> None:
        path = "/api/chat/ws" + (f"?{query}" if query else "")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.gateway.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def read_handshake(self) -> str:
        self.read_head()
        opcode, payload = self.read_frame()
        assert opcode == TEXT
        hello = json.loads(payload)
        remember(hello)
        session_id: str = hello["session_id"]
        return session_id

    def read_head(self) -> None:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the server has closed the connection")
        self._buffer += data

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def read_frame(self) -> tuple[int, bytes]:
        """The next frame: its opcode and its payload. ConnectionError when the server has cut the connection."""
        first, second = self._take(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 15, self._take(length)

    def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send one whole frame."""
        self.socket.sendall(self._frame(opcode, payload))

    def send_together(self, values: list[Any]) -> None:
        """Send text frames in one packet."""
        frames = (self._frame(TEXT, json.dumps(value, ensure_ascii=False).encode()) for value in values)
        self.socket.sendall(b"".join(frames))

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        if len(payload) < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload))
        else:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(payload))
        return head + mask + masked

    def send_json(self, value: Any) -> None:
        """Send a text frame."""
        self.send_frame(TEXT, json.dumps(value, ensure_ascii=False).encode())

    def read_until_cut(self) -> list[tuple[int, bytes]]:
        """All frames until the server has cut the connection; TimeoutError if it does not."""
        frames = []
        try:
            while True:
                frames.append(self.read_frame())
        except ConnectionError:
            return frames

    def close(self) -> None:
        """Cut the connection."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
