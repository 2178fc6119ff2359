"""What a turn is made of: the databases, the LLM server, the caches."""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return"

from __future__ import annotations

import os
import uuid
from typing import Any

import httpx
from fastapi import WebSocket
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import func, update
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.peer.models import (
    BotMessage,
    Chat,
    ChatbotResponse,
    ChatSession,
    Faq,
    LlmReply,
    Prompt,
    Term,
    ToolContent,
)


def _engine(name: str, pool_size: int) -> Any:
    url = os.environ[name].replace("postgresql:", "postgresql+asyncpg:")
    # Overflowing connections would be opened and closed all the time under load.
    return create_async_engine(url, pool_size=pool_size, max_overflow=0)


chat_engine = _engine("DATABASE_URL", 20)
faq_engine = _engine("FAQ_DATABASE_URL", 10)
chat_sessions = async_sessionmaker(chat_engine, class_=AsyncSession, expire_on_commit=False)
faq_sessions = async_sessionmaker(faq_engine, class_=AsyncSession, expire_on_commit=False)
client = httpx.AsyncClient(
    timeout=httpx.Timeout(300.0, connect=5.0), limits=httpx.Limits(max_connections=2000, max_keepalive_connections=1000)
)

sockets: dict[uuid.UUID, WebSocket] = {}
personas: dict[uuid.UUID, int] = {}
faq_cache: dict[str, tuple[int, str]] = {}
term_cache: dict[str, tuple[int, str]] = {}


async def create_session() -> uuid.UUID:
    session = ChatSession()
    await save(session)
    return session.session_id


async def save(row: Any) -> None:
    async with chat_sessions() as db:
        db.add(row)
        await db.commit()


async def answer_prompt(session_id: uuid.UUID, prompt: Prompt) -> BotMessage:
    persona_id = personas.get(session_id)
    text = prompt.message
    await save(Chat(id=prompt.message_id, session_id=session_id, persona_id=persona_id, is_user=True, content=text))
    cached = await find_cached(text)
    if cached is not None:
        return await store_answer(session_id, prompt.message_id, ToolContent(answer=cached))
    content, tool_name = await ask_llm(session_id, text)
    return await store_answer(session_id, prompt.message_id, content, tool_name)


async def find_cached(text: str) -> str | None:
    if text in faq_cache:
        faq_id, answer = faq_cache[text]
        await count_view(update(Faq).where(Faq.faq_id == faq_id).values(views=func.coalesce(Faq.views, 0) + 1))
        return answer
    if text in term_cache:
        term_id, definition = term_cache[text]
        await count_view(update(Term).where(Term.term_id == term_id).values(views=func.coalesce(Term.views, 0) + 1))
        return definition
    return None


async def count_view(statement: Any) -> None:
    async with faq_sessions() as db:
        await db.exec(statement)
        await db.commit()


async def ask_llm(session_id: uuid.UUID, text: str) -> tuple[ToolContent, str | None]:
    url = os.environ["LLMSERVER_URL"] + "/llm/mcp-router/dispatch"
    try:
        response = await client.post(url, json={"query": text, "session_id": str(session_id)})
        response.raise_for_status()
        reply = LlmReply.model_validate_json(response.content)
    except httpx.HTTPStatusError as error:
        return ToolContent(answer=f"LLM 서버 오류 (HTTP {error.response.status_code})"), None
    except (httpx.HTTPError, ValidationError):
        return ToolContent(answer="LLM 서버 통신 오류"), None
    if reply.tool_response is None:
        return ToolContent(answer=reply.answer), None
    content = reply.tool_response.tool_response_content
    if isinstance(content, ToolContent):
        return content, reply.tool_response.tool_name
    return ToolContent(answer=reply.answer), reply.tool_response.tool_name


async def store_answer(
    session_id: uuid.UUID, prompt_id: uuid.UUID | None, content: ToolContent, tool_name: str | None = None
) -> BotMessage:
    chat = Chat(session_id=session_id, persona_id=personas.get(session_id), is_user=False, content=content.answer)
    await save(chat)
    payload = content.model_dump(exclude={"answer"}, exclude_none=True)
    await save(
        ChatbotResponse(chat_id=chat.id, prompt_chat_id=prompt_id, source_tool=tool_name, response_payload=payload)
    )
    return BotMessage(
        timestamp=chat.created_at,
        message_id=prompt_id or chat.id,
        login_required=content.login_required,
        message=content.answer,
        card_list=content.card_list,
        related_questions=content.related_questions,
        tool_name=tool_name,
    )
