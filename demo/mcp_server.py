"""A stand-in for the MCP tool server: recommends cards by what a persona spends money on.

    GATEWAY_URL=http://127.0.0.1:8001 DATABASE_URL=postgresql://… \
        python -m uvicorn demo.mcp_server:app --port 8011

Like the real one it asks the gateway which persona the session is tied to before it answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

import asyncpg
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from demo import cards

LOGIN_SENTENCE = "고객님의 소비를 알아야 추천해 드릴 수 있어요. 먼저 로그인해 주세요."


class State(TypedDict):
    chatdb: asyncpg.Pool[Any]
    gateway: httpx.AsyncClient


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    async with (
        # No connection before the first question: the gateway may not have made its tables yet.
        asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=0, timeout=5) as chatdb,
        httpx.AsyncClient(base_url=os.environ["GATEWAY_URL"], timeout=10, trust_env=False) as gateway,
    ):
        yield {"chatdb": chatdb, "gateway": gateway}


async def consumption_recommend(request: Request) -> JSONResponse:
    body = await request.json()
    session_id = body.get("session_id") if isinstance(body, dict) else None
    if not isinstance(session_id, str):
        return JSONResponse({"detail": "session_id must be a string"}, 422)
    try:
        persona_id = await tied_persona_id(request.state.gateway, session_id)
    except httpx.HTTPError:
        return JSONResponse({"detail": "The gateway does not say which persona is logged in"}, 502)
    persona = await load_persona(request.state.chatdb, persona_id)
    return JSONResponse(recommendation(persona) if persona else login_request())


async def tied_persona_id(gateway: httpx.AsyncClient, session_id: str) -> int | None:
    """Raises httpx.HTTPError where the gateway gives no answer; an unknown session has no persona."""
    response = await gateway.post("/api/login/persona_id", json={"session_id": session_id})
    if response.status_code in (404, 422):
        return None
    response.raise_for_status()
    persona_id: int | None = response.json()["persona_id"]
    return persona_id


async def load_persona(chatdb: asyncpg.Pool[Any], persona_id: int | None) -> asyncpg.Record | None:
    if persona_id is None:
        return None
    row: asyncpg.Record | None = await chatdb.fetchrow(
        'SELECT name, description FROM "Persona" WHERE id = $1', persona_id
    )
    return row


def recommendation(persona: asyncpg.Record) -> dict[str, object]:
    categories = cards.categories_in(persona["description"] or "")
    chosen = cards.cards_for(categories or cards.FOR_EVERYONE)
    fitting = f"**{', '.join(categories)}** 혜택" if categories else "어디서나 쓸 수 있는 혜택"
    return {
        "answer": f"{persona['name']} 님의 소비를 살펴봤어요. {fitting}이 잘 맞으시겠어요.\n"
        f"이런 카드를 추천해 드려요.\n\n{cards.as_list(chosen)}",
        "login_required": False,
        "card_list": [card["name"] for card in chosen],
    }


def login_request() -> dict[str, object]:
    return {"answer": LOGIN_SENTENCE, "login_required": True, "card_list": []}


async def bad_json(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "The body is no JSON"}, 400)


async def health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


app = Starlette(
    routes=[Route("/health", health), Route("/tools/consumption_recommend", consumption_recommend, methods=["POST"])],
    lifespan=lifespan,
    exception_handlers={json.JSONDecodeError: bad_json},
)
