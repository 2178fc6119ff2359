"""/api/login: ties a session to a persona; tells the MCP server which one it is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from handlers.requests import Body
from handlers.responses import json_response


async def login(request: Request) -> Response:
    body = await Body.read(request)
    session_id, persona_id = body.uuid("session_id"), body.integer("persona_id")
    body.check()
    await request.state.instance.chat.logins.login(session_id, persona_id, request.state.request_id)
    return Response()


async def get_persona_id(request: Request) -> Response:
    body = await Body.read(request)
    session_id = body.uuid("session_id")
    body.check()
    return json_response({"persona_id": await request.state.instance.chat.logins.get_persona_id(session_id)})
