"""A server that is asked by POST, JSON both ways: httpx's errors over aiohttp's connections."""

import os
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
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
FORESEEN = (TimeoutError, ReplyUnusable, httpx.HTTPError)  # what `ask` raises


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


class Server:
    """Has connections of its own: a slow server takes none from another."""

    def __init__(self, settings: Settings, url: str, accept: str, max_connections: int) -> None:
        self._url, parts = url, urlsplit(url)
        self.address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without its secrets
        self._timeout = settings.httpx_timeout
        self._max_reply_bytes = settings.max_reply_bytes
        connector = Connector(max_connections)
        connect = min(settings.connect_timeout, 0.9 * settings.httpx_timeout)  # so that it is known what took too long
        self._session = aiohttp.ClientSession(
            connector=connector,
            middlewares=[connector.send],
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"content-type": "application/json", "accept-encoding": "identity", "accept": accept},
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(
        self, payload: Mapping[str, object], request_id: str, call: Call, sink: Sink | None = None
    ) -> dict[str, Any]:
        """The object in the reply, within `httpx_timeout` to its last byte, however slowly they drip.

        What comes before it in a stream goes to the sink. A connection is closed if its reply is not read to the end,
        which tells the server to stop. Raises Stopped, TimeoutError, ReplyUnusable, and httpx's TimeoutException,
        NetworkError and HTTPStatusError.
        """
        body, headers = orjson.dumps(payload), {"x-request-id": request_id}
        with call.within(self._timeout):
            try:
                async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                    return await self._read(response, sink)
            except aiohttp.ClientResponseError as error:
                raise ReplyUnusable("no HTTP") from error
            except TimeoutError as error:
                raise httpx.TimeoutException(str(error)) from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise httpx.NetworkError(str(error)) from error

    async def _read(self, response: aiohttp.ClientResponse, sink: Sink | None) -> dict[str, Any]:
        status, read = response.status, response.content.readany
        if not 200 <= status < 300:
            request = httpx.Request("POST", self._url)
            raise httpx.HTTPStatusError(f"HTTP {status}", request=request, response=httpx.Response(status))
        media_type = response.headers.get("content-type", "").partition(";")[0]
        if sink is not None and media_type.strip().lower() == "text/event-stream":
            return await read_stream(read, sink, self._max_reply_bytes)
        body = bytearray()
        while piece := await read():
            body += piece
            if len(body) > self._max_reply_bytes:
                raise ReplyUnusable("the reply is too large")
        return read_object(bytes(body))


def describe(error: BaseException) -> str:
    """What a call failed at, for operators: neither an address nor anything of the reply."""
    error = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error
    below = getattr(error, "certificate_error", getattr(error, "os_error", error))
    match below:
        case ReplyUnusable() | httpx.HTTPError():
            return str(below)
        case aiohttp.ConnectionTimeoutError():
            return "timed out while connecting"
        case TimeoutError() if below is error:
            return "timed out while waiting for the reply"
        case socket.gaierror():
            return f"no such host: {below.strerror}"
        case ssl.SSLError():
            return f"TLS: {getattr(below, 'verify_message', None) or below.reason}"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | ConnectionResetError():
            return "connection reset, or closed before the end of the reply"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
    return type(below).__name__
