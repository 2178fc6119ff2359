"""One visitor's WebSocket: every send ends, whether the visitor reads or not."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from starlette.websockets import WebSocket, WebSocketDisconnect

from common.logs import fields, session_hash

logger = logging.getLogger("gateway.socket")

CLOSE_SECONDS = 2.0


class Socket:
    """Sends and closes; never raises for a visitor who left."""

    __slots__ = ("_send_timeout", "_session_id", "_transport", "_websocket", "close_reason", "is_open")

    def __init__(self, websocket: WebSocket, session_id: UUID, send_timeout: float) -> None:
        self.is_open = True
        self.close_reason: str | None = None
        self._websocket = websocket
        self._session_id = session_id
        self._transport = websocket.scope.get("gateway.transport")
        self._send_timeout = send_timeout

    async def send(self, frame: bytes) -> None:
        """Sends a frame, or drops the connection if the visitor does not read."""
        if not self.is_open:
            return
        message = {"type": "websocket.send", "text": frame.decode()}
        try:
            if self._transport is not None and not self._transport.get_write_buffer_size():
                await self._websocket.send(message)  # with nothing in its way it does not wait
                return
            async with asyncio.timeout(self._send_timeout):
                await self._websocket.send(message)
        except TimeoutError:
            logger.warning("session dropped: it does not read", extra=fields(session=session_hash(self._session_id)))
            self.drop()
        except (RuntimeError, WebSocketDisconnect, OSError):
            self.is_open = False

    async def close(self, code: int, reason: str) -> None:
        """Closes the socket, by force if the visitor does not let it be closed."""
        self.is_open = False
        self.close_reason = reason
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._websocket.close(code, reason)
        except TimeoutError:
            self.drop()
        except (RuntimeError, WebSocketDisconnect, OSError):
            pass

    def drop(self) -> None:
        """Cuts the connection at once; what is buffered for it is thrown away."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
