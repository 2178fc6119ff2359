"""What breaks in the middle of answers that are shown while they are made."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import psutil
import pytest

from tests.faults.conftest import think
from tests.faults.ledger import record
from tests.faults.scale import SCALE, SETTLED_SECONDS
from tests.faults.visitors import FAILED, Crowd, FrontEnd
from tests.support.backends import Call, Reply, Stream
from tests.support.chat import new_id
from tests.support.cluster import Cluster, answers_of
from tests.support.gateway import Gateway
from tests.support.postgres import PostgresServer
from tests.support.raw import RawSocket
from tests.support.streams import delta, last
from tests.support.waiting import become
from tests.support.world import World, unique

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SCALE.seconds)]

BIG = "카드의 정석 😀 " * 17_000
PIECES = 12
DRAIN_SECONDS = 1.5


def spoken(text: str, count: int = PIECES, seconds: float | None = None) -> list[bytes | float]:
    """A text in pieces, within so many seconds."""
    size = -(-len(text) // count)
    pause = (seconds or random.uniform(*SCALE.thinking)) / count
    parts = [text[n : n + size] for n in range(0, len(text), size)]
    return [one for part in parts for one in (delta(part), pause)]


def said(query: object) -> str:
    """The answer to a question."""
    return f"re: {query} 😀 " + "가나다라마바사아자차카타파하" * 3


def whole(text: str, seconds: float | None = None) -> Stream:
    """An answer in pieces, and the last object."""
    return Stream([*spoken(text, seconds=seconds), last(text)])


def speak(call: Call) -> Reply:
    """What the LLM server does in these tests."""
    return whole(said(call.field("query")))


def speak_slowly(call: Call) -> Reply:
    """The same in more than a second."""
    return whole(said(call.field("query")), 1.2)


def half_then_hang(text: str) -> Stream:
    """An answer that gets stuck in the middle."""
    return Stream(spoken(text, seconds=0.1)[:PIECES], then="hang")


@contextmanager
def speaking(world: World, reply: Callable[[Call], Reply] = speak) -> Iterator[None]:
    """The LLM server streams by default."""
    world.llm.default = reply
    try:
        yield
    finally:
        world.llm.default = think


@pytest.fixture(scope="module")
def spare(cluster: Cluster) -> Iterator[list[Gateway]]:
    """Two more instances, which may be ended; they are started together."""
    settings = cluster[0].settings | {"DRAIN_SECONDS": str(DRAIN_SECONDS)}
    gateways = [Gateway(settings).launch() for _ in range(2)]
    for gateway in gateways:
        gateway.wait_until_healthy()
    yield gateways
    for gateway in gateways:
        gateway.close()


def _sees_text(visitor: FrontEnd) -> bool:
    return all(visitor.made.get(message_id, (0, ""))[1] for message_id in visitor.waiting)


async def all_see_text(visitors: Sequence[FrontEnd]) -> None:
    """Wait until each sees something of the answer that it waits for."""
    for visitor in visitors:
        await visitor.until(partial(_sees_text, visitor))


async def test_an_instance_is_killed_in_the_middle_of_streamed_answers(
    cluster: Cluster, world: World, spare: list[Gateway]
) -> None:
    """What was shown is replaced by the next attempt, of which each answer is the whole."""
    killed = spare[0]
    async with Crowd([killed], SCALE.in_hand, streams=True) as crowd:
        for visitor in crowd.visitors:
            visitor.turn_to(list(cluster))
            message = unique("죽기 전")
            world.llm.on(message, half_then_hang(said(message)), whole(said(message), 1.2))
            await visitor.ask(message)
        await all_see_text(crowd.visitors)
        killed.kill()
        await crowd.finish()
        await record(f"kill -9 in the middle of {SCALE.in_hand} streamed answers", cluster, crowd.visitors)
        attempts = [attempt for visitor in crowd.visitors for attempt, _ in visitor.made.values()]
        assert attempts.count(2) > len(attempts) // 2


async def test_an_instance_is_told_to_stop_in_the_middle_of_streamed_answers(
    cluster: Cluster, world: World, spare: list[Gateway]
) -> None:
    """Half of them end in its time and are seen to the end, half are handed over."""
    stopped = spare[1]
    async with Crowd([stopped], SCALE.in_hand, streams=True) as crowd:
        for n, visitor in enumerate(crowd.visitors):
            visitor.turn_to(list(cluster))
            message = unique("멈추기 전")
            stuck = [half_then_hang(said(message))] if n % 2 else []
            world.llm.on(message, *stuck, whole(said(message)))
            await visitor.ask(message)
        await all_see_text(crowd.visitors)
        await asyncio.to_thread(stopped.stop)
        await crowd.finish()
        await record("SIGTERM in the middle, half of it beyond DRAIN_SECONDS", cluster, crowd.visitors)


async def test_sockets_are_cut_again_and_again_in_the_middle_of_streamed_answers(
    cluster: Cluster, world: World
) -> None:
    """Every visitor comes back to the next instance, and sees what is made of the same answer there."""
    with speaking(world, speak_slowly):
        async with Crowd(list(cluster), SCALE.misbehaving, streams=True) as crowd:
            for _ in range(SCALE.storms):
                idle = [visitor for visitor in crowd.visitors if not visitor.waiting]
                await asyncio.gather(*(visitor.ask(unique("질문")) for visitor in idle))
                await all_see_text(crowd.visitors)
                for visitor in crowd.visitors:
                    visitor.cut()
                await asyncio.gather(*(visitor.online.wait() for visitor in crowd.visitors))
            await crowd.finish()
            await record(f"resume storms in the middle of answers, {SCALE.storms} times", cluster, crowd.visitors)


async def test_stops_and_ends_at_the_same_moment(cluster: Cluster, world: World) -> None:
    """Each is answered once, by what was made or by the whole, and what was sent is what is stored."""
    each = SCALE.stops // 10
    with speaking(world, lambda call: Stream([delta("반"), 0.02, last(f"반 {call.field('query')}")])):
        async with Crowd(list(cluster), 10, streams=True) as crowd:

            async def ask_and_stop(visitor: FrontEnd) -> None:
                for _ in range(each):
                    message_id = await visitor.ask(unique("질문"))
                    await all_see_text([visitor])
                    await asyncio.sleep(random.uniform(0.01, 0.022))
                    await visitor.stop(message_id)
                    await visitor.until_answered()

            await asyncio.gather(*(ask_and_stop(visitor) for visitor in crowd.visitors))
            await record(f"stop against end, {SCALE.stops} times", cluster, crowd.visitors)
            for visitor in crowd.visitors:
                stored = [row["content"] for row in answers_of(world.chatdb, str(visitor.session_id))]
                assert stored == [frame["message"] for frame in visitor.answers]
            stopped = [frame.get("stopped", False) for visitor in crowd.visitors for frame in visitor.answers]
            assert 0 < sum(stopped) < len(stopped)


async def test_the_llm_server_breaks_off_in_every_tenth_stream(cluster: Cluster, world: World) -> None:
    """Those are answered by the sentence, and asked once; the others are whole."""
    numbers = itertools.count(1)

    def break_every_tenth(call: Call) -> Reply:
        text = said(call.field("query"))
        if next(numbers) % 10:
            return whole(text)
        return Stream(spoken(text)[:PIECES], then=random.choice(("break", "reset", "end")))

    with speaking(world, break_every_tenth):
        async with Crowd(list(cluster), SCALE.misbehaving, streams=True) as crowd:
            crowd.talk()
            await crowd.more_answers(2 * SCALE.misbehaving)
            await crowd.finish()
            await record("LLM server breaks off in every tenth stream", cluster, crowd.visitors)
            messages = [frame["message"] for visitor in crowd.visitors for frame in visitor.answers]
            assert messages.count(FAILED[0]) == (next(numbers) - 1) // 10


async def test_the_database_is_away_in_the_middle_of_streamed_answers(
    cluster: Cluster, world: World, server: PostgresServer
) -> None:
    """They are shown to the end all the same, and stored when it is back."""
    with speaking(world):
        async with Crowd(list(cluster), SCALE.talking, streams=True) as crowd:
            crowd.talk()
            await all_see_text(crowd.visitors)
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(SCALE.outage)
            await asyncio.to_thread(server.start)
            await crowd.more_answers()
            await crowd.finish()
            await record("database away in the middle of streamed answers", cluster, crowd.visitors)


async def test_a_client_never_reads_what_is_streamed(cluster: Cluster, world: World) -> None:
    """Half a megabyte again and again: no queue grows, others go on, and it finds its answers when it comes back."""
    message, gateway = unique("큰 답"), cluster[0]
    world.llm.on(message, Stream([*spoken(BIG, 100, 0.5), last(BIG)]))
    with speaking(world):
        async with Crowd([gateway], SCALE.talking // 3, streams=True) as crowd:
            crowd.talk()
            before = psutil.Process(gateway.process.pid).memory_info().rss
            with RawSocket(gateway, receive_buffer=4096, segment_bytes=536) as deaf:
                back = FrontEnd([gateway], session_id=deaf.handshake("stream=true"), streams=True)
                for message_id in (new_id() for _ in range(SCALE.deaf_prompts // 10)):
                    deaf.send_json({"message_id": message_id, "message": message})
                    back.sent[message_id] += 1
                chatdb, session_id = world.chatdb, str(back.session_id)
                await become(lambda: len(answers_of(chatdb, session_id)) == len(back.sent), SETTLED_SECONDS)
                assert psutil.Process(gateway.process.pid).memory_info().rss < before + (30 << 20)
            await crowd.more_answers()
            await crowd.finish()
            back.come()
            async with asyncio.timeout(SETTLED_SECONDS):
                await back.until(lambda: len(back.answers) == len(back.sent))
            crowd.visitors.append(back)
            await record("a client never reads what is streamed", cluster, crowd.visitors)
