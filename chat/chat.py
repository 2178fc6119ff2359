"""The parts of the chat on one instance, each given those that it hands on to."""

import asyncio
from uuid import UUID

import orjson

from chat.answering import Answering
from chat.answers import Answers
from chat.delivery import Delivery
from chat.drafts import Drafts
from chat.logins import Logins
from chat.prompts import Prompts
from chat.qna import Qna
from chat.sessions import Sessions
from chat.stops import Stops
from chat.turns import Turns
from chat.waiting import Waiting
from common import metrics
from common.clock import Clock
from common.tasks import TaskOwner
from database.notices import Notifier
from database.pool import Database
from settings import Settings
from upstream.llm import LlmServer
from upstream.mcp import McpServer
from upstream.mcp_native import NativeMcpServer


class Chat:
    """A prompt goes from `prompts` to its lane in `turns`, and its answer from there to the visitor's socket."""

    def __init__(
        self, settings: Settings, instance_id: int, clock: Clock, chatdb: Database, card_qna_db: Database
    ) -> None:
        self.llm_server = LlmServer(settings)
        self.mcp_server = (NativeMcpServer if settings.mcp_protocol == "mcp" else McpServer)(settings)
        notifier = Notifier(chatdb)
        self.qna = Qna(card_qna_db, settings.max_qna_rows)
        self.sessions = Sessions(settings, instance_id, chatdb, notifier)
        self.delivery = Delivery(instance_id, self.sessions, notifier)
        self._answers = Answers(chatdb, clock, self.delivery, settings.max_unstored_answers)
        self.logins = Logins(settings, chatdb, self.mcp_server, self._answers)
        self.drafts = Drafts(instance_id, self.sessions, notifier, settings.delta_seconds)
        answering = Answering(self.qna, self.llm_server, self.drafts, self._answers)
        waiting = Waiting(instance_id, chatdb, self.delivery, self.drafts)
        self.turns = Turns(instance_id, chatdb, answering, waiting)
        self.stops = Stops(instance_id, chatdb, notifier, self.turns)
        pending = settings.max_pending_prompts
        self.prompts = Prompts(pending, chatdb, self.qna, self.delivery, self._answers, self.turns, self.stops)

    @property
    def in_hand(self) -> int:
        """Turns and logins that are being worked on."""
        return len(self.turns) + len(self.logins.tasks)

    def hear_of_session(self, session_id: str) -> None:
        """Another instance stored something for a session, or took it over."""
        self.delivery.look_at(UUID(session_id))

    def hear_word(self, text: str) -> None:
        """A typed message from another instance; types that are unknown here are of newer versions."""
        match word := orjson.loads(text):
            case {"type": "stop"}:
                self.stops.hear(UUID(word["message_id"]))
            case {"type": "watch"}:
                self.drafts.watch(word)
            case {"type": "draft"}:
                self.drafts.mirror(word)

    def measure(self) -> None:
        """Updates the gauges."""
        metrics.sessions.set(len(self.sessions))
        metrics.tasks.set(TaskOwner.running)
        metrics.turns_in_hand.set(self.in_hand)
        metrics.oldest_turn.set(self.turns.oldest_age())
        metrics.unstored_answers.set(self._answers.unstored)
        metrics.drafts.set(len(self.drafts))

    async def drain(self) -> None:
        """Waits until every turn and every login in hand is done."""
        await asyncio.gather(self.turns.drain(), self.logins.tasks.wait())

    async def stop(self, within: float) -> None:
        """Lets go of what is left; another instance takes it over."""
        await asyncio.gather(
            *(part.tasks.cancel(within) for part in (self.prompts, self.stops, self.turns, self.drafts, self.delivery))
        )
        await self.sessions.stop()
        await asyncio.gather(self.llm_server.close(), self.mcp_server.close())
