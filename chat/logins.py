"""Logins: a session tied to a persona, and the recommendation that follows as a push."""

from typing import cast
from uuid import UUID

from chat.answers import Answers
from common.errors import NO_PERSONA, NOT_CONNECTED, NotFound
from common.logs import log, session_hash
from common.tasks import TaskOwner
from database.pool import Database
from database.shared import BatchedStatement
from upstream.mcp import McpServer


class Logins:
    def __init__(self, chatdb: Database, mcp_server: McpServer, answers: Answers) -> None:
        self._mcp_server = mcp_server
        self._answers = answers
        self._tie_personas = BatchedStatement(chatdb, "tie_personas", apart="session_id")
        self._get_persona_ids = BatchedStatement(chatdb, "get_persona_ids", apart="session_id")
        self.tasks = TaskOwner("logins")

    async def login(self, session_id: UUID, persona_id: int, request_id: str) -> None:
        """Ties a session to a persona and pushes what the MCP server, which can see the tie, recommends.

        Raises NotFound, RecommendationFailed, DatabaseError.
        """
        with self.tasks.busy():
            # An id beyond the column's range is an id that no persona has.
            known_id = persona_id if abs(persona_id) < 2**31 else 0
            ties = await self._tie_personas.put({"session_id": session_id, "persona_id": known_id})
            if not ties or not ties[0]["is_connected"]:
                raise NotFound(NOT_CONNECTED)
            if not ties[0]["is_persona"]:
                raise NotFound(NO_PERSONA)
            log.info("login", session=session_hash(session_id), request_id=request_id)
            answer = await self._mcp_server.recommend(session_id, persona_id, request_id)
            await self._answers.push(session_id, ties[0]["prompt_id"], answer)

    async def get_persona_id(self, session_id: UUID) -> int | None:
        """The persona that a session is tied to. Raises NotFound if nobody is there, DatabaseError."""
        rows = await self._get_persona_ids.put({"session_id": session_id})
        if not rows:
            raise NotFound(NOT_CONNECTED)
        return cast("int | None", rows[0]["persona_id"])
