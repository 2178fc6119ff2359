"""What stands before the routes: one form of each path, an id for each request, a way to cut a connection."""

import re
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FIRST = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Edge:
    """Takes the trailing slash off, so that both forms of a path are answered directly and never by a redirect.

    `X-Request-ID` is taken over or made, stands in the request's state as `request_id`, and is returned.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope["path"] = scope["path"].rstrip("/") or "/"
        if scope["type"] == "websocket":
            # ASGI has no way to cut a connection whose client does not read; the server's protocol does.
            transport = getattr(getattr(send, "__self__", None), "transport", None)
            scope["gateway.transport"] = transport
            peername = transport.get_extra_info("peername") if transport else None
            scope["gateway.peer"] = peername[0] if isinstance(peername, tuple) else None
            scope["gateway.is_tls"] = transport is not None and transport.get_extra_info("sslcontext") is not None
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex.encode()
        scope["state"]["request_id"] = request_id.decode()

        async def send_with_id(message: Message) -> None:
            if message["type"] in _FIRST:
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        await self._app(scope, receive, send_with_id)
