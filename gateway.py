"""The gateway: routes, error handling, lifespan. Run by `uvicorn gateway:app` or `python gateway.py`.

What is where:

    handlers/       ws.py        the handshake, frames that come in
                    rest.py      the REST API; requests.py: what is valid in a request; pages.py: what is no API
    chat/           prompts.py   a prompt taken, stored, claimed
                    turns.py     the order of answers, taking over; waiting.py: for other instances
                    answering.py what is answered; drafts.py: shown while it is made; stops.py: stopped
                    answers.py   answers stored exactly once; frames.py: an answer in each of its forms
                    sessions.py  sessions opened, resumed, superseded, ended; keys.py: what that takes
                    session.py   what is sent, in order, and resumed; delivery.py: notices
                    logins.py    login and push; qna.py: FAQ, terms, views
    upstream/       the LLM server and the MCP server
    database/       pools, batches, migrations, NOTIFY; sql/: every statement
    service/        instance.py  start, readiness, draining; heartbeat.py: signs of life; checks.py: risky settings
                    http_guard.py, ws_guard.py: limits of connections; serving.py: between uvicorn and the routes
    common/         errors.py    kinds of error, and every text; logs.py, metrics.py: what operators see
    settings.py     the settings: names, limits, defaults
"""

import argparse
import asyncio
import multiprocessing
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route, WebSocketRoute
from uvicorn.config import STARTUP_FAILURE

from common import logs
from handlers import pages, rest, ws
from handlers.requests import EXCEPTION_HANDLERS
from service.checks import check_all
from service.instance import Instance
from service.serving import Edge, Supervisor, configured_server, cut_stalled_connections, drain_on_signal
from settings import InvalidSettings, read_settings
from upstream.mcp_native import find_revision

# Longer than a load balancer's 60, so that it is never we who close a connection it wants to use
KEEP_ALIVE_SECONDS = 75

ROUTES = [
    Route("/api/health", pages.get_health),
    Route("/api/health/ready", pages.get_readiness),
    Route("/metrics", pages.get_metrics),
    WebSocketRoute("/api/chat/ws", ws.chat),
    Route("/api/chat/feedback", rest.set_feedback, methods=["POST"]),
    Route("/api/chat/personas", rest.list_personas),
    Route("/api/chat/history/{session_id}", rest.get_history),
    Route("/api/login", rest.login, methods=["POST"]),
    Route("/api/login/persona_id", rest.get_persona_id, methods=["POST"]),
    Route("/api/login/personas", rest.list_personas),
    Route("/api/qna/faq", rest.list_faqs),
    Route("/api/qna/terms", rest.list_terms),
    Route("/", pages.get_root),
    Route("/docs", partial(pages.get_file, "docs.html")),
    Route("/openapi.json", partial(pages.get_file, "openapi.json")),
    Route("/asyncapi.json", partial(pages.get_file, "asyncapi.json")),
    Mount("/web", pages.WebFiles(directory=pages.WEB)),
]

parser = argparse.ArgumentParser(description="Runs the gateway.")
check_help = "only check the settings and what they lead to; exit status 1 if something of it is risky"
parser.add_argument("--check", action="store_true", help=check_help)
is_check = __name__ == "__main__" and parser.parse_args().check

try:
    settings = read_settings()
except InvalidSettings as invalid:
    print(invalid, file=sys.stderr)
    # STARTUP_FAILURE is how a worker tells uvicorn's supervisor that starting it again will not help.
    sys.exit(2 if multiprocessing.current_process().name == "MainProcess" else STARTUP_FAILURE)
logs.set_up(settings.log_level, settings.environment)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Instance]]:
    server = configured_server(settings.prompts_per_minute)
    with drain_on_signal(server, lambda: instance.drain()):  # noqa: PLW0108  # it comes later
        async with Instance.run(settings) as instance:
            instance.tasks.start(cut_stalled_connections(server, settings.send_timeout))
            yield {"instance": instance}


routed = Starlette(routes=ROUTES, exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan)
routed.router.redirect_slashes = False
cors = CORSMiddleware(  # around Starlette, so that a page can read its errors as well
    routed,
    allow_origins=sorted(settings.frontend_host),
    allow_methods=["GET", "POST"],
    allow_headers=["*"],
    allow_credentials=True,
    allow_private_network=True,
    expose_headers=["X-Request-ID"],
)
app = Edge(cors, ROUTES)


def main() -> None:
    if is_check:
        warnings = asyncio.run(check_all(settings))
        if settings.mcp_protocol == "mcp":
            if revision := asyncio.run(find_revision(settings)):
                print(f"The MCP server speaks revision {revision}.")
            else:
                warnings.append("MCP_SERVER_URL: no MCP server answers there in a revision that is known here")
        print("\n".join(warnings) or "Nothing to warn of.")
        sys.exit(1 if warnings else 0)
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "ws_max_size": settings.max_frame_bytes,
        "ws_ping_interval": settings.ping_seconds,
        "ws_ping_timeout": settings.ping_seconds,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "proxy_headers": False,
        "access_log": False,
        "log_config": None,
    }
    if settings.web_concurrency == 1:
        # Of `::` asyncio would take IPv6 alone; several workers share a socket that takes both.
        uvicorn.run(app, **options | {"host": "" if settings.host == "::" else settings.host})
    else:
        config = uvicorn.Config("gateway:app", workers=settings.web_concurrency, **options)
        supervisor = Supervisor(config, [config.bind_socket()])
        supervisor.run()
        sys.exit(STARTUP_FAILURE if supervisor.has_failed_to_start else 0)


if __name__ == "__main__":
    main()
