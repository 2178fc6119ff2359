"""A session whose socket is on this instance."""

from __future__ import annotations

import logging
from uuid import UUID

import orjson

from chat.outbox import Outbox
from chat.socket import Socket
from common import metrics
from common.errors import Refused
from common.limits import Window
from common.logs import fields, session_hash

logger = logging.getLogger("gateway.sessions")


class Session:
    """`connection_no` counts how often it was resumed, `prompts` those of the last minute."""

    __slots__ = ("connection_no", "id", "outbox", "prompts", "socket")

    def __init__(self, id: UUID, connection_no: int, socket: Socket, outbox: Outbox, prompts: Window) -> None:
        self.id = id
        self.connection_no = connection_no
        self.socket = socket
        self.outbox = outbox
        self.prompts = prompts

    @property
    def is_resumed(self) -> bool:
        return self.connection_no > 0

    async def refuse(self, refused: Refused) -> None:
        """Answers a frame with an error."""
        metrics.prompts.labels(refused.reason).inc()
        about = fields(session=session_hash(self.id), message_id=refused.message_id, reason=refused.reason)
        logger.info("prompt refused", extra=about)
        frame = {"error": refused.text}
        if refused.message_id is not None:
            frame["message_id"] = str(refused.message_id)
        await self.socket.send(orjson.dumps(frame))
