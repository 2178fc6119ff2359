"""So many sessions an instance takes, and no more."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.chat import Visitor, visit
from tests.support.gateway import Gateway
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World, unique

pytestmark = pytest.mark.anyio

SESSIONS = 5


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    """A gateway with room for a few."""
    with Gateway(world.settings | {"MAX_SESSIONS": str(SESSIONS)}) as gateway:
        yield gateway


async def refused(gateway: Gateway) -> int:
    """The status with which a handshake is refused; 101 if it is not."""
    try:
        async with gateway.connect():
            return 101
    except InvalidStatus as error:
        body = json.loads(error.response.body or b"")
        assert list(body) == ["detail"]
        assert isinstance(body["detail"], str)
        return error.response.status_code


async def test_the_handshake_of_one_session_too_many_is_503(gateway: Gateway) -> None:
    """The others go on, and when one leaves there is room again."""
    async with AsyncExitStack() as stack:
        visitors = [await stack.enter_async_context(visit(gateway)) for _ in range(SESSIONS)]
        assert await refused(gateway) == 503
        assert await refused(gateway) == 503
        for visitor in visitors:
            assert (await visitor.ask(unique("우리는 계속")))["sender"] == "bot"
        await visitors[0].leave()

        async def has_room() -> bool:
            return await refused(gateway) == 101

        await become(has_room, what="there is room again")


async def test_handshakes_at_the_same_moment_do_not_slip_through(world: World, new_gateway: NewGateway) -> None:
    """Forty at once, with room for ten: ten are accepted."""
    gateway = new_gateway(world, MAX_SESSIONS="10")
    async with AsyncExitStack() as stack:

        async def enter() -> Visitor | None:
            try:
                return await stack.enter_async_context(visit(gateway))
            except InvalidStatus as error:
                assert error.response.status_code == 503
                return None

        visitors = await asyncio.gather(*(enter() for _ in range(40)))
        assert sum(visitor is not None for visitor in visitors) == 10
