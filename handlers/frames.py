"""Frames of visitors: read, checked."""

from __future__ import annotations

from uuid import UUID

import orjson

from common import errors
from common.ids import read_uuid


def read_prompt(text: str | None, max_bytes: int, max_chars: int) -> tuple[UUID, str]:
    """The message_id and the text of a prompt. Raises Refused."""
    if text is not None and len(text) > max_bytes // 4 and len(text.encode()) > max_bytes:
        raise errors.Refused(errors.INVALID_MESSAGE.format(f"the frame is longer than {max_bytes} bytes"))
    try:
        frame = orjson.loads(text) if text is not None else None
    except orjson.JSONDecodeError:
        frame = None
    if not isinstance(frame, dict):
        raise errors.Refused(errors.INVALID_JSON)
    message_id = read_uuid(frame.get("message_id"))
    if message_id is None:
        problem = "must be a UUID" if "message_id" in frame else "is missing"
        raise errors.Refused(errors.INVALID_MESSAGE.format(f"message_id {problem}"))
    prompt = frame.get("message")
    if not isinstance(prompt, str):
        problem = "must be a string" if "message" in frame else "is missing"
    elif not prompt.strip():
        problem = "must not be blank"
    elif len(prompt) > max_chars:
        problem = f"must not be longer than {max_chars} characters"
    elif "\0" in prompt:
        problem = "must not contain NUL"
    else:
        return message_id, prompt
    raise errors.Refused(errors.INVALID_MESSAGE.format(f"message {problem}"), message_id)
