"""Why a server behind the gateway could not be asked: in words for operators, whatever it was."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from settings import Settings
from tests.support.gateway import UNUSED_SETTINGS
from tests.support.network import RefusedPort, reset_on_close
from upstream.call import Call
from upstream.server import FORESEEN, Server, describe

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def served(reply: bytes | None, *, resets: bool = False) -> AsyncIterator[int]:
    """A port whose server reads a little and answers with these bytes, or never; then it closes, or resets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(16)
            if reply is None:
                await reader.read()
            writer.write(reply or b"")
            if resets:
                reset_on_close(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port whose queue of connections is full: connecting takes for ever."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def cause(url: str, seconds: float = 10.0) -> str:
    """What is said of a call to this address."""
    values = {name.lower(): value for name, value in UNUSED_SETTINGS.items()}
    settings = Settings(**values | {"frontend_host": frozenset()})  # type: ignore[arg-type]
    server = Server(replace(settings, httpx_timeout=seconds), url, "application/json", 10)
    try:
        with pytest.raises(FORESEEN) as failure:
            await server.ask({}, "an-id", Call())
        assert server.address.endswith(url.rpartition("@")[2])
        return describe(failure.value)
    finally:
        await server.close()


async def test_refused_and_unknown_hosts_are_told_apart() -> None:
    with RefusedPort() as refused:
        assert await cause(f"http://user:secret@127.0.0.1:{refused.port}") == "connection refused"
        assert await cause(f"https://127.0.0.1:{refused.port}") == "connection refused"
    assert (await cause("http://no-such-host.invalid:80")).startswith("no such host: ")


async def test_a_reset_is_told_from_what_cannot_be_read() -> None:
    async with served(b"", resets=True) as port:
        assert (await cause(f"http://127.0.0.1:{port}")).startswith("connection reset")
    async with served(b"") as port:
        assert "closed before the end" in await cause(f"http://127.0.0.1:{port}")
    async with served(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        assert await cause(f"http://127.0.0.1:{port}") == "no HTTP"


async def test_a_failure_of_tls_says_why() -> None:
    async with served(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert (await cause(f"https://127.0.0.1:{port}")).startswith("TLS: ")
    certificate = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
    certificate.verify_message = "certificate has expired"
    assert describe(certificate) == "TLS: certificate has expired"


async def test_what_took_too_long_is_said(deaf_port: int) -> None:
    assert await cause(f"http://127.0.0.1:{deaf_port}", 0.3) == "timed out while connecting"
    async with served(None) as port:
        assert await cause(f"http://127.0.0.1:{port}", 0.3) == "timed out while waiting for the reply"
