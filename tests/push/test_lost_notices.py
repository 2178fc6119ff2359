"""Notices that PostgreSQL refuses or nobody hears: what they would have told is found by other means."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.support.backends import recommendation
from tests.support.chat import visit
from tests.support.cluster import Cluster, resume
from tests.support.gateway import Gateway
from tests.support.network import TcpProxy
from tests.support.postgres import PostgresServer
from tests.support.waiting import become, eventually
from tests.support.world import NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio

FOUND_SECONDS = 5 + 5  # the five that are promised, and as many for a busy machine


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> Iterator[World]:
    """On a server of its own, whose queue of notices is as short as it can be."""
    server = PostgresServer(options={"max_notify_queue_pages": "64"})
    yield new_world(chatdb=server.database())
    server.close()


@pytest.fixture(scope="module")
def listen(world: World) -> Iterator[TcpProxy]:
    """The way of the LISTEN connections."""
    with TcpProxy(world.chatdb.server.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def cluster(world: World, listen: TcpProxy) -> Iterator[Cluster]:
    with Cluster(world, 2, LISTEN_DATABASE_URL=world.chatdb.url_at(listen.port)) as cluster:
        add_personas(world.chatdb, "김하늘")
        yield cluster


@asynccontextmanager
async def full_queue(world: World) -> AsyncIterator[None]:
    """Somebody listens in a transaction that does not end, and others say much."""
    listener = await asyncpg.connect(world.chatdb.url)
    speaker = await asyncpg.connect(world.chatdb.url)
    try:
        await listener.execute("LISTEN anything")
        await listener.execute("BEGIN; SELECT 1")
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            while True:
                await speaker.execute("SELECT pg_notify('anything', repeat('x', 7900))")
        yield
    finally:
        await listener.close()
        await speaker.close()


def unwell(gateway: Gateway) -> dict[str, Any]:
    """The status of readiness, and the reasons of what is not well."""
    response = gateway.http.get("/api/health/ready")
    reasons = {name: part["reason"] for name, part in response.json()["checks"].items() if not part["ok"]}
    return {"status": response.status_code} | reasons


async def reaches_visitors_in_time(cluster: Cluster) -> None:
    """A push for a session on another instance, and an older socket there that is to be closed."""
    here, there = cluster
    async with visit(here) as visitor, visit(here) as older:
        await visitor.ask(unique("안녕하세요"))
        cluster.world.mcp.on_session(visitor.session_id, recommendation("추천입니다."))
        async with there.async_http() as client:
            body = {"session_id": visitor.session_id, "persona_id": 1}
            assert (await client.post("/api/login", json=body)).status_code == 200
        assert (await visitor.receive(FOUND_SECONDS))["message"] == "추천입니다."
        async with resume(there, older.session_id):
            await asyncio.wait_for(older.socket.wait_closed(), FOUND_SECONDS)
            assert older.socket.close_code == 4001
        await visitor.nothing_pending()


async def test_with_a_full_queue_of_notices_sessions_are_found_and_readiness_shows_it(
    cluster: Cluster, world: World
) -> None:
    """No instance is taken out for that: each is as good as the others."""
    async with full_queue(world):
        for gateway in cluster:
            await become(lambda gateway=gateway: "notices" in unwell(gateway), what="readiness shows it")  # type: ignore[misc]
            assert unwell(gateway)["status"] == 200
            assert "NOTIFY" in unwell(gateway)["notices"]
        await reaches_visitors_in_time(cluster)
    for gateway in cluster:
        await become(lambda gateway=gateway: unwell(gateway) == {"status": 200}, what="all is well again")  # type: ignore[misc]


async def test_while_the_listen_connection_is_lost_sessions_are_found(cluster: Cluster, listen: TcpProxy) -> None:
    await asyncio.to_thread(listen.cut)
    try:
        await reaches_visitors_in_time(cluster)
    finally:
        await asyncio.to_thread(listen.mend)
    eventually(lambda: unwell(cluster[0])["status"] == 200, what="it listens again")
