"""What visitors do all day, and what breaks meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from websockets.exceptions import ConnectionClosed

from tests.faults.ledger import count
from tests.faults.visitors import FrontEnd
from tests.support.backends import Call, Hang, Json, Raw, Receive, Reply, Send, Stream, answer
from tests.support.card_qna import FAQS, TERMS
from tests.support.cluster import Cluster, kill_backends
from tests.support.gateway import Gateway
from tests.support.streams import pieces
from tests.support.world import unique

T = TypeVar("T")
KNOWN = [*(faq.question for faq in FAQS), *(term.term for term in TERMS)]
ANSWER_SECONDS = 60.0  # the longest that a visitor waits, faults included
PROBES = 4
OUTAGE_SECONDS = 1.0
# How often, of 1
STREAMS, KNOWN_QUESTIONS, RATES = 0.8, 0.4, 0.3
STOPS, CUTS, LOGS_IN = 0.1, 0.1, 0.1


class Guest(FrontEnd):
    """A visitor with a day to spend."""

    resumed = 0
    logins = 0
    is_unsure = False  # whether a login whose reply was lost was done

    def has_all_pushes(self) -> bool:
        """Whether what each login that is known to be done has led to has come."""
        return self.is_unsure or len(self.pushes) >= self.logins

    async def probe_until_done(self) -> None:
        """Wait until everything that was on its way has come, over a socket that lives to see it."""
        for _ in range(PROBES):
            with suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS / PROBES):
                    await self.probe()
                    return
        raise TimeoutError

    def cut(self) -> None:
        """Lose the socket, and come back."""
        self.resumed += 1
        super().cut()


@dataclass
class Slow:
    """Reply with `then`, after a while."""

    then: Reply

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Think, then serve."""
        await asyncio.sleep(random.uniform(0.02, 0.4))
        await self.then.serve(call, receive, send)


def think(call: Call) -> Reply:
    """What the LLM server does: mostly it streams; now and then it fails, or is silent until it is stopped."""
    query, luck = str(call.field("query")), random.random()
    # The same at every attempt: a visitor may have seen one and be sent the answer of another.
    text = f"re: {query} " + "네. " * random.Random(query).randint(1, 25)
    if luck < 0.02:
        return Raw(b"no answer", status=503)
    if luck < 0.04:
        return Stream(pieces(text, 0.01)[:-1], then="break")
    if luck < 0.05:
        return Hang()
    return Slow(answer(text) if luck < 0.3 else Stream(pieces(text, 0.01)))


def recommend(call: Call) -> Reply:
    """What the MCP server does."""
    return Slow(Json({"answer": "추천 카드입니다.", "login_required": False, "card_list": ["카드의정석2"]}))


class Day:
    """Visitors who come, talk and go, one after the other in so many places, until it is `over`."""

    def __init__(self, cluster: Cluster, fault_seconds: float) -> None:
        self.over = asyncio.Event()
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._chatdb = cluster.world.chatdb
        self._fault_seconds = fault_seconds
        self._asking = asyncio.Lock()
        self._here: set[Guest] = set()
        self._http = httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False)

    async def come_and_go(self) -> None:
        """One visitor after the other; each is counted when he has gone."""
        while not self.over.is_set():
            guest = Guest(list(self._cluster), random.randrange(3), streams=random.random() < STREAMS)
            guest.come()
            self._here.add(guest)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await guest.online.wait()
                for _ in range(random.randint(1, 5)):
                    await self._do_something(guest)
                async with asyncio.timeout(ANSWER_SECONDS):
                    await guest.until(guest.has_all_pushes)
                    await guest.probe_until_done()
            except TimeoutError:
                self.problems.append(f"session {guest.session_id}: waited {ANSWER_SECONDS:g} s for {guest.waiting}")
            self._here.discard(guest)
            await guest.leave(closing=random.random() < 0.5)
            await self._count(guest)

    async def _do_something(self, guest: Guest) -> None:
        id = await guest.ask(random.choice(KNOWN) if random.random() < KNOWN_QUESTIONS else unique("질문"))
        await asyncio.sleep(random.uniform(0, 0.3))
        what = random.random()
        if what < STOPS and guest.streams and guest.online.is_set():
            with suppress(ConnectionClosed):
                await guest.stop(id)
        elif what < STOPS + CUTS:
            guest.cut()
        elif what < STOPS + CUTS + LOGS_IN:
            guest.logins += await self._post(guest, "/api/login", session_id=guest.session_id, persona_id=1)
        async with asyncio.timeout(ANSWER_SECONDS):
            await guest.until_answered()
        if random.random() < RATES:
            await self._post(guest, "/api/chat/feedback", message_id=id, is_helpful=random.random() < 0.8)

    async def _post(self, guest: Guest, path: str, **body: Any) -> bool:
        """Whether it was done; nobody knows of one whose reply was lost."""
        try:
            response = await self._http.post(guest.gateway.base_url + path, json=body)
        except httpx.HTTPError:
            guest.is_unsure = True
            self.counts["replies lost"] += 1
            return False
        self.counts[f"{path} {response.status_code}"] += 1
        return response.is_success

    async def ask_database(self, question: Callable[..., T], *arguments: Any) -> T:
        """One at a time, so that none of these is cut off with the gateway's connections."""
        async with self._asking:
            return await asyncio.to_thread(question, *arguments)

    async def _count(self, guest: Guest) -> None:
        logins = Counter[FrontEnd]() if guest.is_unsure else Counter[FrontEnd]({guest: guest.logins})
        row = await self.ask_database(count, "", self._chatdb, [guest], +logins)
        stopped = sum(frame.get("stopped", False) for frame in guest.answers)
        self.counts.update(sessions=1, prompts=row.sent, deltas=guest.deltas, stopped=stopped, pushes=row.pushes)
        self.counts.update({"resumed": guest.resumed, "sent again": row.repeated})
        self.counts.update(lost=row.lost + row.pushes_lost, doubled=row.doubled + row.pushes_doubled, wrong=row.wrong)
        if row.lost + row.doubled + row.pushes_lost + row.pushes_doubled + row.wrong or guest.problems:
            self.problems.append(f"session {guest.session_id}: {row} {guest.problems}")

    async def break_things(self) -> None:
        """One fault after the other; the first instance is left alone, but for what all have to bear."""
        faults: tuple[Callable[[Gateway], Awaitable[object]], ...] = (
            self._kill,
            self._cut_off,
            self._restart,
            self._lose_the_llm_server,
            self._kill_and_stop,
            self._cut_all,
        )
        others = itertools.cycle(list(self._cluster)[1:])
        for fault, gateway in zip(itertools.cycle(faults), others, strict=False):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._fault_seconds):
                    await self.over.wait()
                    return
            await fault(gateway)
            self.counts["faults"] += 1

    async def _kill(self, gateway: Gateway) -> None:
        gateway.kill()
        await asyncio.to_thread(gateway.start)

    async def _restart(self, gateway: Gateway) -> None:
        if (status := await asyncio.to_thread(gateway.stop)) != 0:
            self.problems.append(f"an instance that was told to stop ended with status {status}")
        await asyncio.to_thread(gateway.start)

    async def _kill_and_stop(self, gateway: Gateway) -> None:
        other = self._cluster.other(self._cluster[0], gateway)
        await asyncio.gather(self._kill(gateway), self._restart(other))

    async def _cut_off(self, _: Gateway) -> None:
        await self.ask_database(kill_backends, self._chatdb)

    async def _lose_the_llm_server(self, _: Gateway) -> None:
        await asyncio.to_thread(self._cluster.world.llm.stop)
        await asyncio.sleep(OUTAGE_SECONDS)
        await asyncio.to_thread(self._cluster.world.llm.start)

    async def _cut_all(self, _: Gateway) -> None:
        for guest in self._here:
            guest.cut()
