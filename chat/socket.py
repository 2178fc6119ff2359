"""One visitor's WebSocket: every send ends, whether the visitor reads or not."""

import asyncio
from uuid import UUID

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from common import metrics
from common.errors import Refused
from common.logs import log, session_hash

CLOSE_SECONDS = 2.0


class Socket:
    """Sends and closes; never raises for a visitor who left."""

    __slots__ = ("_hash", "_send", "_send_timeout", "_transport", "_websocket", "close_reason", "is_open")

    def __init__(self, websocket: WebSocket, session_id: UUID, send_timeout: float) -> None:
        self.is_open = True
        self.close_reason: str | None = None
        self._websocket = websocket
        self._hash = session_hash(session_id)
        self._transport = websocket.scope.get("gateway.transport")
        self._send = websocket.scope["gateway.send"]  # past five layers that have nothing to add to a frame
        self._send_timeout = send_timeout

    def is_idle(self) -> bool:
        """Whether the visitor has read, or the network taken, all that was sent: then a send does not wait."""
        return self._transport is not None and not self._transport.get_write_buffer_size()

    async def send(self, frame: bytes) -> None:
        """Sends a frame, or drops the connection if the visitor does not read."""
        if not self.is_open:
            return
        message = {"type": "websocket.send", "text": frame.decode()}
        try:
            if self.is_idle():
                await self._send(message)
                return
            async with asyncio.timeout(self._send_timeout):
                await self._send(message)
        except TimeoutError:
            log.warning("session dropped: it does not read", session=self._hash)
            self.drop()
        except (RuntimeError, WebSocketDisconnect, OSError):
            self.is_open = False

    async def refuse(self, refused: Refused) -> None:
        """Answers a frame with an error."""
        metrics.prompts.labels(refused.reason).inc()
        log.info("prompt refused", session=self._hash, message_id=refused.message_id, reason=refused.reason)
        id = {} if refused.message_id is None else {"message_id": str(refused.message_id)}
        await self.send(orjson.dumps({"error": refused.text} | id))

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
