"""/api/chat/ws: one connection, from the handshake to the last frame."""

import time
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from chat.session import Session
from common import errors, metrics
from common.errors import Refused
from common.ids import read_uuid
from common.logs import log, session_hash
from handlers.requests import json_response
from service.instance import Instance

PATIENCE = 3  # times the prompts allowed in a minute; a visitor who sends more is disconnected

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
        await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)
        streams = query.get("stream") in ("true", "1")
        since = _read_time(query.get("since", ""))
        session = await sessions.open(websocket, query.get("session_id"), since, streams=streams)
        if streams:
            instance.chat.drafts.attach(session)
        if session.connection_no:  # it was resumed
            await turns.follow(session.id)
        await _converse(websocket, instance, session)
    except errors.DatabaseError:
        _note_refusal("database")
        await _give_up(websocket, errors.DB_FAILED)
    except (RuntimeError, WebSocketDisconnect, OSError):
        pass  # the socket went away while it was being used
    except Exception:
        log.exception("session failed")
        await _give_up(websocket, errors.UNKNOWN_ERROR)
    finally:
        if session is not None and sessions.leave(session):
            turns.unfollow(session.id)


async def _converse(websocket: WebSocket, instance: Instance, session: Session) -> None:
    session_is, number = session_hash(session.id), session.connection_no
    log.info("connected", session=session_is, connection_no=number)
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            # The visitor's own reason is text of theirs, and not for the log.
            code, reason = message.get("code"), session.socket.close_reason
            log.info("disconnected", session=session_is, connection_no=number, code=code, reason=reason)
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
    frame, message_id = _read_frame(text, settings.max_frame_bytes)
    if session.wants_drafts and frame.get("type") == "stop":
        instance.chat.stops.stop(session, message_id)
        return
    prompt = _read_prompt(frame, message_id, settings.max_prompt_chars)
    if instance.is_draining:
        raise Refused(errors.RESTARTING, message_id)
    if session.prompts.count(time.monotonic()) > settings.prompts_per_minute:
        raise Refused(errors.TOO_MANY_MESSAGES, message_id)
    instance.chat.prompts.take(session, message_id, prompt)


def _read_frame(text: str | None, max_bytes: int) -> tuple[dict[str, Any], UUID]:
    if text is not None and len(text) > max_bytes // 4 and len(text.encode()) > max_bytes:
        raise Refused(errors.INVALID_MESSAGE.format(f"the frame is longer than {max_bytes} bytes"))
    try:
        frame = orjson.loads(text) if text is not None else None
    except orjson.JSONDecodeError:
        frame = None
    if not isinstance(frame, dict):
        raise Refused(errors.INVALID_JSON)
    message_id = read_uuid(frame.get("message_id"))
    if message_id is None:
        problem = "must be a UUID" if "message_id" in frame else "is missing"
        raise Refused(errors.INVALID_MESSAGE.format(f"message_id {problem}"))
    return frame, message_id


def _read_prompt(frame: dict[str, Any], message_id: UUID, max_chars: int) -> str:
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
        return prompt
    raise Refused(errors.INVALID_MESSAGE.format(f"message {problem}"), message_id)


def _refuse_because(websocket: WebSocket, instance: Instance) -> str | None:
    origin = websocket.headers.get("origin", "").lower()
    if "origin" in websocket.headers and origin not in instance.settings.frontend_host | {_own_origin(websocket)}:
        return "origin"
    if instance.is_draining:
        return "draining"
    return "full" if len(instance.chat.sessions) >= instance.settings.max_sessions else None


def _own_origin(websocket: WebSocket) -> str:
    """The origin under which a browser reached this server, directly or through trusted proxies, the first of them."""
    is_secure, host = websocket.scope["gateway.is_tls"], websocket.headers.get("host", "")
    peer, proxies = websocket.scope["gateway.peer"], websocket.state.instance.settings.trusted_proxies
    if peer and any(ip_address(peer) in network for network in proxies):
        proto, public_host = (_first(websocket, f"x-forwarded-{name}") for name in ("proto", "host"))
        is_secure, host = (proto in ("https", "wss") if proto else is_secure), public_host or host
    # A browser does not name the scheme's own port; a proxy may.
    return f"https://{host.lower().removesuffix(':443')}" if is_secure else f"http://{host.lower().removesuffix(':80')}"


def _first(websocket: WebSocket, name: str) -> str:
    """What the proxy nearest to the visitor said; those behind it append to a list, or add a header."""
    return websocket.headers.get(name, "").partition(",")[0].strip().lower()


def _note_refusal(reason: str) -> None:
    metrics.sessions_opened.labels(f"refused_{reason}").inc()
    log.info("handshake refused", reason=reason)


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
