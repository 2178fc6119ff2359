"""What stands before the routes: one form of each path, and a way to cut a connection."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class Edge:
    """Takes the trailing slash off, so that both forms of a path are answered directly and never by a redirect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            path = scope["path"]
            if path.endswith("/") and path != "/":
                scope["path"] = path.rstrip("/") or "/"
            if scope["type"] == "websocket":
                # ASGI has no way to cut a connection whose client does not read; the server's protocol does.
                transport = getattr(getattr(send, "__self__", None), "transport", None)
                scope["gateway.transport"] = transport
                peername = transport.get_extra_info("peername") if transport else None
                scope["gateway.peer"] = peername[0] if isinstance(peername, tuple) else None
        await self._app(scope, receive, send)
