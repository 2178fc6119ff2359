"""Clients that do not read or do not answer pings are let go, and nobody else notices."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.backends import Held, answer
from tests.support.chat import Visitor, new_id, visit
from tests.support.cluster import holder_of
from tests.support.gateway import Gateway
from tests.support.raw import CLOSE, PING, PONG, RawSocket
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

SEND_TIMEOUT = 2.0
PING_SECONDS = 1.0
BIG = "가" * 150_000
SLOW_PROMPTS = 16
ANSWERED = 3  # of the others' prompts, at least, before the client is dropped


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    """A gateway that is soon out of patience with a client that does not read."""
    settings = {"SEND_TIMEOUT": str(SEND_TIMEOUT), "MAX_PENDING_PROMPTS": "30", "PROMPTS_PER_MINUTE": "100000"}
    with Gateway(world.settings | settings, start="python") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def pinging(world: World) -> Iterator[Gateway]:
    """A gateway that pings every second."""
    with Gateway(
        world.settings | {"PING_SECONDS": str(PING_SECONDS), "PROMPTS_PER_MINUTE": "1000"}, start="python"
    ) as gateway:
        yield gateway


async def asked_until_dropped(visitor: Visitor, world: World, session: str) -> int:
    """How many prompts of a visitor have been answered by the time that a client that does not read is dropped."""
    answered = 0
    while True:
        await visitor.ask(unique("빨리"))
        if holder_of(world.chatdb, session) is None:
            return answered
        answered += 1


async def test_a_client_that_sends_nonsense_and_never_reads_the_errors_is_dropped(
    gateway: Gateway, world: World
) -> None:
    """A flood of invalid frames whose answers nobody reads ends as well."""
    with RawSocket(gateway, receive_buffer=4096, segment_bytes=536) as deaf:
        session = deaf.handshake()

        def flood() -> None:
            text = json.dumps({"message_id": new_id()}).encode()  # its error is longer than itself
            frames = (bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text) * 1000
            try:
                while True:
                    deaf.socket.sendall(frames)
            except OSError:
                pass

        flooding = asyncio.create_task(asyncio.to_thread(flood))
        async with visit(gateway) as visitor:
            assert await asked_until_dropped(visitor, world, session) >= ANSWERED
        await flooding


async def test_a_client_that_reads_slowly_but_steadily_is_kept(gateway: Gateway, world: World) -> None:
    """The limit is for one frame, not for all of them."""
    query = unique("큰 답을 천천히")
    world.llm.on(query, answer(BIG))
    with RawSocket(gateway, receive_buffer=65536) as slow:
        session = slow.handshake()
        for _ in range(SLOW_PROMPTS):
            slow.send_json({"message_id": new_id(), "message": query})
        for _ in range(SLOW_PROMPTS):
            opcode, payload = await asyncio.to_thread(slow.read_frame)
            assert (opcode, len(payload) > len(BIG)) == (1, True)
            await asyncio.sleep(1.3 * SEND_TIMEOUT / SLOW_PROMPTS)
        assert holder_of(world.chatdb, session) is not None


async def test_who_does_not_answer_a_ping_is_closed(pinging: Gateway, world: World) -> None:
    """There is no second ping: then the session is no longer connected."""
    with RawSocket(pinging) as mute:
        session = mute.handshake()
        frames = await asyncio.to_thread(mute.read_until_cut)
        assert [opcode for opcode, _ in frames if opcode != CLOSE] == [PING]
        await become(lambda: holder_of(world.chatdb, session) is None)


async def test_who_does_not_even_read_the_ping_is_gone_in_the_end(pinging: Gateway, world: World) -> None:
    """What waits for it is too little to hold up a sender: only the pings can find out."""
    with RawSocket(pinging, receive_buffer=2048) as deaf:
        session = deaf.handshake()
        with suppress(ConnectionError):  # it may be gone before it has sent all of it
            for _ in range(60):
                deaf.send_json({"message_id": new_id(), "message": "가" * 4000})
                await asyncio.sleep(0.02)
        await become(lambda: holder_of(world.chatdb, session) is None, what="the session has ended")


async def answer_pings(client: RawSocket, count: int) -> None:
    for _ in range(count):
        opcode, payload = await asyncio.to_thread(client.read_frame)
        assert opcode == PING
        client.send_frame(PONG, payload)


async def test_who_answers_pings_is_kept(pinging: Gateway, world: World) -> None:
    """An idle visitor, and one whose prompts wait for a slow answer: the socket is read all the time."""
    query = unique("느린 질문")
    held = Held(answer("느린 답"))
    world.llm.on(query, held)
    with RawSocket(pinging) as idle, RawSocket(pinging) as waiting:
        session = idle.handshake()
        waiting.handshake()
        ids = [new_id() for _ in range(5)]
        for message_id in ids:
            waiting.send_json({"message_id": message_id, "message": query})
        await asyncio.gather(answer_pings(idle, 3), answer_pings(waiting, 3))
        assert holder_of(world.chatdb, session) is not None
        held.release()
        answered = 0
        while answered < len(ids):
            opcode, payload = await asyncio.to_thread(waiting.read_frame)
            if opcode == PING:
                waiting.send_frame(PONG, payload)
            else:
                assert ids[answered].encode() in payload
                answered += 1
