"""Connections to the databases that a middlebox forgets, which tells neither side."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.card_qna import FAQS
from tests.support.chat import visit
from tests.support.cluster import receive_all
from tests.support.gateway import Gateway
from tests.support.network import TcpProxy
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

DB_TIMEOUT = 60  # s: longer than a test waits
KEEP_ALIVE_SECONDS = 60
ESTABLISHED, KEEP_ALIVE_TIMER = "01", "02"


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def middlebox(world: World) -> Iterator[TcpProxy]:
    with TcpProxy(world.chatdb.server.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def gateway(world: World, middlebox: TcpProxy) -> Iterator[Gateway]:
    settings = {
        "DATABASE_URL": world.chatdb.url_at(middlebox.port),
        "FAQ_DATABASE_URL": world.card_qna.url_at(middlebox.port),
        "DB_TIMEOUT": str(DB_TIMEOUT),
    }
    with Gateway(world.settings | settings) as gateway:
        yield gateway


async def test_who_meets_a_dead_connection_is_served_by_another(gateway: Gateway, middlebox: TcpProxy) -> None:
    """Prompts, REST and the FAQ: each is answered on a new connection, and nothing waits for a time limit."""
    async with visit(gateway) as visitor, visit(gateway) as other:
        for one in (visitor, other):  # so that there are idle connections
            for _ in range(3):
                await one.prompt(unique("미리"))
        for one in (visitor, other):
            await receive_all(one, 3)
        for _ in range(2):
            middlebox.forget()
            await visitor.ask(unique("잊혔나요"))
            await other.ask(FAQS[0].question)
            assert len(visitor.history()) >= 8
            assert gateway.http.get("/api/qna/faq").status_code == 200
    await become(lambda: gateway.http.get("/api/health/ready").status_code == 200, what="it listens again")
    assert "failed" not in gateway.output()


def timers(port: int) -> list[tuple[str, float]]:
    """For each connection to or from a port, on this machine: the kind of its timer, and the seconds left."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, _, timer, *_ = line.split()
        if state == ESTABLISHED and f"{port:04X}" in (local[-4:], remote[-4:]):
            kind, left = timer.split(":")
            found.append((kind, int(left, 16) / 100))
    return found


async def test_no_connection_is_ever_idle_for_long(gateway: Gateway, middlebox: TcpProxy, world: World) -> None:
    """Both sides send a sign of life when nothing else is sent."""
    async with visit(gateway) as visitor:
        await visitor.ask(unique("안녕"))
    ours = "SELECT pid, client_port FROM pg_stat_activity WHERE datname = $1 AND query NOT LIKE '%client_port%'"
    clients = world.chatdb.fetch(ours, world.chatdb.name)
    assert clients

    def are_kept_alive() -> bool:
        proxied = timers(middlebox.port)
        served = [timer for client in clients for timer in timers(client["client_port"])]
        by_gateway = [left for kind, left in proxied if kind == KEEP_ALIVE_TIMER]
        by_server = [left for kind, left in served if kind == KEEP_ALIVE_TIMER]
        return bool(by_gateway and by_server) and max(by_gateway + by_server) <= KEEP_ALIVE_SECONDS

    await become(are_kept_alive, what="keep-alive on both sides")
