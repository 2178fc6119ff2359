"""The key of a session: its visitor gets it once, ChatDB holds its SHA-256; to go on with the session takes it."""

import hashlib
import hmac
import secrets
from uuid import UUID

from starlette.requests import HTTPConnection

from database.pool import Database

SUBPROTOCOL = "chat"  # which is chosen; a browser cannot send a header, and offers its key as another one
_OFFERED = "key."
_NOBODYS = secrets.token_bytes(32)  # compared where there is nothing to compare with, which so takes as long


def new_key() -> tuple[str, bytes]:
    """A key, and what is stored of it."""
    key = secrets.token_urlsafe(32)
    return key, _hash(key)


async def shows_key(connection: HTTPConnection, session_id: UUID, chatdb: Database) -> bool:
    """Whether a request or a handshake shows the session's key. Raises DatabaseError."""
    row = await chatdb.fetchrow("get_key_hash", session_id)
    return hmac.compare_digest(_hash(_read(connection)), (row and row["key_hash"]) or _NOBODYS)


def _read(connection: HTTPConnection) -> str:
    for offered in connection.scope.get("subprotocols", ()):
        if offered.startswith(_OFFERED):
            return str(offered.removeprefix(_OFFERED))
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
