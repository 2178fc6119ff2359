"""What is not the API: health, metrics, the chat page and the documentation, which load nothing from elsewhere."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from common import NAME, VERSION, metrics
from handlers.requests import json_response
from service.checks import SHOWN_ONLY

WEB = Path(__file__).parent.parent / "web"
SHARED = {"dom.js", "markdown.js", "masks.js", "theme.css", "vendor/markdown-it.js"}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


async def get_health(request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


async def get_readiness(request: Request) -> Response:
    instance = request.state.instance
    checks = await instance.check()
    is_ready = all(reason is None for name, reason in checks.items() if name not in SHOWN_ONLY)
    content = {
        "status": "ready" if is_ready else "not ready",
        "checks": {name: {"ok": reason is None, "reason": reason} for name, reason in checks.items()},
    }
    if instance.settings.mcp_protocol == "mcp":
        content["mcp_revision"] = instance.chat.mcp_server.revision  # None until a login has found it out
    return json_response(content, 200 if is_ready else 503)


async def get_metrics(request: Request) -> Response:
    if not request.state.instance.settings.metrics:
        raise HTTPException(404)
    return Response(metrics.render(), media_type=metrics.CONTENT_TYPE)


async def get_root(request: Request) -> Response:
    if request.state.instance.settings.shows_chat_page:
        return await get_file("index.html", request)
    return json_response({"name": NAME, "version": VERSION})


async def get_file(name: str, request: Request) -> Response:
    return FileResponse(WEB / name, headers=HEADERS)


class WebFiles(StaticFiles):
    """The files of the chat page and of the documentation; without the page only the latter's."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        is_of_docs = path.startswith("docs") or path in SHARED
        if not is_of_docs and not scope["state"]["instance"].settings.shows_chat_page:
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
