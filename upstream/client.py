"""A server that is asked by POST, JSON both ways."""

import asyncio
from collections.abc import Mapping

import httpx
import orjson

from settings import Settings
from upstream.replies import ReplyUnusable
from upstream.transport import AiohttpTransport

HEADERS = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}


class Client:
    """Its transport is called directly, and has connections for every turn in hand."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._url = httpx.URL(url)
        self._timeout = settings.httpx_timeout
        self._max_reply_bytes = settings.max_reply_bytes
        self._transport = AiohttpTransport(HEADERS, settings.max_upstream_connections, settings.connect_timeout)

    async def close(self) -> None:
        await self._transport.aclose()

    async def post(self, payload: Mapping[str, object], request_id: str) -> tuple[int, bytes]:
        """Status and body, within `httpx_timeout` from first to last byte, however slowly they drip.

        Raises ReplyUnusable if the reply is too large, TimeoutError, and httpx's TimeoutException and NetworkError.
        """
        body = httpx.ByteStream(orjson.dumps(payload))
        request = httpx.Request("POST", self._url, headers={"x-request-id": request_id}, stream=body)
        async with asyncio.timeout(self._timeout):
            response = await self._transport.handle_async_request(request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            try:
                return response.status_code, await self._read(response.stream)
            finally:
                await response.stream.aclose()

    async def _read(self, stream: httpx.AsyncByteStream) -> bytes:
        body = b""
        async for piece in stream:
            body = body + piece if body else piece
            if len(body) > self._max_reply_bytes:
                raise ReplyUnusable("the reply is too large")
        return body
