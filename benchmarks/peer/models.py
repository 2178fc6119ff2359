"""The tables of both databases, and what goes over the wire."""

# FastAPI and SQLModel are installed where this runs, not where it is checked.
# mypy: disable-error-code="import-not-found, misc, untyped-decorator, call-arg"

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from pydantic import Field as Limited
from sqlalchemy import DateTime
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel


def now() -> datetime:
    return datetime.now(UTC)


class Persona(SQLModel, table=True):
    __tablename__ = "Persona"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    description: str | None = None


class ChatSession(SQLModel, table=True):
    __tablename__ = "ChatSession"
    session_id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    persona_id: int | None = Field(default=None, foreign_key="Persona.id")
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class Chat(SQLModel, table=True):
    __tablename__ = "Chat"
    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    session_id: uuid.UUID = Field(foreign_key="ChatSession.session_id")
    persona_id: int | None = Field(default=None, foreign_key="Persona.id")
    is_user: bool
    content: str
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class ChatbotResponse(SQLModel, table=True):
    __tablename__ = "ChatbotResponse"
    chat_id: uuid.UUID = Field(foreign_key="Chat.id", primary_key=True)
    prompt_chat_id: uuid.UUID | None = Field(default=None, foreign_key="Chat.id")
    is_helpful: bool | None = None
    source_tool: str | None = None
    response_payload: dict[str, Any] | None = Field(default=None, sa_type=JSONB)


class Faq(SQLModel, table=True):
    __tablename__ = "faqs"
    faq_id: int = Field(primary_key=True)
    question: str
    answer: str
    views: int | None = 0


class Term(SQLModel, table=True):
    __tablename__ = "terms"
    term_id: int = Field(primary_key=True)
    term: str
    definition: str
    views: int | None = 0


class Prompt(BaseModel):
    message_id: uuid.UUID
    message: str = Limited(min_length=1, max_length=4000)


class ToolContent(BaseModel):
    answer: str
    card_list: list[Any] | None = None
    related_questions: list[Any] | None = Limited(default=None, alias="relatedQuestions")
    login_required: bool = False


class ToolResponse(BaseModel):
    tool_name: str
    tool_response_content: ToolContent | str | list[Any]


class LlmReply(BaseModel):
    answer: str = ""
    tool_response: ToolResponse | None = None


class Recommendation(BaseModel):
    answer: str
    login_required: bool = False
    card_list: list[str]


class BotMessage(BaseModel):
    sender: str = "bot"
    timestamp: datetime
    message_id: uuid.UUID
    login_required: bool = False
    message: str
    card_list: list[Any] | None = None
    related_questions: list[Any] | None = None
    tool_name: str | None = None


class PersonaOut(BaseModel):
    id: int
    name: str
    description: str | None


class PersonasOut(BaseModel):
    personas: list[PersonaOut]


class FaqOut(BaseModel):
    faq_id: int
    question: str
    answer: str
    views: int


class TermOut(BaseModel):
    term_id: int
    term: str
    definition: str


class FeedbackIn(BaseModel):
    message_id: uuid.UUID
    is_helpful: bool | None


class LoginIn(BaseModel):
    session_id: uuid.UUID
    persona_id: int


class SessionIn(BaseModel):
    session_id: uuid.UUID
