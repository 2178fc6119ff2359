"""/api/chat/ws: one connection, from the handshake to the last frame."""

import logging
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from uuid import UUID

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from chat.session import Session
from common import errors, metrics
from common.errors import Refused
from common.ids import read_uuid
from common.logs import fields, session_hash
from handlers.responses import json_response
from service.instance import Instance

logger = logging.getLogger("gateway.ws")

PATIENCE = 3  # times the prompts allowed in a minute; a visitor who sends more is closed

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
    query, sessions, turns = websocket.query_params, instance.chat.sessions, instance.chat.turns
    session: Session | None = None
    try:
        await websocket.accept()
        session = await sessions.open(websocket, query.get("session_id"), _read_time(query.get("since", "")))
        if session.connection_no:  # it was resumed
            await turns.follow(session.id)
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
            turns.unfollow(session.id)


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
        except Refused as refused:
            await session.socket.refuse(refused)
            if session.prompts.counted > instance.settings.prompts_per_minute * PATIENCE:
                await session.socket.close(errors.POLICY_VIOLATION, errors.TOO_MANY_MESSAGES)


def _take(instance: Instance, session: Session, text: str | None) -> None:
    """Reads one frame and has its prompt answered. Raises Refused."""
    settings = instance.settings
    message_id, prompt = _read_prompt(text, settings.max_frame_bytes, settings.max_prompt_chars)
    if instance.is_draining:
        raise Refused(errors.RESTARTING, message_id)
    if session.prompts.count(time.monotonic()) > settings.prompts_per_minute:
        raise Refused(errors.TOO_MANY_MESSAGES, message_id)
    instance.chat.prompts.take(session, message_id, prompt)


def _read_prompt(text: str | None, max_bytes: int, max_chars: int) -> tuple[UUID, str]:
    if text is not None and len(text) > max_bytes // 4 and len(text.encode()) > max_bytes:
        raise Refused(errors.INVALID_MESSAGE.format(f"the frame is longer than {max_bytes} bytes"))
    try:
        frame = orjson.loads(text) if text is not None else None
    except orjson.JSONDecodeError:
        frame = None
    if not isinstance(frame, dict):
        raise Refused(errors.INVALID_JSON)
    message_id, prompt = read_uuid(frame.get("message_id")), frame.get("message")
    if message_id is None:
        problem = "must be a UUID" if "message_id" in frame else "is missing"
        raise Refused(errors.INVALID_MESSAGE.format(f"message_id {problem}"))
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
    raise Refused(errors.INVALID_MESSAGE.format(f"message {problem}"), message_id)


def _refuse_because(websocket: WebSocket, instance: Instance) -> str | None:
    origin = websocket.headers.get("origin", "").lower()
    if "origin" in websocket.headers and origin not in instance.settings.frontend_host | {_own_origin(websocket)}:
        return "origin"
    if instance.is_draining:
        return "draining"
    return "full" if len(instance.chat.sessions) >= instance.settings.max_sessions else None


def _own_origin(websocket: WebSocket) -> str:
    """The origin under which a browser reached this server, directly or through a trusted proxy."""
    is_secure, host = websocket.scope["gateway.is_tls"], websocket.headers.get("host", "")
    peer, proxies = websocket.scope["gateway.peer"], websocket.state.instance.settings.trusted_proxies
    if peer and any(ip_address(peer) in network for network in proxies):
        is_secure = websocket.headers.get("x-forwarded-proto", "https" if is_secure else "http") in ("https", "wss")
        host = websocket.headers.get("x-forwarded-host", host)
    return f"{'https' if is_secure else 'http'}://{host}".lower()


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
        await websocket.close(errors.INTERNAL_ERROR)
    except (RuntimeError, WebSocketDisconnect, OSError):
        pass
