"""The chat page, the documentation and its files: nothing of it comes from another host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from common.version import NAME, VERSION
from handlers.responses import json_response

WEB = Path(__file__).parent.parent / "web"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class WebFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


async def get_root(request: Request) -> Response:
    if request.state.instance.settings.shows_chat_page:
        return FileResponse(WEB / "index.html", headers=HEADERS)
    return json_response({"name": NAME, "version": VERSION})


def show(file: str) -> Callable[[Request], Awaitable[Response]]:
    """A handler that answers with a file of the web folder."""

    async def get_file(request: Request) -> Response:
        return FileResponse(WEB / file, headers=HEADERS)

    return get_file
