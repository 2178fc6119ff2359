"""An answer in each of its forms: a row of ChatDB, a frame on the socket, an entry of the history."""

from datetime import datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

import asyncpg
import orjson

from upstream.replies import LISTS, Answer, read_json


class PlacedAnswer(NamedTuple):
    """An answer or a push with its place in the conversation.

    `message_id` is the prompt's, or its own id where no prompt precedes a push.
    """

    id: UUID
    message_id: UUID
    created_at: datetime
    answer: Answer

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Self:
        return cls(row["id"], row["message_id"], row["created_at"], _read_answer(row))

    def to_frame(self) -> bytes:
        frame = {
            "sender": "bot",
            "timestamp": self.created_at.isoformat(timespec="microseconds"),
            "message_id": str(self.message_id),
            "message": self.answer.message,
            **_details(self.answer),
        }
        return orjson.dumps(frame)


def answer_row(
    session_id: UUID,
    prompt_id: UUID | None,
    id: UUID,
    answer: Answer,
    *,
    prompt: str | None = None,
    is_push: bool = False,
) -> dict[str, object]:
    """What store_answers takes; with a prompt, that is stored as well."""
    return {
        "session_id": session_id,
        "prompt_id": prompt_id,
        "chat_id": id,
        "content": answer.message,
        "source_tool": answer.tool_name,
        "payload": orjson.dumps(answer.payload).decode(),
        "sent_at": None,
        "is_push": is_push,
        "prompt": prompt,
    }


def history_entry(row: asyncpg.Record) -> dict[str, Any]:
    """A prompt, or an answer with its feedback, as list_history returns it."""
    entry = {name: row[name] for name in ("is_user", "content", "message_id")}
    entry["timestamp"] = row["created_at"].isoformat(timespec="microseconds")
    return entry if row["is_user"] else entry | _details(_read_answer(row)) | {"is_helpful": row["is_helpful"]}


def _read_answer(row: asyncpg.Record) -> Answer:
    payload = read_json(row["payload"].encode()) if row["payload"] else None
    values = payload if isinstance(payload, dict) else {}
    kept = {name: values[name] for name in LISTS if isinstance(values.get(name), list)}
    stopped = {"stopped": True} if values.get("stopped") is True else {}
    login = {"login_required": values.get("login_required") is True}
    return Answer(row["content"], row["source_tool"], login | stopped | kept)


def _details(answer: Answer) -> dict[str, Any]:
    """What accompanies the message."""
    return answer.payload if answer.tool_name is None else answer.payload | {"tool_name": answer.tool_name}
