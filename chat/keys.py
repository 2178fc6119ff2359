"""The key of a session: its visitor gets it once, ChatDB holds its SHA-256; to go on with the session takes it."""

import hmac
import secrets
from hashlib import sha256
from uuid import UUID

from starlette.requests import HTTPConnection

from database.pool import Database

_NOBODYS = secrets.token_bytes(32)  # compared where there is nothing to compare with, which so takes as long


def new_key() -> tuple[str, bytes]:
    """A key, and what is stored of it."""
    key = secrets.token_urlsafe(32)
    return key, sha256(key.encode()).digest()


async def shows_key(connection: HTTPConnection, session_id: UUID, chatdb: Database) -> bool:
    """Whether a request or a handshake shows the session's key. Raises DatabaseError."""
    row = await chatdb.fetchrow("get_key_hash", session_id)
    shown = _read(connection).encode(errors="surrogateescape")  # a subprotocol may be of any bytes
    return hmac.compare_digest(sha256(shown).digest(), (row and row["key_hash"]) or _NOBODYS)


def _read(connection: HTTPConnection) -> str:
    """A browser can send no header with a handshake, and offers its key as a subprotocol."""
    for offered in connection.scope.get("subprotocols", ()):
        if offered.startswith("key."):
            return str(offered.removeprefix("key."))
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
