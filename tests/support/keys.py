"""The keys of the sessions that this test run has opened: every visitor's own, kept in one place."""

import hashlib
from typing import Any

from websockets.typing import Subprotocol

from tests.support.postgres import Database

_keys: dict[str, str] = {}


def remember(hello: dict[str, Any]) -> None:
    """Keep the key of a first frame, if it has one."""
    if "key" in hello:
        _keys[hello["session_id"]] = hello["key"]


def key_of(session_id: str) -> str:
    """The key of a session that was opened here."""
    return _keys[session_id]


def protocols(key: str) -> list[Subprotocol]:
    """What a browser offers to go on with a session."""
    return [Subprotocol("chat"), Subprotocol(f"key.{key}")]


def bearer(session_id: str) -> dict[str, str]:
    """The header that shows a session's key."""
    return {"authorization": f"Bearer {key_of(session_id)}"}


def give_key(database: Database, session_id: str) -> None:
    """A key for a session that was not opened here."""
    key = f"test-{session_id}"
    statement = 'UPDATE "ChatSession" SET key_hash = $2 WHERE session_id = $1::text::uuid'
    database.fetch(statement, session_id, hashlib.sha256(key.encode()).digest())
    _keys[session_id] = key
