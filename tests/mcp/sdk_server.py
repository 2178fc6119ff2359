"""Real MCP servers, made with the official SDK of version 1 or 2: one for each of its modes, all in one process.

    .venv-mcp1/bin/python -m uvicorn tests.mcp.sdk_server:app

At /MODE/mcp one answers in that mode. The tool does what `session_id` says, if that is one of the words below; a real
session's persona it asks the gateway for. What happens is printed, also the sessions that the SDK opens and ends.
"""

import asyncio
import importlib.metadata
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.mcp.sdk_modes import MODES

IS_OLD = importlib.metadata.version("mcp").startswith("1.")
if IS_OLD:
    from mcp.server.fastmcp import Context, FastMCP
    from mcp.types import CallToolResult
else:
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver import MCPServer as FastMCP
    from mcp_types import CallToolResult


class Choice(BaseModel):
    card: str


async def consumption_recommend(session_id: str, persona_id: int, ctx: Context) -> CallToolResult:  # noqa: PLR0912
    """Recommends cards by what a persona spends money on."""
    print(f"called {session_id} {persona_id}", flush=True)
    said: dict[str, Any] = {"answer": f"추천 {persona_id}", "login_required": False, "card_list": ["카드의정석2"]}
    match session_id:
        case "plain":
            pass
        case "text":
            return CallToolResult.model_validate(
                {"content": [{"type": "text", "text": '{"answer": "글로 된 추천", "card_list": []}'}]}
            )
        case "fail":
            raise ValueError("비밀")
        case "isError":
            return CallToolResult.model_validate({"content": [], "structuredContent": said, "isError": True})
        case "misfit":
            return CallToolResult.model_validate({"content": [{"type": "text", "text": "안녕"}]})
        case "slow":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print("cancelled", flush=True)
                raise
        case "notify":
            for step in range(3):
                await ctx.info(f"{step}")
                await ctx.report_progress(step)
        case "ask":
            try:
                await ctx.elicit("어느 카드?", Choice)
            except Exception as error:
                print(f"asked: {error}", flush=True)
        case "leave":
            os._exit(1)
        case _ if "GATEWAY_URL" in os.environ:
            async with httpx.AsyncClient(base_url=os.environ["GATEWAY_URL"], trust_env=False) as gateway:
                response = await gateway.post("/api/login/persona_id", json={"session_id": session_id})
            said["answer"] = f"추천 {response.json()['persona_id']}"
    return CallToolResult.model_validate({"content": [], "structuredContent": said})


def build(stateless: bool, json: bool) -> Starlette:
    if IS_OLD:
        server = FastMCP("cards", stateless_http=stateless, json_response=json)
        server.add_tool(consumption_recommend)
        old_app: Starlette = server.streamable_http_app()
        return old_app
    server = FastMCP("cards")
    server.add_tool(consumption_recommend)
    new_app: Starlette = server.streamable_http_app(stateless_http=stateless, json_response=json)
    return new_app


APPS = {mode: build(*options) for mode, options in MODES.items()}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for each in APPS.values():
            await stack.enter_async_context(each.router.lifespan_context(each))
        yield


logging.basicConfig(level=logging.INFO, format="%(message)s")
app = Starlette(routes=[Mount(f"/{mode}", each) for mode, each in APPS.items()], lifespan=lifespan)
