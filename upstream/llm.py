"""The LLM server, which makes the answers."""

from uuid import UUID

import httpx

from common import metrics
from common.errors import LLM_FORMAT, LLM_STATUS, LLM_TIMEOUT, LLM_UNREACHABLE
from common.logs import log
from settings import Settings
from upstream.call import Call, Sink, Stopped
from upstream.replies import Answer, read_reply
from upstream.server import FORESEEN, Server, describe

OK = metrics.upstream_calls.labels("llm", "ok")


class LlmFailed(Exception):
    """There is no answer; the text is what the visitor is told."""


class LlmServer(Server):
    failure: str | None = None  # what the last call failed at

    def __init__(self, settings: Settings) -> None:
        url = settings.llmserver_url.rstrip("/") + "/llm/mcp-router/dispatch"
        super().__init__(settings, url, "application/json, text/event-stream", settings.max_upstream_connections)

    async def dispatch(self, message: str, session_id: UUID, request_id: str, call: Call, sink: Sink) -> Answer:
        """Asks, in the name of a request. Raises Stopped, LlmFailed."""
        try:
            payload = {"query": message, "session_id": str(session_id)}
            answer = read_reply(await self.ask(payload, request_id, call, sink))
            self.failure = None
            OK.inc()
            return answer
        except Stopped:
            metrics.upstream_calls.labels("llm", "stopped").inc()
            raise
        except Exception as error:  # whatever it was, a prompt is not left without an answer
            result, text = _classify(error)
            self.failure = describe(error)
            metrics.upstream_calls.labels("llm", result).inc()
            unforeseen = None if isinstance(error, FORESEEN) else error
            log.warning("LLM server failed", unforeseen, error=self.failure, server=self.address, message_id=request_id)
            raise LlmFailed(text) from error


def _classify(error: Exception) -> tuple[str, str]:
    """The result of a call for the metrics, and for the visitor."""
    match error:
        case httpx.HTTPStatusError():
            return "status", LLM_STATUS.format(error.response.status_code)
        case TimeoutError() | httpx.TimeoutException():
            return "timeout", LLM_TIMEOUT
        case httpx.HTTPError():
            return "unreachable", LLM_UNREACHABLE
    return "format", LLM_FORMAT
