"""Run by `uvicorn benchmarks.peer.app:app`."""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return"

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, HTTPException, Query, Response, WebSocket, WebSocketDisconnect
from fastapi.middleware.cors import CORSMiddleware
from pydantic import ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.peer import services
from benchmarks.peer.models import (
    Chat,
    ChatbotResponse,
    ChatSession,
    Faq,
    FaqOut,
    FeedbackIn,
    LoginIn,
    Persona,
    PersonasOut,
    Prompt,
    Recommendation,
    SessionIn,
    Term,
    TermOut,
    ToolContent,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with services.chat_sessions() as db:
        await db.exec(select(Persona))
    yield
    await services.client.aclose()
    await services.chat_engine.dispose()
    await services.faq_engine.dispose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    CORSMiddleware, allow_origins=os.environ["FRONTEND_HOST"].split(","), allow_methods=["*"], allow_headers=["*"]
)


async def chat_db() -> AsyncIterator[AsyncSession]:
    async with services.chat_sessions() as db:
        yield db


async def faq_db() -> AsyncIterator[AsyncSession]:
    async with services.faq_sessions() as db:
        yield db


ChatDb = Annotated[AsyncSession, Depends(chat_db)]
FaqDb = Annotated[AsyncSession, Depends(faq_db)]


@app.get("/api/health")
async def get_health() -> dict[str, str]:
    return {"status": "ok"}


@app.websocket("/api/chat/ws")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    session_id = await services.create_session()
    services.sockets[session_id] = websocket
    try:
        await websocket.send_json({"session_id": str(session_id)})
        while True:
            text = await websocket.receive_text()
            try:
                prompt = Prompt.model_validate_json(text)
            except ValidationError as error:
                await websocket.send_json({"error": f"Invalid message: {error.errors()[0]['msg']}"})
                continue
            answer = await services.answer_prompt(session_id, prompt)
            await websocket.send_text(answer.model_dump_json(exclude_none=True))
    except WebSocketDisconnect:
        pass
    finally:
        services.sockets.pop(session_id, None)
        services.personas.pop(session_id, None)


@app.post("/api/chat/feedback")
async def set_feedback(body: FeedbackIn, db: ChatDb) -> dict[str, Any]:
    responses = await db.exec(select(ChatbotResponse).where(ChatbotResponse.prompt_chat_id == body.message_id))
    response = responses.first()
    if response is None:
        raise HTTPException(404, "Nothing was answered under this message_id.")
    response.is_helpful = body.is_helpful
    await db.commit()
    return {"status": "success", "message_id": body.message_id, "feedback_received": body.is_helpful}


@app.get("/api/chat/history/{session_id}")
async def get_history(session_id: uuid.UUID, db: ChatDb) -> dict[str, Any]:
    if await db.get(ChatSession, session_id) is None:
        raise HTTPException(404, "There is no such session.")
    rows = await db.exec(select(Chat).where(Chat.session_id == session_id).order_by(col(Chat.created_at)))
    history = [
        {"is_user": row.is_user, "content": row.content, "message_id": row.id, "timestamp": row.created_at}
        for row in rows
    ]
    return {"session_id": session_id, "history": history}


@app.get("/api/chat/personas", response_model=PersonasOut)
@app.get("/api/login/personas", response_model=PersonasOut)
async def list_personas(db: ChatDb) -> Any:
    return {"personas": (await db.exec(select(Persona).order_by(col(Persona.id)))).all()}


@app.post("/api/login")
async def login(body: LoginIn, db: ChatDb) -> Response:
    websocket = services.sockets.get(body.session_id)
    if websocket is None:
        raise HTTPException(404, "No such session is connected.")
    session = await db.get(ChatSession, body.session_id)
    if session is None or await db.get(Persona, body.persona_id) is None:
        raise HTTPException(404, "There is no such persona.")
    session.persona_id = services.personas[body.session_id] = body.persona_id
    await db.commit()
    try:
        response = await services.client.post(
            os.environ["MCP_SERVER_URL"] + "/tools/consumption_recommend", json=body.model_dump(mode="json")
        )
        response.raise_for_status()
        reply = Recommendation.model_validate_json(response.content)
    except (httpx.HTTPError, ValidationError):
        raise HTTPException(502, "The recommendation could not be made.") from None
    content = ToolContent(answer=reply.answer, card_list=reply.card_list)
    push = await services.store_answer(body.session_id, None, content, "consumption_recommend")
    await websocket.send_text(push.model_dump_json(exclude_none=True))
    return Response()


@app.post("/api/login/persona_id")
async def get_persona_id(body: SessionIn) -> dict[str, int | None]:
    if body.session_id not in services.sockets:
        raise HTTPException(404, "No such session is connected.")
    return {"persona_id": services.personas.get(body.session_id)}


@app.get("/api/qna/faq", response_model=list[FaqOut])
async def list_faqs(db: FaqDb, top_k: Annotated[int, Query(ge=1, le=100)] = 3) -> Any:
    views = col(Faq.views).desc().nulls_last()
    rows = (await db.exec(select(Faq).order_by(views, col(Faq.faq_id)).limit(top_k))).all()
    services.faq_cache.update({row.question: (row.faq_id, row.answer) for row in rows})
    return [FaqOut(**row.model_dump() | {"views": row.views or 0}) for row in rows]


@app.get("/api/qna/terms", response_model=list[TermOut])
async def list_terms(db: FaqDb, top_k: Annotated[int, Query(ge=1, le=100)] = 6) -> Any:
    views = col(Term.views).desc().nulls_last()
    rows = (await db.exec(select(Term).order_by(views, col(Term.term_id)).limit(top_k))).all()
    services.term_cache.update({row.term: (row.term_id, row.definition) for row in rows})
    return [TermOut(**row.model_dump()) for row in rows]
