"""An LLM server that can be killed, since it is a process: `python -m uvicorn tests.faults.llm_process:app`."""

import asyncio
import random

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.faults.scale import SCALE


async def dispatch(request: Request) -> JSONResponse:
    """Think, then answer."""
    query = (await request.json())["query"]
    await asyncio.sleep(random.uniform(*SCALE.thinking))
    return JSONResponse({"answer": f"re: {query}", "tool_response": None})


app = Starlette(routes=[Route("/llm/mcp-router/dispatch", dispatch, methods=["POST"])])
