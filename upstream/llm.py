"""The LLM server, which makes the answers."""

from functools import partial
from typing import Any
from uuid import UUID

import httpx

from common import metrics
from common.errors import LLM_FORMAT, LLM_STATUS, LLM_TIMEOUT, LLM_UNREACHABLE
from common.logs import log
from settings import Settings
from upstream.call import Call, Sink, Stopped
from upstream.client import Client, body_of
from upstream.replies import Answer, ReplyUnusable, read_object, read_reply
from upstream.streamed import StreamedReply

ACCEPT = "application/json, text/event-stream"
OK = metrics.upstream_calls.labels("llm", "ok")


class LlmServer:
    def __init__(self, settings: Settings) -> None:
        self._client = Client(settings, settings.llmserver_url + "/llm/mcp-router/dispatch", ACCEPT)
        self.failure: str | None = None  # what the last call came to

    async def close(self) -> None:
        await self._client.close()

    async def dispatch(self, message: str, session_id: UUID, request_id: str, call: Call, sink: Sink) -> Answer:
        """Asks, in the name of a request. A failure is an answer too, one that says so. Raises Stopped."""
        try:
            payload = {"query": message, "session_id": str(session_id)}
            reply = await self._client.ask(payload, request_id, partial(self._read, sink), call)
            answer = read_reply(reply)
        except Stopped:
            metrics.upstream_calls.labels("llm", "stopped").inc()
            raise
        except httpx.HTTPStatusError as error:
            return self._fail(LLM_STATUS.format(error.response.status_code), "status", request_id)
        except ReplyUnusable:
            return self._fail(LLM_FORMAT, "format", request_id)
        except (TimeoutError, httpx.TimeoutException):
            return self._fail(LLM_TIMEOUT, "timeout", request_id)
        except httpx.HTTPError:
            return self._fail(LLM_UNREACHABLE, "unreachable", request_id)
        except Exception:  # whatever it was, a prompt is not left without an answer
            log.exception("LLM reply not understood", message_id=request_id)
            return self._fail(LLM_FORMAT, "format", request_id)
        self.failure = None
        OK.inc()
        return answer

    async def _read(self, sink: Sink, response: httpx.Response) -> dict[str, Any]:
        media_type = response.headers.get("content-type", "").partition(";")[0]
        if media_type.strip().lower() == "text/event-stream":
            return await StreamedReply(sink, self._client.max_reply_bytes).read(body_of(response))
        return read_object(await self._client.read_whole(response))

    def _fail(self, message: str, result: str, request_id: str) -> Answer:
        self.failure = message
        metrics.upstream_calls.labels("llm", result).inc()
        log.warning("LLM server failed", answer=message, message_id=request_id)
        return Answer(message)
