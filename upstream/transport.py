"""HTTP as both servers are spoken to: httpx's requests and replies over aiohttp's connections."""

from collections.abc import AsyncIterator

import aiohttp
import httpx

# Below the keep-alive of the servers behind us (uvicorn's is 5 s), so that no call is sent into a closing connection.
IDLE_SECONDS = 4.0
FAILURES = (aiohttp.ClientError, OSError, ValueError)


class Body(httpx.AsyncByteStream):
    """A reply's body as it arrives. To close it half-read closes its connection, which tells the server to stop."""

    __slots__ = ("_response",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises httpx's TimeoutException and NetworkError."""
        content = self._response.content
        try:
            while not content.at_eof():
                yield await content.readany()
        except FAILURES as error:
            raise _translated(error) from error

    async def aclose(self) -> None:
        if not self._response.content.is_eof():
            self._response.close()


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Connections to one server, with what stands in the head of every request."""

    def __init__(self, headers: dict[str, str], max_connections: int, connect_timeout: float) -> None:
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_connect=connect_timeout),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The reply, of which only the head has been read. Raises httpx's TimeoutException and NetworkError."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        content = b"".join([part async for part in request.stream])
        headers = request.headers.multi_items()
        try:
            response = await self._client.request(
                request.method, str(request.url), data=content, headers=headers, allow_redirects=False
            )
        except FAILURES as error:
            raise _translated(error) from error
        # Of a compressed body aiohttp gives the content.
        kept = [(name, value) for name, value in response.raw_headers if name.lower() != b"content-encoding"]
        return httpx.Response(response.status, headers=kept, stream=Body(response))

    async def aclose(self) -> None:
        await self._client.close()


def _translated(error: Exception) -> httpx.TransportError:
    kind = httpx.TimeoutException if isinstance(error, TimeoutError) else httpx.NetworkError
    return kind(str(error))
