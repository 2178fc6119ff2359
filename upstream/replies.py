"""What both servers reply, translated into answers."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

LISTS = ("card_list", "related_questions")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the bot says; `payload` has `login_required`, and the LISTS that a tool gave."""

    message: str
    tool_name: str | None = None
    payload: dict[str, Any] = field(default_factory=lambda: {"login_required": False})


class ReplyUnusable(Exception):
    """The reply is no JSON object, too large, or has no usable message."""


def read_reply(reply: dict[str, Any]) -> Answer:
    """Translates a reply of the LLM server. Raises ReplyUnusable."""
    tool = reply.get("tool_response")
    tool = tool if isinstance(tool, dict) else {}
    name, content = tool.get("tool_name"), tool.get("tool_response_content")
    content = content if isinstance(content, dict) else {}
    if isinstance(inner := content.get("answer"), dict):
        # One release nests the tool's own answer; its lists then stand in either place.
        content = {**inner, **content, "answer": inner.get("answer")}
    payload = {"login_required": content.get("login_required") is True}
    for key, of_ours in zip(("card_list", "relatedQuestions"), LISTS, strict=True):
        if isinstance(content.get(key), list):
            payload[of_ours] = content[key]
    return Answer(_message(content, reply), _clean(name) if isinstance(name, str) else None, _clean(payload))


def read_recommendation(reply: dict[str, Any]) -> Answer:
    """Translates a reply of the MCP server. Raises ReplyUnusable."""
    cards = reply.get("card_list")
    if not isinstance(cards, list) or not isinstance(reply.get("login_required", False), bool):
        raise ReplyUnusable("card_list is no list, or login_required no boolean")
    return Answer(_message(reply), "consumption_recommend", _clean({"login_required": False, "card_list": cards}))


def read_object(body: bytes) -> dict[str, Any]:
    """Raises ReplyUnusable."""
    try:
        reply = read_json(body.removeprefix(BYTE_ORDER_MARK))
    except orjson.JSONDecodeError:
        raise ReplyUnusable("no JSON") from None
    if not isinstance(reply, dict):
        raise ReplyUnusable("no JSON object")
    return reply


def read_json(text: bytes) -> Any:
    """As orjson does, which makes floats of integers beyond 64 bits; these stay as they are written."""
    read = orjson.loads(text)
    values = [read]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
        elif isinstance(value, float) and abs(value) >= 2**63:
            with suppress(RecursionError):
                return json.loads(text, parse_int=_integer)
    return read


def _integer(digits: str) -> int | orjson.Fragment:
    return value if -(2**63) <= (value := int(digits)) < 2**64 else orjson.Fragment(digits)


def _message(*replies: dict[str, Any]) -> str:
    """The first that there is. Raises ReplyUnusable."""
    for reply in replies:
        message = reply.get("answer")
        if isinstance(message, str) and (message := message.replace("\0", "")).strip():
            return message
    raise ReplyUnusable("no usable message")


def _clean(value: Any) -> Any:
    """The value without NUL characters, which PostgreSQL cannot store. Raises ReplyUnusable."""
    try:
        if b"\\u0000" not in orjson.dumps(value):
            return value
    except orjson.JSONEncodeError:
        raise ReplyUnusable("nested too deeply") from None
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
