"""A server that is asked by POST, JSON both ways: httpx's requests and replies over aiohttp's connections."""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
import httpx
import orjson
from aiohttp.connector import Connection

from settings import Settings
from upstream.call import Call, Sink
from upstream.events import read_stream
from upstream.replies import ReplyUnusable, read_object

# Below the keep-alive of the servers behind us (uvicorn's is 5 s), so that no call is sent into a closing connection.
IDLE_SECONDS = 4.0
MAX_AGE_SECONDS = 60.0
MAX_HEADER_BYTES = 65_536


class Connector(aiohttp.TCPConnector):
    """Keeps no connection for long, as a name may move; what a kept one fails at is sent over a new one."""

    def __init__(self, max_connections: int) -> None:
        super().__init__(limit=max_connections, keepalive_timeout=IDLE_SECONDS)
        self._made_at = WeakKeyDictionary[Any, float]()
        self._on_kept = WeakSet[aiohttp.ClientRequest]()

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any) -> Connection:
        is_again = req in self._on_kept
        while True:
            connection = await super().connect(req, *args, **kwargs)
            made_at = self._made_at.get(connection.protocol)
            if made_at is None:
                self._made_at[connection.protocol] = time.monotonic()
                return connection
            if time.monotonic() - made_at < MAX_AGE_SECONDS and not is_again:
                self._on_kept.add(req)
                return connection
            connection.close()

    async def send(self, req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """A middleware: what a kept connection failed before the head of a reply came is sent once more."""
        try:
            return await handler(req)
        except (aiohttp.ServerDisconnectedError, OSError):
            if req not in self._on_kept:
                raise
            return await handler(req)


class Reply(httpx.Response, AsyncIterator[bytes]):
    """A reply whose head has come, and its body as it arrives.

    To close it before the end closes its connection, which tells the server to stop.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.reply = response
        super().__init__(response.status, headers=list(response.headers.items()))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        content = self.reply.content
        if content.at_eof():
            raise StopAsyncIteration
        try:
            return await content.readany()
        except FAILURES as error:
            raise _translate(error) from error

    async def aclose(self) -> None:
        if not self.reply.content.is_eof():
            self.reply.close()


class Transport(httpx.AsyncBaseTransport):
    """httpx's requests and replies over aiohttp's connections."""

    def __init__(self, settings: Settings) -> None:
        connector, connect = Connector(settings.max_upstream_connections), settings.connect_timeout
        self._session = aiohttp.ClientSession(
            connector=connector,
            middlewares=[connector.send],
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def handle_async_request(self, request: httpx.Request) -> Reply:
        """Raises httpx's TimeoutException, NetworkError and RemoteProtocolError."""
        url, content, headers = str(request.url), request.content, request.headers.multi_items()
        try:
            post = self._session.request(request.method, url, data=content, headers=headers, allow_redirects=False)
            return Reply(await post)
        except FAILURES as error:
            raise _translate(error) from error

    async def aclose(self) -> None:
        await self._session.close()


FAILURES = (aiohttp.ClientError, OSError, ValueError)


def _translate(error: Exception) -> httpx.TransportError:
    if isinstance(error, aiohttp.ClientResponseError):
        return httpx.RemoteProtocolError("no HTTP")
    return httpx.TimeoutException(str(error)) if isinstance(error, TimeoutError) else httpx.NetworkError(str(error))


class Server:
    """Has connections of its own, for every turn in hand: a slow server takes none from another."""

    def __init__(self, settings: Settings, url: str, accept: str) -> None:
        self._url = httpx.URL(url)
        self._timeout = settings.httpx_timeout
        self._max_reply_bytes = settings.max_reply_bytes
        self._headers = {"content-type": "application/json", "accept-encoding": "identity", "accept": accept}
        self._transport = Transport(settings)

    async def close(self) -> None:
        await self._transport.aclose()

    async def ask(
        self, payload: Mapping[str, object], request_id: str, call: Call, sink: Sink | None = None
    ) -> dict[str, Any]:
        """The object in the reply, within `httpx_timeout` to its last byte, however slowly they drip.

        What comes before it in a stream goes to the sink. Raises Stopped, TimeoutError, ReplyUnusable, and httpx's
        TimeoutException, NetworkError, RemoteProtocolError and HTTPStatusError.
        """
        headers = self._headers | {"x-request-id": request_id}
        request = httpx.Request("POST", self._url, headers=headers, content=orjson.dumps(payload))
        with call.within(self._timeout):
            reply = await self._transport.handle_async_request(request)
            try:
                if not reply.is_success:
                    raise httpx.HTTPStatusError(f"HTTP {reply.status_code}", request=request, response=reply)
                return await self._read(reply, sink)
            finally:
                await reply.aclose()

    async def _read(self, reply: Reply, sink: Sink | None) -> dict[str, Any]:
        media_type = reply.headers.get("content-type", "").partition(";")[0]
        if sink is not None and media_type.strip().lower() == "text/event-stream":
            return await read_stream(reply, sink, self._max_reply_bytes)
        body = bytearray()
        async for piece in reply:
            body += piece
            if len(body) > self._max_reply_bytes:
                raise ReplyUnusable("the reply is too large")
        return read_object(bytes(body))
