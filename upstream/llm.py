"""The LLM server, which makes the answers."""

import logging
from uuid import UUID

import httpx

from common import metrics
from common.errors import LLM_FORMAT, LLM_STATUS, LLM_TIMEOUT, LLM_UNREACHABLE
from common.logs import fields
from settings import Settings
from upstream.client import Client
from upstream.replies import Answer, ReplyUnusable, read_reply

logger = logging.getLogger("gateway.upstream")

OK = metrics.upstream_calls.labels("llm", "ok")


class LlmServer:
    def __init__(self, settings: Settings) -> None:
        self._client = Client(settings, settings.llmserver_url + "/llm/mcp-router/dispatch")
        self.failure: str | None = None  # what the last call came to

    async def close(self) -> None:
        await self._client.close()

    async def dispatch(self, message: str, session_id: UUID, request_id: str) -> Answer:
        """Asks, in the name of a request. A failure is an answer too, one that says so."""
        try:
            status, body = await self._client.post({"query": message, "session_id": str(session_id)}, request_id)
            if not 200 <= status < 300:
                return self._fail(LLM_STATUS.format(status), "status", request_id)
            answer = read_reply(body)
        except ReplyUnusable:
            return self._fail(LLM_FORMAT, "format", request_id)
        except (TimeoutError, httpx.TimeoutException):
            return self._fail(LLM_TIMEOUT, "timeout", request_id)
        except httpx.HTTPError:
            return self._fail(LLM_UNREACHABLE, "unreachable", request_id)
        except Exception:  # whatever it was, a prompt is not left without an answer
            logger.exception("LLM reply not understood", extra=fields(message_id=request_id))
            return self._fail(LLM_FORMAT, "format", request_id)
        self.failure = None
        OK.inc()
        return answer

    def _fail(self, message: str, result: str, request_id: str) -> Answer:
        self.failure = message
        metrics.upstream_calls.labels("llm", result).inc()
        logger.warning("LLM server failed", extra=fields(answer=message, message_id=request_id))
        return Answer(message)
