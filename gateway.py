"""The gateway: its routes, its errors, its life. Run by `uvicorn gateway:app` or `python gateway.py`."""

import argparse
import asyncio
import multiprocessing
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route, WebSocketRoute

from common import logs
from handlers import pages, rest, ws
from handlers.responses import EXCEPTION_HANDLERS
from service.checks import check_all
from service.edge import Edge
from service.instance import Instance
from service.serving import DrainOnSignal, Supervisor, configure, cut_silent_connections, running_server
from settings import InvalidSettings, Settings, read_settings

KEEP_ALIVE_SECONDS = (
    75  # longer than a load balancer's 60, so that it is never we who close a connection it wants to use
)

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
    Route("/docs", pages.show("docs.html")),
    Route("/openapi.json", pages.show("openapi.json")),
    Route("/asyncapi.json", pages.show("asyncapi.json")),
    Mount("/web", pages.WebFiles(directory=pages.WEB)),
]


def create_app(settings: Settings) -> Edge:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Instance]]:
        server = running_server()
        configure(server, settings.prompts_per_minute)
        instance: Instance

        async def drain() -> None:
            await instance.drain()

        with DrainOnSignal(server, drain):
            async with Instance.run(settings) as instance:
                instance.look_after(cut_silent_connections(server))
                yield {"instance": instance}

    cors = Middleware(
        CORSMiddleware,
        allow_origins=sorted(settings.frontend_host),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        allow_credentials=True,
    )
    app = Starlette(routes=ROUTES, middleware=[cors], exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan)
    app.router.redirect_slashes = False
    return Edge(app)


def load_settings() -> Settings:
    """The settings, or the end of the process with a line for each problem."""
    try:
        return read_settings()
    except InvalidSettings as invalid:
        for problem in invalid.problems:
            print(problem, file=sys.stderr)
        # 3 is how a worker tells uvicorn's supervisor that starting it again will not help.
        sys.exit(3 if multiprocessing.parent_process() else 2)


settings = load_settings()
logs.set_up(settings.log_level, settings.environment)
app = create_app(settings)


def check() -> int:
    """Names what will hurt; the exit status."""
    warnings = asyncio.run(check_all(settings))
    print("\n".join(warnings) if warnings else "Nothing to warn of.")
    return 1 if warnings else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check the settings; exit status 1 if one will hurt")
    if parser.parse_args().check:
        sys.exit(check())
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "ws_max_size": settings.max_frame_bytes,
        "ws_per_message_deflate": False,
        "ws_ping_interval": settings.ping_seconds,
        "ws_ping_timeout": settings.ping_seconds,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "server_header": False,
        "proxy_headers": False,
        "access_log": False,
        "log_config": None,
    }
    if settings.web_concurrency == 1:
        uvicorn.run(app, **options)
    else:
        config = uvicorn.Config("gateway:app", workers=settings.web_concurrency, **options)
        Supervisor(config, [config.bind_socket()]).run()


if __name__ == "__main__":
    main()
