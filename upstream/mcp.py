"""The MCP server, whose tool recommends cards after a login."""

from uuid import UUID

import aiohttp
import httpx

from common import metrics
from common.errors import RecommendationFailed
from common.logs import log
from settings import Settings
from upstream.call import Call
from upstream.replies import Answer, ReplyUnusable, read_recommendation
from upstream.server import Server, describe

TOOL = "consumption_recommend"


class McpServer(Server):
    revision: str | None = None  # of the Model Context Protocol, where it is spoken and known

    def __init__(self, settings: Settings, url: str = "", accept: str = "application/json") -> None:
        url = url or settings.mcp_server_url.rstrip("/") + f"/tools/{TOOL}"
        # No login waits for a connection, though the ends of others' sessions may be on their way.
        super().__init__(settings, url, accept, 2 * settings.max_logins)

    async def recommend(self, session_id: UUID, persona_id: int, request_id: str) -> Answer:
        """Asks for a recommendation, in the name of a request. Raises RecommendationFailed."""
        try:
            payload = {"session_id": str(session_id), "persona_id": persona_id}
            answer = read_recommendation(await self.ask(payload, request_id, Call()))
        except (ReplyUnusable, httpx.HTTPError, aiohttp.ClientError, OSError) as error:
            log.warning("MCP server failed", error=describe(error), server=self.address, request_id=request_id)
            metrics.upstream_calls.labels("mcp", "failed").inc()
            raise RecommendationFailed from error
        metrics.upstream_calls.labels("mcp", "ok").inc()
        return answer
