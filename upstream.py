"""The LLM server and the MCP server: call, check, translate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp
import httpx
import orjson

import metrics
from errors import LLM_FORMAT, LLM_STATUS, LLM_TIMEOUT, LLM_UNREACHABLE, RecommendationFailed
from logs import fields
from settings import Settings

logger = logging.getLogger("gateway.upstream")

HEADERS = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
LISTS = ("card_list", "related_questions")
LLM_OK = metrics.upstream_calls.labels("llm", "ok")
# Below the keep-alive of the servers behind us (uvicorn's is 5 s), so that no call is sent into a closing connection.
IDLE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the bot says; `payload` has `login_required`, and the LISTS that a tool gave."""

    message: str
    tool_name: str | None = None
    payload: dict[str, Any] = field(default_factory=lambda: {"login_required": False})


class ReplyUnusable(Exception):
    """The reply is no JSON object, too large, or has no usable message."""


class Content(httpx.AsyncByteStream):
    """A body that is there as a whole."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content


class AiohttpTransport(httpx.AsyncBaseTransport):
    """httpx's requests over aiohttp's connections.

    Only what is needed here: JSON both ways, bodies as a whole, and no headers of replies.
    """

    def __init__(self, max_connections: int, connect_timeout: float, max_reply_bytes: int) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_connect=connect_timeout),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ReplyUnusable if the reply is too large, and httpx's TimeoutException and NetworkError."""
        assert isinstance(request.stream, Content)
        content, headers = request.stream.content, request.headers.multi_items()
        try:
            async with self._client.request(
                request.method, str(request.url), data=content, headers=headers, allow_redirects=False
            ) as response:
                body = b""
                while chunk := await response.content.readany():
                    body = body + chunk if body else chunk
                    if len(body) > self._max_reply_bytes:
                        raise ReplyUnusable("the reply is too large")
                return httpx.Response(response.status, stream=Content(body))
        except TimeoutError as error:
            raise httpx.TimeoutException(str(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise httpx.NetworkError(str(error)) from error

    async def aclose(self) -> None:
        await self._client.close()


class Upstream:
    """Both servers over one HTTP client: its transport is called directly, with connections for every turn in hand."""

    def __init__(self, settings: Settings) -> None:
        self._llm_url = httpx.URL(settings.llmserver_url + "/llm/mcp-router/dispatch")
        self._mcp_url = httpx.URL(settings.mcp_server_url + "/tools/consumption_recommend")
        self.llm_failure: str | None = None  # what the last call came to
        self._timeout = settings.httpx_timeout
        self._transport = AiohttpTransport(
            settings.max_upstream_connections, settings.connect_timeout, settings.max_reply_bytes
        )

    async def close(self) -> None:
        await self._transport.aclose()

    async def dispatch(self, message: str, session_id: UUID, request_id: str) -> Answer:
        """Asks the LLM server, in the name of a request. A failure is an answer too, one that says so."""
        try:
            status, body = await self._post(
                self._llm_url, {"query": message, "session_id": str(session_id)}, request_id
            )
            if not 200 <= status < 300:
                return self._failure(LLM_STATUS.format(status), "status", request_id)
            answer = read_reply(body)
        except ReplyUnusable:
            return self._failure(LLM_FORMAT, "format", request_id)
        except (TimeoutError, httpx.TimeoutException):
            return self._failure(LLM_TIMEOUT, "timeout", request_id)
        except httpx.HTTPError:
            return self._failure(LLM_UNREACHABLE, "unreachable", request_id)
        except Exception:  # whatever it was, a prompt is not left without an answer
            logger.exception("LLM reply not understood", extra=fields(message_id=request_id))
            return self._failure(LLM_FORMAT, "format", request_id)
        self.llm_failure = None
        LLM_OK.inc()
        return answer

    def _failure(self, message: str, result: str, request_id: str) -> Answer:
        self.llm_failure = message
        metrics.upstream_calls.labels("llm", result).inc()
        logger.warning("LLM server failed", extra=fields(answer=message, message_id=request_id))
        return Answer(message)

    async def recommend(self, session_id: UUID, persona_id: int, request_id: str) -> Answer:
        """Asks the MCP server for a recommendation. Raises RecommendationFailed."""
        try:
            payload = {"session_id": str(session_id), "persona_id": persona_id}
            status, body = await self._post(self._mcp_url, payload, request_id)
            if not 200 <= status < 300:
                raise ReplyUnusable(f"HTTP {status}")
            answer = read_recommendation(body)
        except (ReplyUnusable, TimeoutError, httpx.HTTPError) as error:
            why = str(error) if isinstance(error, ReplyUnusable) else type(error).__name__
            logger.warning("MCP server failed", extra=fields(error=why, request_id=request_id))
            metrics.upstream_calls.labels("mcp", "failed").inc()
            raise RecommendationFailed from error
        metrics.upstream_calls.labels("mcp", "ok").inc()
        return answer

    async def _post(self, url: httpx.URL, payload: Mapping[str, object], request_id: str) -> tuple[int, bytes]:
        """Status and body, within `httpx_timeout` from first to last byte, however slowly they drip."""
        headers = {"x-request-id": request_id}
        request = httpx.Request("POST", url, headers=headers, stream=Content(orjson.dumps(payload)))
        async with asyncio.timeout(self._timeout):
            response = await self._transport.handle_async_request(request)
        assert isinstance(response.stream, Content)
        return response.status_code, response.stream.content


def read_reply(body: bytes) -> Answer:
    """Translates a reply of the LLM server. Raises ReplyUnusable."""
    reply = _read_object(body)
    tool = reply.get("tool_response")
    if not tool:
        return Answer(_message(reply))
    tool_name, content = (
        (tool.get("tool_name"), tool.get("tool_response_content")) if isinstance(tool, dict) else (None, None)
    )
    payload: dict[str, Any] = {"login_required": False}
    message = reply
    if isinstance(content, dict):
        # One release nests the tool's own answer; its lists then stand in either place.
        inner = content["answer"] if isinstance(content.get("answer"), dict) else {}
        content = {**inner, **content, "answer": inner.get("answer", content.get("answer"))}
        payload["login_required"] = content.get("login_required") is True
        for key, name in (("card_list", "card_list"), ("relatedQuestions", "related_questions")):
            if isinstance(content.get(key), list):
                payload[name] = content[key]
        if _is_usable(content["answer"]):
            message = content
    return Answer(_message(message), _clean(tool_name) if isinstance(tool_name, str) else None, _clean(payload))


def read_recommendation(body: bytes) -> Answer:
    """Translates a reply of the MCP server. Raises ReplyUnusable."""
    reply = _read_object(body)
    cards = reply.get("card_list")
    if not isinstance(cards, list) or not isinstance(reply.get("login_required", False), bool):
        raise ReplyUnusable("card_list is no list, or login_required no boolean")
    return Answer(_message(reply), "consumption_recommend", _clean({"login_required": False, "card_list": cards}))


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ReplyUnusable("no JSON") from None
    if not isinstance(reply, dict):
        raise ReplyUnusable("no JSON object")
    return reply


def _is_usable(message: object) -> bool:
    return isinstance(message, str) and bool(message.replace("\0", "").strip())


def _message(reply: dict[str, Any]) -> str:
    message = reply.get("answer")
    if not _is_usable(message):
        raise ReplyUnusable("no usable message")
    return str(_clean(message))


def _clean(value: Any) -> Any:
    """The value without NUL characters, which PostgreSQL cannot store. Raises ReplyUnusable."""
    try:
        if b"\\u0000" not in orjson.dumps(value):
            return value
    except orjson.JSONEncodeError:
        raise ReplyUnusable("nested too deeply") from None
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
