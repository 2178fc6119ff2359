"""Instances that are killed, or replaced one after the other."""

import asyncio

import pytest

from tests.faults.ledger import record
from tests.faults.scale import SCALE
from tests.faults.visitors import Crowd
from tests.support.backends import Held, answer
from tests.support.cluster import Cluster
from tests.support.world import World, unique

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SCALE.seconds)]


async def test_an_instance_is_killed_in_the_middle_of_its_answers(cluster: Cluster, world: World) -> None:
    """What it had in hand is answered by the others, once, and seen by visitors who have come back to them."""
    killed = cluster[0]
    async with Crowd([killed], SCALE.in_hand) as crowd:
        for visitor in crowd.visitors:
            visitor.turn_to(list(cluster)[1:])
        answered = SCALE.in_hand // 4
        messages = [unique("죽기 전") for _ in crowd.visitors]
        for message in messages[answered:]:
            world.llm.on(message, Held(answer("결코")), answer(f"re: {message}"))
        await asyncio.gather(*(visitor.ask(message) for visitor, message in zip(crowd.visitors, messages, strict=True)))
        await crowd.more_answers(answered)
        for message in messages[answered:]:
            await world.llm.called(query=message)
        killed.kill()
        await crowd.finish()
        await asyncio.to_thread(killed.start)
        await record(f"kill -9 in the middle of {SCALE.in_hand} answers", cluster, crowd.visitors)


async def test_instances_are_replaced_one_after_the_other_under_load(cluster: Cluster) -> None:
    """Each is told to stop, ends with status 0 and is started again, while visitors ask on."""
    async with Crowd(list(cluster), SCALE.talking) as crowd:
        crowd.talk()
        for gateway in cluster:
            await crowd.more_answers()
            assert await asyncio.to_thread(gateway.stop) == 0
            await asyncio.to_thread(gateway.start)
        await crowd.more_answers()
        await crowd.finish()
        await record("rolling restart of three instances", cluster, crowd.visitors)
