"""The MCP server, whose tool recommends cards after a login."""

from uuid import UUID

import httpx

from common import metrics
from common.errors import RecommendationFailed
from common.logs import log
from settings import Settings
from upstream.call import Call
from upstream.client import Client
from upstream.replies import Answer, ReplyUnusable, read_object, read_recommendation


class McpServer:
    """Has connections of its own: when it is slow, it takes none from the LLM server's."""

    def __init__(self, settings: Settings) -> None:
        self._client = Client(settings, settings.mcp_server_url + "/tools/consumption_recommend", "application/json")

    async def close(self) -> None:
        await self._client.close()

    async def recommend(self, session_id: UUID, persona_id: int, request_id: str) -> Answer:
        """Asks for a recommendation, in the name of a request. Raises RecommendationFailed."""
        try:
            payload = {"session_id": str(session_id), "persona_id": persona_id}
            body = await self._client.ask(payload, request_id, self._client.read_whole, Call())
            answer = read_recommendation(read_object(body))
        except (ReplyUnusable, TimeoutError, httpx.HTTPError) as error:
            why = str(error) if isinstance(error, ReplyUnusable | httpx.HTTPStatusError) else type(error).__name__
            log.warning("MCP server failed", error=why, request_id=request_id)
            metrics.upstream_calls.labels("mcp", "failed").inc()
            raise RecommendationFailed from error
        metrics.upstream_calls.labels("mcp", "ok").inc()
        return answer
