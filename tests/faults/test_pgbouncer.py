"""Behind PgBouncer in transaction mode, with LISTEN on a direct address and without prepared statements."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.pgbouncer import POOL, PgBouncer, need_pgbouncer
from tests.faults.visitors import Crowd
from tests.support.backends import CallBack, Held, answer, recommendation
from tests.support.card_qna import build_card_qna
from tests.support.chat import visit
from tests.support.cluster import (
    NOTICED_SIGNS,
    Cluster,
    SignsOfLife,
    Tally,
    answers_of,
    connections,
    locked,
    persona_id,
    receive_all,
    resume,
    tally,
    waiting_for_locks,
)
from tests.support.postgres import PostgresServer
from tests.support.waiting import become
from tests.support.world import World, add_personas, unique

pytestmark = pytest.mark.anyio

INSTANCES = 2
VISITORS = 16
ANSWERS = 160


@pytest.fixture(scope="module")
def pooler(server: PostgresServer) -> Iterator[PgBouncer]:
    with need_pgbouncer(server) as pooler:
        yield pooler


@pytest.fixture(scope="module")
def pooled(server: PostgresServer, world: World, pooler: PgBouncer) -> Iterator[Cluster]:
    """Two instances behind it, with databases of their own, and a persona."""
    own = World(
        server.database(prefix="pooled"), build_card_qna(server.database(prefix="pooled")), world.llm, world.mcp
    )
    with Cluster(
        own,
        INSTANCES,
        DATABASE_URL=pooler.url(own.chatdb),
        FAQ_DATABASE_URL=pooler.url(own.card_qna),
        LISTEN_DATABASE_URL=own.chatdb.url,
        PREPARED_STATEMENTS="false",
        PROMPTS_PER_MINUTE="100000",
    ) as cluster:
        add_personas(own.chatdb, "김하늘")
        yield cluster


async def test_many_turns_at_once_share_a_few_connections(pooled: Cluster) -> None:
    """Statements of all visitors go through fewer connections than the instances believe to have, and none fails."""
    chatdb = pooled.world.chatdb
    async with Crowd(list(pooled), VISITORS) as crowd:
        crowd.talk()
        await crowd.more_answers(ANSWERS)
        assert connections(chatdb) <= POOL + INSTANCES
        await crowd.finish()
        sent = sum(len(visitor.sent) for visitor in crowd.visitors)
        assert tally(chatdb, *(str(visitor.session_id) for visitor in crowd.visitors)) == Tally(sent, sent, 0, 0)
        assert [max(visitor.sent.values()) for visitor in crowd.visitors] == [1] * VISITORS
    for gateway in pooled:
        assert "statement failed" not in gateway.output()
        assert "run again" not in gateway.output()


async def test_a_statement_that_waits_is_left_alone(pooled: Cluster) -> None:
    """PgBouncer's connections have numbers of their own: the server's ignorance of one says nothing about it."""
    async with visit(pooled[0]) as visitor:
        before = pooled[0].output().count("run again")
        with locked(pooled.world.chatdb, "Chat"):
            await visitor.prompt(message := unique("기다림"))
            await become(lambda: waiting_for_locks(pooled.world.chatdb), what="the prompt waits for the lock")
            signs = SignsOfLife(pooled.world.chatdb)
            await become(lambda: signs.shown >= 2, what="more than a second has passed")
        assert (await visitor.receive())["message"] == f"re: {message}"
        assert pooled[0].output().count("run again") == before


async def test_a_login_reaches_the_socket_on_the_other_instance(pooled: Cluster) -> None:
    """Word between the instances goes over the direct connections."""
    here, there = pooled
    persona = pooled.world.chatdb.value('SELECT id FROM "Persona"')
    async with visit(here) as visitor, there.async_http() as client:
        asked = CallBack(there.base_url, recommendation("추천입니다."))
        pooled.world.mcp.on_session(visitor.session_id, asked)
        response = await client.post("/api/login", json={"session_id": visitor.session_id, "persona_id": persona})
        assert response.status_code == 200
        assert asked.answers == [(200, {"persona_id": persona})]
        assert (await visitor.receive())["message"] == "추천입니다."
        await visitor.nothing_pending()


async def test_a_session_is_resumed_on_the_other_instance(pooled: Cluster) -> None:
    """What came after `since` is sent again, and an answer on its way follows the session."""
    here, there = pooled
    message = unique("옮겨 가는 질문")
    held = Held(answer("옮겨 온 답"))
    pooled.world.llm.on(message, held)
    async with visit(here) as visitor:
        first = await visitor.ask(unique("하나"))
        second = await visitor.ask(unique("둘"))
        third = await visitor.prompt(message)
        await pooled.world.llm.called(query=message)
        async with resume(there, visitor.session_id, first["timestamp"]) as again:
            assert await again.receive() == second
            held.release()
            assert (await again.receive())["message_id"] == third
            await again.nothing_pending()


async def test_a_killed_instance_is_replaced_by_the_other(pooled: Cluster) -> None:
    """kill -9: its lock, on the direct connection, is gone, and its turns are taken up within five seconds."""
    killed, other = pooled
    chatdb = pooled.world.chatdb
    messages = [unique("죽은 뒤") for _ in range(3)]
    second = Held(answer("다시 물었습니다."))
    pooled.world.llm.on(messages[0], Held(answer("결코")), second)
    async with visit(killed) as visitor:
        ids = [await visitor.prompt(message) for message in messages]
        await pooled.world.llm.called(query=messages[0])
        await become(lambda: tally(chatdb, visitor.session_id).prompts == 3)
        killed.kill()
        signs = SignsOfLife(chatdb)
        await pooled.world.llm.called(query=messages[0], times=2)
        assert signs.shown <= NOTICED_SIGNS
    async with resume(other, visitor.session_id) as again:
        second.release()
        frames = await receive_all(again, 3)
        assert [frame["message_id"] for frame in frames] == ids
        await again.nothing_pending()
    assert len(answers_of(chatdb, visitor.session_id)) == 3
    await asyncio.to_thread(killed.start)
    async with visit(killed) as visitor:
        assert persona_id(other, visitor.session_id) == (200, None)
