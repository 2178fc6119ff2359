"""The parts of the chat on one instance, each made of those that it hands on to."""

from __future__ import annotations

import asyncio

from chat.answering import Answering
from chat.answers import Answers
from chat.delivery import Delivery
from chat.elsewhere import Elsewhere
from chat.logins import Logins
from chat.prompts import Prompts
from chat.qna import Qna
from chat.session_rows import SessionRows
from chat.sessions import Sessions
from chat.turns import Turns
from common import metrics
from database.notices import Notifier
from database.pool import Database
from settings import Settings
from upstream.llm import LlmServer
from upstream.mcp import McpServer


class Chat:
    """A prompt goes from `prompts` to its lane in `turns`, and its answer from there to the visitor's socket."""

    def __init__(self, settings: Settings, instance_id: int, chatdb: Database, card_qna_db: Database) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self.llm_server = LlmServer(settings)
        self._mcp_server = McpServer(settings)
        self.qna = Qna(card_qna_db, settings.max_qna_rows)
        notifier = Notifier(chatdb)
        self._rows = SessionRows(settings, instance_id, chatdb)
        self.sessions = Sessions(instance_id, chatdb, self._rows, notifier, settings.send_timeout)
        self.delivery = Delivery(instance_id, chatdb, self.sessions, self._rows, notifier)
        self._answers = Answers(chatdb, self.delivery, settings.max_unstored_answers)
        answering = Answering(self.qna, self.llm_server, self._answers)
        self.turns = Turns(answering, Elsewhere(instance_id, chatdb, self.delivery))
        self.prompts = Prompts(settings, instance_id, chatdb, self.delivery, self._answers, self.qna, self.turns)
        self.logins = Logins(chatdb, self._mcp_server, self._answers)

    @property
    def in_hand(self) -> int:
        """Turns and logins that are being worked on."""
        return len(self.turns) + len(self.logins)

    async def rejoin(self) -> None:
        """Takes back the sessions that the other instances took for ended. Raises DatabaseError."""
        await self._rows.reclaim(self.sessions)
        self.delivery.look_around()

    async def end_left_over(self) -> None:
        """Ends sessions whose end could not be stored when they left. Raises DatabaseError."""
        await self._rows.end_left_over()

    async def take_over(self) -> None:
        """Takes turns that no living instance answers, and prompts that are stored after all. Raises DatabaseError."""
        self.turns.take_over(await self._chatdb.fetch("take_turns", self._instance_id, self.prompts.in_doubt()))

    def measure(self) -> None:
        """Brings the gauges up to date."""
        metrics.sessions.set(len(self.sessions))
        metrics.turns_in_hand.set(self.in_hand)
        metrics.oldest_turn.set(self.turns.oldest_age())
        metrics.unstored_answers.set(self._answers.unstored)

    async def drain(self) -> None:
        """Until every turn and every login in hand is done."""
        await asyncio.gather(self.turns.drain(), self.logins.drain())

    async def stop(self, within: float) -> None:
        """Lets go of what is left; another instance takes it up."""
        await asyncio.gather(*(part.stop(within) for part in (self.prompts, self.turns, self.delivery)))
        await self.sessions.stop()
        await asyncio.gather(self.llm_server.close(), self._mcp_server.close())
