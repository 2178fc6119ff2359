"""The MCP server, whose tool recommends cards after a login."""

from uuid import UUID

import httpx

from common import metrics
from common.errors import RecommendationFailed
from common.logs import log
from settings import Settings
from upstream.call import Call
from upstream.replies import Answer, ReplyUnusable, read_recommendation
from upstream.server import Server, describe


class McpServer(Server):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.mcp_server_url + "/tools/consumption_recommend", "application/json")

    async def recommend(self, session_id: UUID, persona_id: int, request_id: str) -> Answer:
        """Asks for a recommendation, in the name of a request. Raises RecommendationFailed."""
        try:
            payload = {"session_id": str(session_id), "persona_id": persona_id}
            answer = read_recommendation(await self.ask(payload, request_id, Call()))
        except (ReplyUnusable, TimeoutError, httpx.HTTPError) as error:
            log.warning("MCP server failed", error=describe(error), server=self.address, request_id=request_id)
            metrics.upstream_calls.labels("mcp", "failed").inc()
            raise RecommendationFailed from error
        metrics.upstream_calls.labels("mcp", "ok").inc()
        return answer
