"""Servers made with the official SDK, and what the gateway asks them with."""

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Self

import pytest

from settings import Settings
from tests.mcp.sdk_modes import MODES
from tests.support.gateway import UNUSED_SETTINGS
from tests.support.processes import ROOT, Process, free_port
from tests.support.waiting import eventually
from upstream.mcp_native import NativeMcpServer

NewClient = Callable[..., NativeMcpServer]


class SdkServer:
    """A process with the official SDK of a major version, on a port of its own unless one is given."""

    def __init__(self, version: int, gateway_url: str | None = None) -> None:
        self.python = ROOT / f".venv-mcp{version}" / "bin" / "python"
        assert self.python.exists(), "the MCP SDK is not installed: make test does it"
        self.port = free_port()
        self.environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
        if gateway_url:
            self.environment["GATEWAY_URL"] = gateway_url
        self.start()

    def start(self) -> None:
        command = [str(self.python), "-W", "ignore", "-m", "uvicorn", "tests.mcp.sdk_server:app"]
        self.process = Process([*command, "--port", str(self.port)], environment=self.environment)

    def wait(self) -> Self:
        eventually(lambda: "Uvicorn running" in self.output() or not self.process.running(), what="the SDK serves")
        assert self.process.running(), self.output()
        return self

    def url(self, mode: str) -> str:
        return f"http://127.0.0.1:{self.port}/{mode}/mcp"

    def output(self) -> str:
        return self.process.output()

    def count(self, line: str) -> int:
        return self.output().splitlines().count(line)

    def open_sessions(self) -> set[str]:
        """Those that have been opened and not ended, by the SDK's own log."""
        opened = re.findall(r"Created new transport with session ID: (\w+)", self.output())
        return set(opened) - set(re.findall(r"Terminating session: (\w+)", self.output()))


@pytest.fixture(scope="session")
def gateway_port() -> int:
    """Where the tools of the SDK's servers ask back."""
    return free_port()


@pytest.fixture(scope="session")
def sdk(gateway_port: int) -> Iterator[dict[int, SdkServer]]:
    """One of version 1, which speaks 2025-11-25, and one of version 2, which speaks 2026-07-28 and older."""
    servers = {version: SdkServer(version, f"http://127.0.0.1:{gateway_port}") for version in (1, 2)}
    yield {version: server.wait() for version, server in servers.items()}
    for server in servers.values():
        server.process.kill()


def settings_for(url: str, **more: Any) -> Settings:
    unused: dict[str, Any] = {name.lower(): value for name, value in UNUSED_SETTINGS.items()}
    return Settings(**unused | {"mcp_server_url": url, "mcp_protocol": "mcp", "httpx_timeout": 30.0, **more})


@pytest.fixture
async def new_client() -> AsyncIterator[NewClient]:
    """Makes what the gateway asks an MCP server with: `new_client(url, **more settings)`."""
    async with AsyncExitStack() as stack:

        def make(url: str, **more: Any) -> NativeMcpServer:
            client = NativeMcpServer(settings_for(url, **more))
            stack.push_async_callback(client.close)
            return client

        yield make


@pytest.fixture(
    params=[(version, mode) for version in (1, 2) for mode in MODES], ids=lambda param: f"{param[0]}-{param[1]}"
)
def served(request: pytest.FixtureRequest, sdk: dict[int, SdkServer]) -> tuple[SdkServer, str, str]:
    """Each server in each of its modes: with its URL, and the revision that is to be found out."""
    version, mode = request.param
    return sdk[version], sdk[version].url(mode), {1: "2025-11-25", 2: "2026-07-28"}[version]
