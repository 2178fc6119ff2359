"""/api/chat/ws: one connection, from the handshake to the last frame."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from chat.session import Session
from common import errors, metrics
from common.close_codes import INTERNAL_ERROR, POLICY_VIOLATION
from common.logs import fields, session_hash
from handlers.frames import read_prompt
from handlers.origins import own_origin
from handlers.responses import json_response
from service.instance import Instance

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
    query, sessions = websocket.query_params, instance.chat.sessions
    session: Session | None = None
    try:
        await websocket.accept()
        session = await sessions.open(websocket, query.get("session_id"), _read_time(query.get("since", "")))
        if session.is_resumed:
            await instance.chat.turns.follow(session.id)
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
        if session is not None and sessions.leave(session):
            instance.chat.turns.unfollow(session.id)


async def _converse(websocket: WebSocket, instance: Instance, session: Session) -> None:
    about = fields(session=session_hash(session.id), connection_no=session.connection_no)
    logger.info("connected", extra=about)
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            # A reason of the visitor's own is a text of theirs.
            about["fields"] |= {"code": message.get("code"), "reason": session.socket.close_reason}
            logger.info("disconnected", extra=about)
            return
        try:
            _take(instance, session, message.get("text"))
        except errors.Refused as refused:
            await session.refuse(refused)
            if session.prompts.counted > instance.settings.prompts_per_minute * PATIENCE:
                await session.socket.close(POLICY_VIOLATION, errors.TOO_MANY_MESSAGES)


def _take(instance: Instance, session: Session, text: str | None) -> None:
    """Reads one frame and has its prompt answered. Raises Refused."""
    settings = instance.settings
    message_id, prompt = read_prompt(text, settings.max_frame_bytes, settings.max_prompt_chars)
    if instance.is_draining:
        raise errors.Refused(errors.RESTARTING, message_id)
    if session.prompts.count(time.monotonic()) > settings.prompts_per_minute:
        raise errors.Refused(errors.TOO_MANY_MESSAGES, message_id)
    instance.chat.prompts.take(session, message_id, prompt)


def _refuse_because(websocket: WebSocket, instance: Instance) -> str | None:
    origin = websocket.headers.get("origin")
    if origin is not None and not (
        origin.lower() in instance.settings.frontend_host or origin.lower() == own_origin(websocket, instance)
    ):
        return "origin"
    if instance.is_draining:
        return "draining"
    return "full" if len(instance.chat.sessions) >= instance.settings.max_sessions else None


def _note_refusal(reason: str) -> None:
    metrics.sessions_opened.labels(f"refused_{reason}").inc()
    logger.info("handshake refused", extra=fields(reason=reason))


def _read_time(text: str) -> datetime | None:
    """A time as frames carry it; a plus sign that was not escaped arrives as a space."""
    try:
        time = datetime.fromisoformat(text.replace(" ", "+"))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


async def _give_up(websocket: WebSocket, text: str) -> None:
    try:
        await websocket.send_text(orjson.dumps({"error": text}).decode())
        await websocket.close(INTERNAL_ERROR)
    except (RuntimeError, WebSocketDisconnect, OSError):
        pass
