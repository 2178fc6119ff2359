"""Databases that lose their connections, stop, or stand still."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.ledger import Row, record, signs_of_life
from tests.faults.scale import SCALE
from tests.faults.visitors import Crowd, FrontEnd
from tests.support.cluster import Cluster, kill_backends
from tests.support.postgres import PostgresServer
from tests.support.waiting import PATIENCE_SECONDS, become
from tests.support.world import unique

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SCALE.seconds)]

# The backend that holds an instance's advisory lock is the one of its LISTEN connection.
LISTENING = "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"


async def test_every_database_connection_is_killed_under_load(cluster: Cluster) -> None:
    """Again and again, all connections to both databases: what was refused is taken when it is sent again."""
    async with Crowd(list(cluster), SCALE.talking) as crowd:
        crowd.talk()
        for _ in range(SCALE.rounds):
            await crowd.more_answers(SCALE.talking)
            assert await asyncio.to_thread(kill_backends, cluster.world.chatdb) > 0
            await asyncio.to_thread(kill_backends, cluster.world.card_qna)
        await crowd.more_answers()
        await crowd.finish()
        await record(f"every database connection killed, {SCALE.rounds} times", cluster, crowd.visitors)


async def outlive(fault: str, cluster: Cluster, begin: Callable[[], None], end: Callable[[], None]) -> Row:
    async with Crowd(list(cluster), SCALE.talking) as crowd:
        crowd.talk()
        await crowd.more_answers()
        await asyncio.to_thread(begin)
        for visitor in crowd.visitors[::2]:
            visitor.enough.set()  # the last thing that they see may be an answer that could not be stored yet
        try:
            await asyncio.sleep(SCALE.outage)
        finally:
            await asyncio.to_thread(end)
        await crowd.more_answers()
        await crowd.finish()
        await signs_of_life(cluster.world.chatdb, 2)
        return await record(f"{fault} for {SCALE.outage:g} s", cluster, crowd.visitors)


async def test_the_database_is_stopped(cluster: Cluster, server: PostgresServer) -> None:
    """Prompts are refused and sent again; answers that were on their way are kept until it is back."""
    row = await outlive("database stopped", cluster, server.stop, server.start)
    assert row.repeated > 0


async def test_the_database_stands_still(cluster: Cluster, server: PostgresServer) -> None:
    """Connections stay and nothing answers (SIGSTOP): what it had been told before is not done twice."""
    await outlive("database frozen (SIGSTOP)", cluster, server.freeze, server.thaw)


async def log_in_again_and_again(
    visitor: FrontEnd, cluster: Cluster, persona: int, done: asyncio.Event, logins: Counter[FrontEnd]
) -> None:
    """At instances that do not hold the socket, with a prompt between two logins."""
    others = itertools.cycle([gateway for gateway in cluster if gateway is not visitor.gateway])
    while not done.is_set():
        await visitor.ask(unique("로그인 사이"))
        async with next(others).async_http() as client:
            body = {"session_id": visitor.session_id, "persona_id": persona}
            response = await client.post("/api/login", json=body)
        assert response.status_code == 200, response.text
        logins[visitor] += 1
        await visitor.until_answered()


async def test_listen_connections_are_killed_while_logins_arrive(cluster: Cluster) -> None:
    """No push is missing and none comes twice, whatever the holder of the socket did not hear."""
    chatdb, logins = cluster.world.chatdb, Counter[FrontEnd]()
    personas = [row["id"] for row in chatdb.fetch('SELECT id FROM "Persona" ORDER BY id')]

    async def killed() -> bool:
        return await asyncio.to_thread(kill_backends, chatdb, LISTENING, 3) >= 3

    async with Crowd(list(cluster), SCALE.talking) as crowd:
        done = asyncio.Event()
        working = [
            asyncio.create_task(log_in_again_and_again(visitor, cluster, personas[n % 3], done, logins))
            for n, visitor in enumerate(crowd.visitors)
        ]
        for _ in range(SCALE.rounds):
            await crowd.more_answers(SCALE.talking)
            await become(killed, what="three LISTEN connections were there to be killed")
        await crowd.more_answers(SCALE.talking)
        done.set()
        await asyncio.gather(*working)
        await crowd.finish()
        for visitor in crowd.visitors:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await visitor.until(lambda visitor=visitor: len(visitor.pushes) >= logins[visitor])  # type: ignore[misc]
        await record(f"LISTEN connections killed {SCALE.rounds} times during logins", cluster, crowd.visitors, logins)
