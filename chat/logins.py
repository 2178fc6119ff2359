"""Logins: a session tied to a persona, and the recommendation that follows as a push."""

from collections.abc import Awaitable, Callable
from typing import cast
from uuid import UUID

from chat.answers import Answers
from common.errors import NO_PERSONA, NOT_CONNECTED, LoginsFull, NotFound, TooManyLogins
from common.logs import log, session_hash
from common.tasks import TaskOwner
from database.pool import Database
from database.shared import BatchedStatement
from settings import Settings
from upstream.mcp import McpServer


class Logins:
    def __init__(self, settings: Settings, chatdb: Database, mcp_server: McpServer, answers: Answers) -> None:
        self._settings = settings
        self._mcp_server = mcp_server
        self._answers = answers
        self._tie_personas = BatchedStatement(chatdb, "tie_personas", apart="session_id")
        self._get_persona_ids = BatchedStatement(chatdb, "get_persona_ids", apart="session_id")
        self.tasks = TaskOwner("logins")

    async def login(
        self, session_id: UUID, persona_id: int, request_id: str, has_hung_up: Callable[[], Awaitable[bool]]
    ) -> None:
        """Ties a session to a persona and pushes what the MCP server, which can see the tie, recommends.

        The MCP server is not asked for a caller who hung up before his turn came. Raises NotFound, TooManyLogins,
        LoginsFull, RecommendationFailed, DatabaseError.
        """
        if len(self.tasks) >= self._settings.max_logins:
            raise LoginsFull
        with self.tasks.busy():
            # An id beyond the column's range is an id that no persona has.
            known_id = persona_id if abs(persona_id) < 2**31 else 0
            row = {"session_id": session_id, "persona_id": known_id, "allowed": self._settings.logins_per_minute}
            ties = await self._tie_personas.put(row)
            if not ties or not ties[0]["is_connected"]:
                raise NotFound(NOT_CONNECTED)
            if not ties[0]["is_allowed"]:
                raise TooManyLogins
            if not ties[0]["is_persona"]:
                raise NotFound(NO_PERSONA)
            log.info("login", session=session_hash(session_id), request_id=request_id)
            if await has_hung_up():
                return
            answer = await self._mcp_server.recommend(session_id, persona_id, request_id)
            await self._answers.push(session_id, ties[0]["prompt_id"], answer)

    async def get_persona_id(self, session_id: UUID) -> int | None:
        """The persona that a session is tied to. Raises NotFound if nobody is there, DatabaseError."""
        rows = await self._get_persona_ids.put({"session_id": session_id})
        if not rows:
            raise NotFound(NOT_CONNECTED)
        return cast("int | None", rows[0]["persona_id"])
