"""The MCP server by the Model Context Protocol itself: its tool, called over Streamable HTTP.

The newest revision takes a single POST. The older ones have sessions: each login opens one and ends it, so that none
stays behind. Which of them the server speaks shows at the first call, and is kept until the server refuses it.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

import aiohttp
import orjson

from common import NAME, VERSION
from common.logs import log
from common.tasks import TaskOwner
from settings import Settings
from upstream.call import Call, Sink
from upstream.events import read_objects
from upstream.mcp import TOOL, McpServer
from upstream.replies import ReplyUnusable, read_object
from upstream.server import describe

NEWEST, OLDER = "2026-07-28", ("2025-11-25", "2025-06-18", "2025-03-26")
CLIENT = {"name": NAME, "version": VERSION}
META = {"protocolVersion": NEWEST, "clientInfo": CLIENT, "clientCapabilities": {}}
NEWEST_PARAMS = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in META.items()}}
REVISION_HEADER, SESSION_HEADER = "mcp-protocol-version", "mcp-session-id"
INITIALIZE_ID, CALL_ID = 1, 2
CANCELLED = {"method": "notifications/cancelled", "params": {"requestId": CALL_ID}}
# How a server refuses what it does not understand, and the errors with which the newest revision refuses what it does
REFUSALS, INVALID_REQUEST, NO_REFUSALS = (400, 404, 405, 422), -32600, (-32020, -32021)
NO_METHOD = {"code": -32601, "message": "Method not found"}
TRIES = 4  # the revision that is known, the other way, and both again where the server is replaced in between
FIND_SECONDS = 1.0  # for which a login waits for another one to find out what the server speaks
END_SECONDS = 2.0


class Refused(ReplyUnusable):
    """The server does not speak like this; `instead` is a revision that it names."""

    instead: str | None = None


class NativeMcpServer(McpServer):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.mcp_server_url, "application/json, text/event-stream")
        self._guess = NEWEST  # while `revision` is not known
        self._finding = asyncio.Lock()
        self._endings = TaskOwner("mcp")

    async def close(self) -> None:
        await self._endings.wait()
        await super().close()

    async def ask(
        self, payload: Mapping[str, object], request_id: str, call: Call, sink: Sink | None = None
    ) -> dict[str, Any]:
        """What the tool says to these arguments, within `httpx_timeout`, all in all. Raises also aiohttp's errors."""
        with call.within(self._timeout):
            return _read_result(await self._request("tools/call", {"name": TOOL, "arguments": payload}, request_id))

    async def _request(self, method: str, params: dict[str, Any], request_id: str) -> dict[str, Any]:
        """The result, in the revision that is known, or else found out. Raises ReplyUnusable and aiohttp's errors."""
        for tries_left in reversed(range(TRIES)):
            async with AsyncExitStack() as line:
                if self.revision is None:  # one finds out, the others wait for that, but not for long
                    with suppress(TimeoutError):
                        async with asyncio.timeout(FIND_SECONDS):
                            await line.enter_async_context(self._finding)
                if self.revision is not None:
                    await line.aclose()
                revision = self.revision or self._guess
                ask = self._ask_newest if revision == NEWEST else self._ask_older
                try:
                    return await ask(method, params, {"x-request-id": request_id})
                except Refused as refusal:
                    if self.revision in (None, revision):
                        self.revision = None
                        self._guess = refusal.instead or (OLDER[0] if revision == NEWEST else NEWEST)
                    if not tries_left:
                        raise
        raise AssertionError

    async def _ask_newest(self, method: str, params: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        headers |= {REVISION_HEADER: NEWEST, "mcp-method": method} | ({"mcp-name": TOOL} if params else {})
        result = await self._exchange({"id": CALL_ID, "method": method, "params": params | NEWEST_PARAMS}, headers)
        self.revision = NEWEST
        return result

    async def _ask_older(self, method: str, params: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        """In a session of its own."""
        wanted = {"protocolVersion": self.revision or self._guess, "capabilities": {}, "clientInfo": CLIENT}
        is_cut = False
        try:
            opened = await self._exchange({"id": INITIALIZE_ID, "method": "initialize", "params": wanted}, headers)
            if (agreed := opened.get("protocolVersion")) not in OLDER:
                raise ReplyUnusable("the server speaks no revision that is known here")
            self.revision = headers[REVISION_HEADER] = agreed
            await self._exchange({"method": "notifications/initialized"}, headers)
            return await self._exchange({"id": CALL_ID, "method": method, "params": params}, headers) if params else {}
        except asyncio.CancelledError:
            is_cut = REVISION_HEADER in headers
            raise
        finally:
            self._endings.start(self._end(headers, is_cut))

    async def _end(self, headers: dict[str, str], is_cut: bool) -> None:
        """Ends a call in an older revision, whether the server listens or not; nobody waits for it."""
        try:
            async with asyncio.timeout(END_SECONDS):
                if is_cut:
                    await self._exchange(CANCELLED, headers)
                if SESSION_HEADER in headers:
                    (await self._session.delete(self._url, headers=headers, allow_redirects=False)).release()
        except (aiohttp.ClientError, OSError, ReplyUnusable) as error:
            log.warning("MCP session not ended", error=describe(error), request_id=headers["x-request-id"])

    async def _exchange(self, message: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        """Sends a message; the result, if it asks for one. The session that a reply opens is added to `headers`."""
        body = orjson.dumps({"jsonrpc": "2.0", **message})
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            status, is_request = response.status, "method" in message and "id" in message
            if session := response.headers.get(SESSION_HEADER):
                headers[SESSION_HEADER] = session
            if 200 <= status < 300 and not is_request:
                return {}
            async with aclosing(read_objects(response, self._max_reply_bytes)) as received:
                async for it in received:
                    match it:
                        case {"method": asked, "id": id} if headers.get(REVISION_HEADER) != NEWEST:
                            outcome = {"result": {}} if asked == "ping" else {"error": NO_METHOD}
                            await self._exchange({"id": id, **outcome}, headers)
                        case {"error": dict() as error}:
                            raise _failure(status, error)
                        case {"result": dict() as result, "id": id} if id == message["id"]:
                            return result
            raise _failure(status, {})


async def find_revision(settings: Settings) -> str | None:
    """What the server speaks, found out without its tool; None if it is nothing known, or takes too long."""
    server = NativeMcpServer(settings)
    with suppress(ReplyUnusable, aiohttp.ClientError, OSError), Call().within(settings.connect_timeout):
        await server._request("server/discover", {}, "check")
    await server.close()
    return server.revision


def _failure(status: int, error: dict[str, Any]) -> ReplyUnusable:
    """What a status and the error beside it come to."""
    code, data = error.get("code"), error.get("data")
    why = f"HTTP {status}, JSON-RPC error {code}" if isinstance(code, int) else f"HTTP {status} without a result"
    supported = data.get("supported") if isinstance(data, dict) else None
    if isinstance(supported, list) or code == INVALID_REQUEST or (status in REFUSALS and code not in NO_REFUSALS):
        refused = Refused(why)
        refused.instead = next((it for it in (NEWEST, *OLDER) if it in (supported or ())), None)
        return refused
    return ReplyUnusable(why)


def _read_result(result: dict[str, Any]) -> dict[str, Any]:
    """What the tool says: `structuredContent`, or else the JSON in its first text. Raises ReplyUnusable."""
    if result.get("isError"):
        raise ReplyUnusable("the tool says that it failed")
    structured, content = result.get("structuredContent"), result.get("content")
    if isinstance(structured, dict):
        return structured
    for item in content if isinstance(content, list) else ():
        if isinstance(item, dict) and isinstance(text := item.get("text"), str):
            return read_object(text.encode())
    raise ReplyUnusable("neither structuredContent nor text")
