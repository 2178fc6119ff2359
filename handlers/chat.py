"""/api/chat: feedback, personas, history."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from chat.frames import history_entry
from common.errors import NO_ANSWER, NO_SESSION, NotFound
from handlers.requests import Body, path_uuid, query_integer
from handlers.responses import json_response


async def set_feedback(request: Request) -> Response:
    body = await Body.read(request)
    message_id, is_helpful = body.uuid("message_id"), body.boolean_or_null("is_helpful")
    body.check()
    if await request.state.instance.chatdb.fetchrow("set_feedback", message_id, is_helpful) is None:
        raise NotFound(NO_ANSWER)
    return json_response({"status": "success", "message_id": message_id, "feedback_received": is_helpful})


async def list_personas(request: Request) -> Response:
    return Response(await request.state.instance.personas.get(), media_type="application/json")


async def get_history(request: Request) -> Response:
    session_id = path_uuid(request, "session_id")
    limit = query_integer(request, "limit", default=100, minimum=1, maximum=500)
    rows = await request.state.instance.chatdb.fetch("list_history", session_id, limit)
    if not rows:
        raise NotFound(NO_SESSION)
    history = [history_entry(row) for row in rows if row["id"] is not None]  # a session without a word has one of nulls
    return json_response({"session_id": session_id, "history": history})
