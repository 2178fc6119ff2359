"""Floods, in a process of their own: what they take of Python's lock is no time of the gateway's."""

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from tests.security.states import CHUNKED, HEALTH, LOGIN, UPGRADE
from tests.support.raw import RawSocket, masked

IS_LONG = os.environ.get("FUZZ") == "long"
MEASURE_SECONDS = 5.0 if IS_LONG else 1.5
PAUSE_SECONDS = 0.1
SENT_MIB = 24  # by each flood, if it is not cut before


@dataclass(frozen=True)
class Address:
    """All that a flood has to know of a gateway."""

    port: int


@dataclass
class Flood:
    """Bytes sent again and again after `first`, on a few connections, each for a bounded time and a bounded amount."""

    first: bytes
    again: bytes
    is_websocket: bool = True
    reads: bool = False
    connections: int = 3

    def run(self, gateway: Address) -> None:
        threads = [threading.Thread(target=self._send, args=(gateway,)) for _ in range(self.connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send(self, gateway: Address) -> None:
        """An HTTP connection that is cut is opened again, as often as a load balancer may allow; a session is not."""
        until, left = time.monotonic() + MEASURE_SECONDS, SENT_MIB * 2**20
        while time.monotonic() < until and left > 0:
            with suppress(OSError), RawSocket(gateway) as one:
                if self.is_websocket:
                    one.handshake()
                one.socket.sendall(self.first)
                one.socket.settimeout(0.5)
                while time.monotonic() < until and left > 0:
                    with suppress(TimeoutError):
                        left -= one.socket.send(self.again)
                    with suppress(BlockingIOError):
                        while self.reads and one.socket.recv(65536, socket.MSG_DONTWAIT):
                            pass
            if self.is_websocket:
                break
            time.sleep(PAUSE_SECONDS)


OBJECTS = b'{"a": [' + b", ".join([b"{}"] * 16_000) + b"]}"  # just below MAX_FRAME_BYTES, and slow to parse
FLOODS = {
    "invalid frames": Flood(b"", masked(0x81, b"{}") * 8000, reads=True),
    "invalid frames and no reading": Flood(b"", masked(0x81, b"[]") * 8000),
    "binary frames": Flood(b"", masked(0x82, b"x") * 8000, reads=True),
    "large frames": Flood(b"", masked(0x81, OBJECTS), reads=True, connections=10),
    "pings": Flood(b"", masked(0x89, b"x" * 125) * 500, reads=True),
    "pings and no reading": Flood(b"", masked(0x89, b"x" * 125) * 500),
    "pongs": Flood(b"", masked(0x8A) * 10_000),
    "empty fragments": Flood(masked(0x01), masked(0x00) * 10_000),
    "fragments of a byte": Flood(masked(0x01, b"x"), masked(0x00, b"x") * 9000),
    "headers without end": Flood(b"GET / HTTP/1.1\r\nHost: a\r\n", b"x: y\r\n" * 10_000, is_websocket=False),
    "a path without end": Flood(b"GET /", b"a" * 65536, is_websocket=False),
    "a handshake's headers without end": Flood(UPGRADE, b"x: y\r\n" * 10_000, is_websocket=False),
    "frames nested deeply": Flood(b"", masked(0x81, b'{"a":' * 12_000), reads=True),
    "frames that are no text": Flood(b"", masked(0x81, b"\xff\xfe" * 30) * 500, reads=True),
    "chunks of a byte": Flood(LOGIN + CHUNKED, b"1\r\nx\r\n" * 10_000, is_websocket=False),
    "chunks of a byte with extensions": Flood(
        LOGIN + CHUNKED, (b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 60, is_websocket=False
    ),
    "trailers without end": Flood(LOGIN + CHUNKED + b"0\r\n", b"x: y\r\n" * 10_000, is_websocket=False),
    "a body that nobody reads": Flood(
        HEALTH + b"Content-Length: 99999999999\r\n\r\n", b"x" * 65536, is_websocket=False
    ),
    "blank lines": Flood(b"", b"\r\n" * 30_000, is_websocket=False),
    "bytes that are no HTTP": Flood(b"", b"\x16\x03\x01\x02\0" * 10_000, is_websocket=False),
    "logins in a pipeline": Flood(b"", (LOGIN + b"Content-Length: 2\r\n\r\n{}") * 500, is_websocket=False),
    "replies that are not read": Flood(b"", b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 15, is_websocket=False),
    "requests in a pipeline": Flood(b"", b"GET /api/health HTTP/1.1\r\nHost: a\r\n\r\n" * 1500, is_websocket=False),
}


def run(name: str, port: int) -> None:
    FLOODS[name].run(Address(port))
