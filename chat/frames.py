"""An answer in each of its forms: a row of ChatDB, a frame on the socket, an entry of the history."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from upstream.replies import LISTS, Answer


class AnswerRow(NamedTuple):
    """What store_answers takes: a push has `is_push`; `prompt` is there where the prompt is stored with its answer.

    `sent_at` is the time under which the answer has been shown already, if it has.
    """

    session_id: UUID
    prompt_id: UUID | None
    chat_id: UUID
    content: str
    source_tool: str | None
    payload: str
    sent_at: datetime | None = None
    is_push: bool = False
    prompt: str | None = None

    @classmethod
    def of(cls, session_id: UUID, prompt_id: UUID | None, chat_id: UUID, answer: Answer) -> AnswerRow:
        payload = orjson.dumps(answer.payload).decode()
        return cls(session_id, prompt_id, chat_id, answer.message, answer.tool_name, payload)


class StoredAnswer(NamedTuple):
    """An answer or a push with its place in the conversation.

    `chat_id` is its own; `message_id` is the prompt's, or its own where no prompt stands before a push.
    """

    chat_id: UUID
    message_id: UUID
    created_at: datetime
    answer: Answer

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> StoredAnswer:
        return cls(row["id"], row["message_id"], row["created_at"], _read_answer(row))

    def to_frame(self) -> bytes:
        frame: dict[str, Any] = {
            "sender": "bot",
            "timestamp": _timestamp(self.created_at),
            "message_id": str(self.message_id),
            "message": self.answer.message,
            **_details(self.answer),
        }
        return orjson.dumps(frame)


def history_entry(row: asyncpg.Record) -> dict[str, Any]:
    """A prompt, or an answer with its feedback, as list_history returns it."""
    entry = {name: row[name] for name in ("is_user", "content", "message_id")}
    entry["timestamp"] = _timestamp(row["created_at"])
    if not row["is_user"]:
        entry |= _details(_read_answer(row)) | {"is_helpful": row["is_helpful"]}
    return entry


def _read_answer(row: asyncpg.Record) -> Answer:
    payload = orjson.loads(row["payload"]) if row["payload"] else None
    values = payload if isinstance(payload, dict) else {}
    kept = {name: values[name] for name in LISTS if isinstance(values.get(name), list)}
    return Answer(row["content"], row["source_tool"], {"login_required": values.get("login_required") is True} | kept)


def _details(answer: Answer) -> dict[str, Any]:
    """What stands beside the message."""
    return answer.payload if answer.tool_name is None else answer.payload | {"tool_name": answer.tool_name}


def _timestamp(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")
