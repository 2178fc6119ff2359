"""The real program, as a process."""

import os
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import httpx
import websockets.asyncio.client
from websockets.typing import Origin

from tests.support.network import NO_TLS
from tests.support.processes import ROOT, Process, free_port, temporary_directory
from tests.support.waiting import PATIENCE_SECONDS, eventually

Start = Literal["uvicorn", "python"]

ALLOWED_ORIGIN = "http://127.0.0.1:4173"
START_SECONDS = 60.0
# Never connected to by the tests that use it: it only has to look right.
UNUSED_SETTINGS = {
    "FRONTEND_HOST": ALLOWED_ORIGIN,
    "LLMSERVER_URL": "http://127.0.0.1:9",
    "MCP_SERVER_URL": "http://127.0.0.1:9",
    "DATABASE_URL": "postgresql://postgres@127.0.0.1:9/chatdb",
    "FAQ_DATABASE_URL": "postgresql://postgres@127.0.0.1:9/card_qna_db",
}

_home: list[Path] = []
live_gateways: "list[Gateway]" = []


def environment(settings: Mapping[str, str | None], *, dotenv: bool = False) -> dict[str, str]:
    """The whole environment of a program under test: nothing of the developer's own gets in.

    A setting of None is left out. What a `.env` file in the repository says counts only with `dotenv`.
    """
    if not _home:
        _home.append(temporary_directory("gateway-home-"))
    values = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(_home[0]),
        "TMPDIR": str(_home[0]),
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    if not dotenv:
        values |= dict.fromkeys(_names_in_dotenv(), "")  # set, to nothing: the file has no say
    return values | {name: value for name, value in settings.items() if value is not None}


def _names_in_dotenv() -> list[str]:
    file = ROOT / ".env"
    lines = file.read_text().splitlines() if file.exists() else []
    return [match[1] for line in lines if (match := re.match(r"\s*(?:export\s+)?(\w+)\s*=", line))]


class Gateway:
    """A gateway process: `python -m uvicorn gateway:app`, or `python gateway.py`.

    `settings` are its environment (None leaves one out); it runs in `directory`, the repository by default.
    Use it as a context manager, or call `stop` or `kill`. It is not there yet after the constructor:
    `start` waits for /api/health, `launch` does not wait.
    """

    def __init__(
        self,
        settings: Mapping[str, str | None],
        *,
        start: Start = "uvicorn",
        port: int | None = None,
        directory: Path = ROOT,
        arguments: tuple[str, ...] = (),
        dotenv: bool = False,
    ) -> None:
        self.settings = dict(settings)
        self.start_kind = start
        self.port = port or free_port()
        self.directory = directory
        self.arguments = arguments
        self.dotenv = dotenv
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.websocket_url = f"ws://127.0.0.1:{self.port}/api/chat/ws"
        self.http = httpx.Client(base_url=self.base_url, timeout=PATIENCE_SECONDS, trust_env=False, verify=NO_TLS)
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The process that was started last."""
        assert self._process is not None, "not started"
        return self._process

    def launch(self) -> Self:
        """Start the process, without waiting for it."""
        settings = {"SSL_CERT_FILE": os.devnull, **self.settings}
        if self.start_kind == "uvicorn":
            command = [sys.executable, "-m", "uvicorn", "gateway:app", "--host", "127.0.0.1"]
            command += ["--port", str(self.port), *self.arguments]
        else:
            command = [sys.executable, "gateway.py", *self.arguments]
            settings = {"HOST": "127.0.0.1", "PORT": str(self.port), **settings}
        self._process = Process(
            command, environment=environment(settings, dotenv=self.dotenv), directory=self.directory
        )
        live_gateways.append(self)
        return self

    def start(self) -> Self:
        """Start the process and wait until /api/health answers."""
        self.launch()
        self.wait_until_healthy()
        return self

    def wait_until_healthy(self, seconds: float = START_SECONDS) -> None:
        """Wait for /api/health; AssertionError with the program's output if it ends or stays away."""
        try:
            eventually(self.healthy, seconds, "/api/health answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()}") from None

    def healthy(self) -> bool:
        """Whether /api/health answers now; AssertionError if the process has ended."""
        assert self.process.running(), "the gateway has ended"
        with suppress(OSError, httpx.TransportError):
            socket.create_connection(("127.0.0.1", self.port), 2).close()  # cheaper to ask again and again
            return self.http.get("/api/health", timeout=2).status_code == 200
        return False

    def output(self) -> str:
        """All that the gateway has printed and logged so far."""
        return self.process.output() if self._process else ""

    def wait(self, seconds: float = START_SECONDS) -> int:
        """The exit status of a process that ends by itself."""
        status = self.process.wait(seconds)
        self._forget()
        return status

    def stop(self, seconds: float = 40.0) -> int:
        """SIGTERM; the exit status, negative where a signal ended the process."""
        status = self.process.stop(seconds)
        self._forget()
        return status

    def kill(self) -> int:
        """SIGKILL; the exit status."""
        status = self.process.kill()
        self._forget()
        return status

    def _forget(self) -> None:
        if self in live_gateways:
            live_gateways.remove(self)

    def close(self) -> None:
        """End the gateway, if it is there, without asking how."""
        self.http.close()
        if self._process is not None and self._process.running():
            self._process.kill()
        self._forget()

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def async_http(self) -> httpx.AsyncClient:
        """A new client for requests that run beside something else in a coroutine; to be closed by the caller."""
        return httpx.AsyncClient(base_url=self.base_url, timeout=PATIENCE_SECONDS, trust_env=False, verify=NO_TLS)

    def connect(
        self, *, query: str = "", origin: str | None = None, path: str = "", **options: Any
    ) -> websockets.asyncio.client.connect:
        """A client connection to /api/chat/ws, to be awaited or used with `async with`.

        `path` is appended to the path, `query` is what follows the question mark; further options are those of
        `websockets.asyncio.client.connect`.
        """
        address = self.websocket_url + path + (f"?{query}" if query else "")
        options = {"max_size": None, "proxy": None, "open_timeout": PATIENCE_SECONDS, "compression": None} | options
        return websockets.asyncio.client.connect(address, origin=_origin(origin), **options)


def _origin(origin: str | None) -> Origin | None:
    return None if origin is None else Origin(origin)
