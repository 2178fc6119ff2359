"""A server that is asked by POST, JSON both ways."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import httpx
import orjson

from settings import Settings
from upstream.call import Call
from upstream.replies import ReplyUnusable
from upstream.transport import AiohttpTransport

T = TypeVar("T")

HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}


class Client:
    """Its transport is called directly, and has connections for every turn in hand."""

    def __init__(self, settings: Settings, url: str, accept: str) -> None:
        self.max_reply_bytes = settings.max_reply_bytes
        self._url = httpx.URL(url)
        self._timeout = settings.httpx_timeout
        headers = HEADERS | {"accept": accept}
        self._transport = AiohttpTransport(headers, settings.max_upstream_connections, settings.connect_timeout)

    async def close(self) -> None:
        await self._transport.aclose()

    async def ask(
        self, payload: Mapping[str, object], request_id: str, read: Callable[[httpx.Response], Awaitable[T]], call: Call
    ) -> T:
        """What `read` makes of the reply, within `httpx_timeout` to the last byte it reads, however slowly they drip.

        Raises Stopped, TimeoutError, httpx's TimeoutException and NetworkError, and HTTPStatusError.
        """
        body = httpx.ByteStream(orjson.dumps(payload))
        request = httpx.Request("POST", self._url, headers={"x-request-id": request_id}, stream=body)
        with call.within(self._timeout):
            response = await self._transport.handle_async_request(request)
            try:
                if not 200 <= response.status_code < 300:
                    raise httpx.HTTPStatusError(f"HTTP {response.status_code}", request=request, response=response)
                return await read(response)
            finally:
                await body_of(response).aclose()

    async def read_whole(self, response: httpx.Response) -> bytes:
        """The body. Raises ReplyUnusable if it is too large, and httpx's TimeoutException and NetworkError."""
        body = b""
        async for piece in body_of(response):
            body = body + piece if body else piece
            if len(body) > self.max_reply_bytes:
                raise ReplyUnusable("the reply is too large")
        return body


def body_of(response: httpx.Response) -> httpx.AsyncByteStream:
    """As it arrives; httpx's own ways to it cost more than the rest of the call."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream
