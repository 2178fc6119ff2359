"""Logins: a session tied to a persona, and the recommendation that follows as a push."""

import logging
from typing import cast
from uuid import UUID

from chat.answers import Answers
from common.errors import NO_PERSONA, NOT_CONNECTED, NotFound
from common.logs import fields, session_hash
from common.tasks import TaskOwner
from database.batches import BatchedStatement
from database.pool import Database
from upstream.mcp import McpServer

logger = logging.getLogger("gateway.logins")


class Logins:
    def __init__(self, chatdb: Database, mcp_server: McpServer, answers: Answers) -> None:
        self._mcp_server = mcp_server
        self._answers = answers
        self._ties = BatchedStatement(chatdb, "tie_personas", apart="session_id")
        self._personas = BatchedStatement(chatdb, "get_persona_ids", apart="session_id")
        self.in_hand = TaskOwner("logins")

    async def login(self, session_id: UUID, persona_id: int, request_id: str) -> None:
        """Ties a session to a persona and pushes what the MCP server, which can see the tie, recommends.

        Raises NotFound, RecommendationFailed, DatabaseError.
        """
        with self.in_hand.busy():
            # An id beyond the column's range is an id that no persona has.
            known_id = persona_id if abs(persona_id) < 2**31 else 0
            ties = await self._ties.put(session_id=session_id, persona_id=known_id)
            if not ties or not ties[0]["is_connected"]:
                raise NotFound(NOT_CONNECTED)
            if not ties[0]["is_persona"]:
                raise NotFound(NO_PERSONA)
            logger.info("login", extra=fields(session=session_hash(session_id), request_id=request_id))
            answer = await self._mcp_server.recommend(session_id, persona_id, request_id)
            await self._answers.push(session_id, ties[0]["prompt_id"], answer)

    async def get_persona_id(self, session_id: UUID) -> int | None:
        """The persona that a session is tied to. Raises NotFound if nobody is there, DatabaseError."""
        rows = await self._personas.put(session_id=session_id)
        if not rows:
            raise NotFound(NOT_CONNECTED)
        return cast("int | None", rows[0]["persona_id"])
