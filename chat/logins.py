"""Logins: a session tied to a persona, and the recommendation that follows as a push."""

from __future__ import annotations

import logging
from typing import NamedTuple, cast
from uuid import UUID

from chat.answers import Answers
from common.errors import NO_PERSONA, NOT_CONNECTED, NotFound
from common.logs import fields, session_hash
from common.tasks import TaskOwner
from database.batches import BatchedStatement
from database.pool import Database
from upstream.mcp import McpServer

logger = logging.getLogger("gateway.logins")


class Tie(NamedTuple):
    """What tie_personas takes."""

    session_id: UUID
    persona_id: int


class Asked(NamedTuple):
    """What get_persona_ids takes."""

    session_id: UUID


class Logins:
    def __init__(self, chatdb: Database, mcp_server: McpServer, answers: Answers) -> None:
        self._mcp_server = mcp_server
        self._answers = answers
        self._ties = BatchedStatement(chatdb, "tie_personas", Tie, apart="session_id")
        self._personas = BatchedStatement(chatdb, "get_persona_ids", Asked, apart="session_id")
        self._in_hand = TaskOwner("logins")

    async def login(self, session_id: UUID, persona_id: int, request_id: str) -> None:
        """Ties a session to a persona and pushes what the MCP server, which can see the tie, recommends.

        Raises NotFound, RecommendationFailed, DatabaseError.
        """
        with self._in_hand.busy():
            # An id beyond the column's range is an id that no persona has.
            tie = await self._ties.put(Tie(session_id, persona_id if abs(persona_id) < 2**31 else 0))
            if tie is None or not tie["is_connected"]:
                raise NotFound(NOT_CONNECTED)
            if not tie["is_persona"]:
                raise NotFound(NO_PERSONA)
            logger.info("login", extra=fields(session=session_hash(session_id), request_id=request_id))
            answer = await self._mcp_server.recommend(session_id, persona_id, request_id)
            await self._answers.push(session_id, tie["prompt_id"], answer)

    async def get_persona_id(self, session_id: UUID) -> int | None:
        """The persona that a session is tied to. Raises NotFound if nobody is there, DatabaseError."""
        row = await self._personas.put(Asked(session_id))
        if row is None:
            raise NotFound(NOT_CONNECTED)
        return cast("int | None", row["persona_id"])

    def __len__(self) -> int:
        return len(self._in_hand)

    async def drain(self) -> None:
        await self._in_hand.wait()
