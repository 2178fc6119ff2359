"""The REST paths: /api/chat, /api/login, /api/qna."""

from starlette.requests import Request
from starlette.responses import Response

from chat.frames import history_entry
from chat.keys import shows_key
from chat.qna import MAX_TOP_K
from common.errors import NO_ANSWER, NO_SESSION, NotFound
from handlers.requests import integer, json_response, optional_boolean, path_uuid, query_integer, read_body, uuid


async def set_feedback(request: Request) -> Response:
    message_id, is_helpful = await read_body(request, message_id=uuid, is_helpful=optional_boolean)
    if await request.state.instance.chatdb.fetchrow("set_feedback", message_id, is_helpful) is None:
        raise NotFound(NO_ANSWER)
    return json_response({"status": "success", "message_id": message_id, "feedback_received": is_helpful})


async def list_personas(request: Request) -> Response:
    return Response(await request.state.instance.personas.get(), media_type="application/json")


async def get_history(request: Request) -> Response:
    session_id = path_uuid(request, "session_id")
    limit = query_integer(request, "limit", default=100, minimum=1, maximum=500)
    chatdb = request.state.instance.chatdb
    rows = await shows_key(request, session_id, chatdb) and await chatdb.fetch("list_history", session_id, limit)
    if not rows:
        raise NotFound(NO_SESSION)
    history = [history_entry(row) for row in rows if row["id"] is not None]  # one row of nulls if nothing was said
    return json_response({"session_id": session_id, "history": history})


async def login(request: Request) -> Response:
    session_id, persona_id = await read_body(request, session_id=uuid, persona_id=integer)
    logins = request.state.instance.chat.logins
    await logins.login(session_id, persona_id, request.state.request_id, request.is_disconnected)
    return Response()


async def get_persona_id(request: Request) -> Response:
    (session_id,) = await read_body(request, session_id=uuid)
    return json_response({"persona_id": await request.state.instance.chat.logins.get_persona_id(session_id)})


async def list_faqs(request: Request) -> Response:
    top_k = query_integer(request, "top_k", default=3, minimum=1, maximum=MAX_TOP_K)
    return Response(await request.state.instance.chat.qna.faqs.to_json(top_k), media_type="application/json")


async def list_terms(request: Request) -> Response:
    top_k = query_integer(request, "top_k", default=6, minimum=1, maximum=MAX_TOP_K)
    return Response(await request.state.instance.chat.qna.terms.to_json(top_k), media_type="application/json")
