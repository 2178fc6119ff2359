"""/api/chat/ws: one session's life, from the handshake to the last frame."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from uuid import UUID

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

import errors
import metrics
from common.close_codes import INTERNAL_ERROR, POLICY_VIOLATION
from handlers.responses import json_response
from instance import Instance
from logs import fields, session_hash
from payloads import read_uuid
from sessions import Session

logger = logging.getLogger("gateway.ws")

# How many times the prompts allowed in a minute a visitor may send before the connection is closed.
PATIENCE = 3

REFUSALS = {
    "origin": (403, errors.FOREIGN_ORIGIN),
    "draining": (503, errors.RESTARTING),
    "full": (503, errors.TOO_MANY_SESSIONS),
}


async def chat(websocket: WebSocket) -> None:
    instance: Instance = websocket.state.instance
    reason = _refuse_because(websocket, instance)
    if reason is not None:
        _note_refusal(reason)
        status, text = REFUSALS[reason]
        await websocket.send_denial_response(json_response({"detail": text}, status))
        return
    query = websocket.query_params
    session: Session | None = None
    try:
        await websocket.accept()
        session = await instance.sessions.open(websocket, query.get("session_id"), _read_time(query.get("since", "")))
        await _converse(websocket, instance, session)
    except errors.DatabaseError:
        _note_refusal("database")
        await _give_up(websocket, errors.DB_FAILED)
    except (RuntimeError, WebSocketDisconnect, OSError):
        pass  # the socket went away while it was being used
    except Exception:
        logger.exception("session failed")
        await _give_up(websocket, errors.UNKNOWN_ERROR)
    finally:
        if session is not None:
            instance.sessions.leave(session)


async def _converse(websocket: WebSocket, instance: Instance, session: Session) -> None:
    about = fields(session=session_hash(session.id), connection_no=session.connection_no)
    logger.info("connected", extra=about)
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            # A reason of the visitor's own is a text of theirs.
            about["fields"] |= {"code": message.get("code"), "reason": session.close_reason}
            logger.info("disconnected", extra=about)
            return
        try:
            _take(instance, session, message.get("text"))
        except errors.Refused as refused:
            await session.refuse(refused)
            if session.prompts.counted > instance.settings.prompts_per_minute * PATIENCE:
                await session.close(POLICY_VIOLATION, errors.TOO_MANY_MESSAGES)


def _refuse_because(websocket: WebSocket, instance: Instance) -> str | None:
    origin = websocket.headers.get("origin")
    if origin is not None and not (
        origin.lower() in instance.settings.frontend_host or origin.lower() == _own_origin(websocket, instance)
    ):
        return "origin"
    if instance.is_draining:
        return "draining"
    return "full" if len(instance.sessions) >= instance.settings.max_sessions else None


def _note_refusal(reason: str) -> None:
    metrics.sessions_opened.labels(f"refused_{reason}").inc()
    logger.info("handshake refused", extra=fields(reason=reason))


def _own_origin(websocket: WebSocket, instance: Instance) -> str:
    """The origin under which a browser reached this server, directly or through a trusted proxy."""
    is_secure, host = websocket.scope["gateway.is_tls"], websocket.headers.get("host", "")
    peer = websocket.scope["gateway.peer"]
    if peer and any(ip_address(peer) in network for network in instance.settings.trusted_proxies):
        is_secure = websocket.headers.get("x-forwarded-proto", "https" if is_secure else "http") in ("https", "wss")
        host = websocket.headers.get("x-forwarded-host", host)
    return f"{'https' if is_secure else 'http'}://{host}".lower()


def _read_time(text: str) -> datetime | None:
    """A time as frames carry it; a plus sign that was not escaped arrives as a space."""
    try:
        time = datetime.fromisoformat(text.replace(" ", "+"))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _take(instance: Instance, session: Session, text: str | None) -> None:
    """Reads one frame and has its prompt answered. Raises Refused."""
    settings = instance.settings
    if text is not None and len(text) > settings.max_frame_bytes // 4 and len(text.encode()) > settings.max_frame_bytes:
        raise errors.Refused(
            errors.INVALID_MESSAGE.format(f"the frame is longer than {settings.max_frame_bytes} bytes")
        )
    message_id, prompt = _read_prompt(text, settings.max_prompt_chars)
    if instance.is_draining:
        raise errors.Refused(errors.RESTARTING, message_id)
    if session.prompts.count(time.monotonic()) > settings.prompts_per_minute:
        raise errors.Refused(errors.TOO_MANY_MESSAGES, message_id)
    instance.turns.submit(session, message_id, prompt)


def _read_prompt(text: str | None, max_chars: int) -> tuple[UUID, str]:
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


async def _give_up(websocket: WebSocket, text: str) -> None:
    try:
        await websocket.send_text(orjson.dumps({"error": text}).decode())
        await websocket.close(INTERNAL_ERROR)
    except (RuntimeError, WebSocketDisconnect, OSError):
        pass
