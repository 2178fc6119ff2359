"""The MCP server, whose tool recommends cards after a login."""

import logging
from uuid import UUID

import httpx

from common import metrics
from common.errors import RecommendationFailed
from common.logs import fields
from settings import Settings
from upstream.client import Client
from upstream.replies import Answer, ReplyUnusable, read_recommendation

logger = logging.getLogger("gateway.upstream")


class McpServer:
    """Has connections of its own: when it is slow, it takes none from the LLM server's."""

    def __init__(self, settings: Settings) -> None:
        self._client = Client(settings, settings.mcp_server_url + "/tools/consumption_recommend")

    async def close(self) -> None:
        await self._client.close()

    async def recommend(self, session_id: UUID, persona_id: int, request_id: str) -> Answer:
        """Asks for a recommendation, in the name of a request. Raises RecommendationFailed."""
        try:
            payload = {"session_id": str(session_id), "persona_id": persona_id}
            status, body = await self._client.post(payload, request_id)
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
