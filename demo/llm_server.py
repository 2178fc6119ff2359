"""A stand-in for the LLM server: answers from the FAQs, the terms and the demo's cards, with no language model.

    FAQ_DATABASE_URL=postgresql://… MCP_SERVER_URL=http://127.0.0.1:8011 \
        python -m uvicorn demo.llm_server:app --port 8000

`DEMO_LLM_SECONDS` (0.6) is how long it "thinks" before each answer. Who accepts text/event-stream sees the answer grow.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

import asyncpg
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from demo import cards

THINKING_SECONDS = float(os.environ.get("DEMO_LLM_SECONDS", "0.6"))
PIECE = re.compile(r"\s*\S{1,4}|\s+")
PIECE_SECONDS = (0.02, 0.04)
EVENTS = "text/event-stream"

ABOUT_OWN_SPENDING = re.compile(
    r"(?<![가-힣])(내|나의|제|저의)\s*(소비|지출|씀씀이)|소비\s*(패턴|습관|성향|내역|분석)"
    r"|(나|저|내|제)(한테|에게|게)\s*(맞|어울)"
)
WANTS_A_CARD = re.compile(
    r"카드.*추천|추천.*카드|(어떤|무슨|좋은|어울리는|맞는|하는|되는|없는)\s*카드"
    r"|카드\s*(찾|골라|혜택)|카드.*(비교|좋)|(비교|혜택).*(카드|비교)"
)
WANTS_A_BENEFIT = re.compile(r"추천|할인|적립|혜택|캐시백|저렴|아끼")
ASKS_FOR_MEANING = re.compile(r"뜻|의미|무엇|뭐|뭔|정의|용어|설명|이?란\??$")
GREETING = re.compile(r"^(안녕|반가|하이|헬로|(hello|hi|hey|good (morning|afternoon|evening))\b)", re.IGNORECASE)
THANKS = re.compile(r"고마|고맙|감사|\bthank", re.IGNORECASE)

GREETING_ANSWER = "안녕하세요! 도담카드 상담 챗봇이에요. 카드 추천, 자주 묻는 질문, 금융 용어를 물어봐 주세요."
THANKS_ANSWER = "도움이 되었다니 기뻐요. 더 궁금한 점이 있으면 언제든 물어봐 주세요."
SORRY_ANSWER = (
    "죄송해요, 그 질문에는 아직 답해 드릴 수 없어요. "
    "카드 추천이나 카드 이용 방법, 금융 용어에 대해 물어봐 주시면 도와드릴게요."
)
CONSUMPTION_FAILED_ANSWER = "죄송해요, 지금은 소비를 살펴볼 수 없어요. 잠시 뒤에 다시 물어봐 주세요."

# $1 is what the visitor asked, $2 the score that makes a find. A FAQ is found by its own question, or by one
# of its keywords in the visitor's, in which the word "card" says nothing: here everything is about cards.
TELLING = r"regexp_replace({}, '(^|\s)카드(를|가|는|로)?(?=\s|$)', '', 'g')"
FIND_FAQ = f"""
    SELECT question, answer, category, score
    FROM faqs, LATERAL (
        SELECT greatest(similarity(question, $1), max(word_similarity({TELLING.format("keyword")}, asked))) AS score
        FROM unnest(string_to_array(keywords, ', ')) AS keyword, {TELLING.format("$1")} AS asked
    ) AS scored
    WHERE score >= $2
    ORDER BY score DESC, similarity(question, $1) DESC, faq_id
    LIMIT 1
"""
FIND_TERM = """
    SELECT term, definition, category
    FROM terms, greatest(word_similarity(term, $1), word_similarity(replace(term, ' ', ''), $1)) AS score
    WHERE score >= $2
    ORDER BY score DESC, length(term) DESC, term_id
    LIMIT 1
"""
# The most viewed neighbours of what was found: $1 is the category, $2 the found one.
RELATED_FAQS = "SELECT question FROM faqs WHERE category = $1 AND question <> $2 ORDER BY views DESC, faq_id LIMIT 2"
RELATED_TERMS = "SELECT term FROM terms WHERE category = $1 AND term <> $2 ORDER BY views DESC, term_id LIMIT 2"
FAQ_SCORE = 0.5
SURE_FAQ_SCORE = 0.8  # from here on it goes before a benefit that the question names too
TERM_SCORE = 0.6

Content = dict[str, object]


class State(TypedDict):
    card_qna_db: asyncpg.Pool[Any]
    mcp: httpx.AsyncClient


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    async with (
        asyncpg.create_pool(os.environ["FAQ_DATABASE_URL"], min_size=1, timeout=5) as card_qna_db,
        httpx.AsyncClient(base_url=os.environ["MCP_SERVER_URL"], timeout=30, trust_env=False) as mcp,
    ):
        yield {"card_qna_db": card_qna_db, "mcp": mcp}


async def dispatch(request: Request) -> Response:
    body = await request.json()
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        return JSONResponse({"detail": "query must be a string"}, 422)
    reply = await reply_to(body["query"].strip(), body.get("session_id"), request.state)
    accepted = request.headers.get("accept", "").lower().split(",")
    if EVENTS in (kind.partition(";")[0].strip() for kind in accepted):
        return StreamingResponse(spoken(reply), media_type=EVENTS, headers={"cache-control": "no-store"})
    await asyncio.sleep(THINKING_SECONDS)
    return JSONResponse(reply)


async def spoken(reply: Content) -> AsyncIterator[str]:
    """Events: the tool, the text at a reading pace, the reply itself. Closing the connection ends them."""
    tool: Any = reply["tool_response"]
    content = tool and tool["tool_response_content"]
    if tool:
        yield event({"tool_name": tool["tool_name"]})
    await asyncio.sleep(THINKING_SECONDS)
    text = content.get("answer") if isinstance(content, dict) else reply["answer"]
    for piece in PIECE.findall(text if isinstance(text, str) else ""):
        yield event({"delta": piece})
        await asyncio.sleep(random.uniform(*PIECE_SECONDS))
    yield event(reply)


def event(value: object) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def reply_to(query: str, session_id: object, backends: Any) -> Content:
    """The first tool that has something to say answers; with none, a sentence without a tool."""
    if ABOUT_OWN_SPENDING.search(query):
        return await consumption_reply(query, session_id, backends.mcp)
    if named := cards.cards_named_in(query):
        return tool_reply("get_card_description", query, description(named))

    database = backends.card_qna_db
    faq = await database.fetchrow(FIND_FAQ, query, FAQ_SCORE)
    term = await database.fetchrow(FIND_TERM, query, TERM_SCORE)
    categories = cards.categories_in(query)
    if term and (ASKS_FOR_MEANING.search(query) or query == term["term"]):
        return tool_reply("query_term_database", query, await term_answer(database, term))
    if WANTS_A_CARD.search(query):
        return tool_reply("get_card_recommendation", query, card_recommendation(categories))
    if faq and faq["score"] >= SURE_FAQ_SCORE:
        return tool_reply("query_faq_database", query, await faq_answer(database, faq))
    if categories and WANTS_A_BENEFIT.search(query):
        return tool_reply("get_card_recommendation", query, card_recommendation(categories))
    if faq:
        return tool_reply("query_faq_database", query, await faq_answer(database, faq))
    if term:
        return tool_reply("query_term_database", query, await term_answer(database, term))
    return {"answer": small_talk(query), "tool_response": None}


def tool_reply(tool_name: str, query: str, content: Content | str, answer: str = "") -> Content:
    return {
        "answer": answer,
        "tool_response": {
            "tool_name": tool_name,
            "tool_args": {"query": query},
            "tool_call_id": f"call_{uuid.uuid4().hex}",
            "tool_response_content": content,
        },
    }


async def consumption_reply(query: str, session_id: object, mcp: httpx.AsyncClient) -> Content:
    """What the MCP server says: cards, or that the visitor has to log in. It knows the persona, not we."""
    try:
        response = await mcp.post("/tools/consumption_recommend", json={"session_id": session_id, "persona_id": None})
        response.raise_for_status()
    except httpx.HTTPError as error:
        failure = f"consumption_recommend failed: {error}"
        return tool_reply("consumption_recommend", query, failure, CONSUMPTION_FAILED_ANSWER)
    return tool_reply("consumption_recommend", query, response.json())


def description(named: list[cards.Card]) -> Content:
    similar = [card for card in cards.cards_for(named[0]["categories"], limit=5) if card not in named]
    return {
        "answer": "\n\n".join(cards.as_description(card) for card in named),
        "card_list": named,
        "relatedQuestions": [f"{card['name']} 카드 혜택을 알려 주세요" for card in similar[:2]],
        "login_required": False,
    }


def card_recommendation(categories: list[str]) -> Content:
    chosen = cards.cards_for(categories or cards.FOR_EVERYONE)
    wish = f"**{', '.join(categories)}** 혜택을 찾으시는군요." if categories else "두루 쓰기 좋은 카드를 골라 봤어요."
    return {
        "answer": f"{wish} 이런 카드는 어떠세요?\n\n{cards.as_list(chosen)}",
        "card_list": [card["name"] for card in chosen],
        "relatedQuestions": [f"{chosen[0]['name']} 카드 혜택을 알려 주세요", "내 소비에 맞는 카드를 추천해 주세요"],
        "login_required": False,
    }


async def faq_answer(database: asyncpg.Pool[Any], faq: asyncpg.Record) -> Content:
    related = await database.fetch(RELATED_FAQS, faq["category"], faq["question"])
    return {"answer": faq["answer"], "relatedQuestions": [row["question"] for row in related], "login_required": False}


async def term_answer(database: asyncpg.Pool[Any], term: asyncpg.Record) -> Content:
    related = await database.fetch(RELATED_TERMS, term["category"], term["term"])
    return {
        "answer": f"**{term['term']}**\n{term['definition']}",
        "relatedQuestions": [f"{row['term']} 뜻이 뭐예요?" for row in related],
        "login_required": False,
    }


def small_talk(query: str) -> str:
    if GREETING.search(query):
        return GREETING_ANSWER
    return THANKS_ANSWER if THANKS.search(query) else SORRY_ANSWER


async def bad_json(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "The body is no JSON"}, 400)


async def health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


app = Starlette(
    routes=[Route("/health", health), Route("/llm/mcp-router/dispatch", dispatch, methods=["POST"])],
    lifespan=lifespan,
    exception_handlers={json.JSONDecodeError: bad_json},
)
