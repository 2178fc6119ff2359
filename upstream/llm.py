"""The LLM server, which makes the answers."""

from uuid import UUID

import httpx

from common import metrics
from common.errors import LLM_FORMAT, LLM_STATUS, LLM_TIMEOUT, LLM_UNREACHABLE
from common.logs import log
from settings import Settings
from upstream.call import Call, Sink, Stopped
from upstream.replies import Answer, ReplyUnusable, read_reply
from upstream.server import Server

OK = metrics.upstream_calls.labels("llm", "ok")


class LlmServer(Server):
    failure: str | None = None  # what the last call came to

    def __init__(self, settings: Settings) -> None:
        url = settings.llmserver_url.rstrip("/") + "/llm/mcp-router/dispatch"
        super().__init__(settings, url, "application/json, text/event-stream")

    async def dispatch(self, message: str, session_id: UUID, request_id: str, call: Call, sink: Sink) -> Answer:
        """Asks, in the name of a request. A failure is an answer too, one that says so. Raises Stopped."""
        try:
            payload = {"query": message, "session_id": str(session_id)}
            answer = read_reply(await self.ask(payload, request_id, call, sink))
            self.failure = None
            OK.inc()
            return answer
        except Stopped:
            metrics.upstream_calls.labels("llm", "stopped").inc()
            raise
        except httpx.HTTPStatusError as error:
            result, self.failure = "status", LLM_STATUS.format(error.response.status_code)
        except ReplyUnusable:
            result, self.failure = "format", LLM_FORMAT
        except (TimeoutError, httpx.TimeoutException):
            result, self.failure = "timeout", LLM_TIMEOUT
        except httpx.HTTPError:
            result, self.failure = "unreachable", LLM_UNREACHABLE
        except Exception:  # whatever it was, a prompt is not left without an answer
            log.exception("LLM reply not understood", message_id=request_id)
            result, self.failure = "format", LLM_FORMAT
        metrics.upstream_calls.labels("llm", result).inc()
        log.warning("LLM server failed", answer=self.failure, message_id=request_id)
        return Answer(self.failure)
