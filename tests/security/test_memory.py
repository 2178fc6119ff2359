"""What sessions took is there again when they have gone."""

import asyncio
from collections.abc import Iterator

import psutil
import pytest

from tests.support.chat import new_id
from tests.support.gateway import Gateway
from tests.support.raw import RawSocket
from tests.support.waiting import become
from tests.support.world import NewWorld, World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

CROWD, AT_ONCE = 1200, 40


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture
def gateway(world: World) -> Iterator[Gateway]:
    """As docs/operations.md has it for those to whom memory is dear."""
    with Gateway(world.settings | {"PYTHONMALLOC": "malloc"}, start="python") as gateway:
        yield gateway


def resident(gateway: Gateway) -> int:
    return int(psutil.Process(gateway.process.pid).memory_info().rss)


async def come_and_go(gateway: Gateway, before: int) -> None:
    """A crowd comes, each asks something, and all go."""

    def one() -> RawSocket:
        client = RawSocket(gateway)
        client.handshake()
        client.send_json({"message_id": new_id(), "message": "안녕하세요"})
        client.read_frame()
        return client

    at_once = asyncio.Semaphore(AT_ONCE)

    async def come() -> RawSocket:
        async with at_once:
            return await asyncio.to_thread(one)

    crowd = await asyncio.gather(*(come() for _ in range(CROWD)))
    await become(lambda: resident(gateway) > 1.5 * before, what="so many that it shows")
    await asyncio.sleep(1.5)  # they have been counted, once a second
    for client in crowd:
        client.close()


async def test_a_crowd_that_has_gone_leaves_little_behind(gateway: Gateway, world: World) -> None:
    before = resident(gateway)
    await come_and_go(gateway, before)
    await become(lambda: resident(gateway) < 1.5 * before, what="the memory is given back")
    open_sessions = 'SELECT count(*) FROM "ChatSession" WHERE instance_id IS NOT NULL'
    assert world.chatdb.value(open_sessions) == 0
