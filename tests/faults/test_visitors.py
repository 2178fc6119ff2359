"""Visitors who leave, and one who never reads."""

import asyncio
import json

import pytest

from tests.faults.ledger import record
from tests.faults.scale import SCALE, SETTLED_SECONDS
from tests.faults.visitors import Crowd, FrontEnd
from tests.support.backends import Held, answer
from tests.support.chat import new_id
from tests.support.cluster import Cluster, answers_of, holder_of, tally
from tests.support.raw import RawSocket
from tests.support.waiting import become
from tests.support.world import World, unique

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SCALE.seconds)]

BIG = "가" * 150_000


async def test_visitors_leave_in_the_middle_of_their_answers(cluster: Cluster, world: World) -> None:
    """Whether they close or are cut off, their turns are finished and stored, and are there when they come back."""
    message = unique("떠나는 손님")
    held = Held(answer("남겨 둔 답"))
    world.llm.on(message, held)
    crowd = Crowd(list(cluster), SCALE.leaving)
    async with crowd:
        await asyncio.gather(*(visitor.ask(message) for visitor in crowd.visitors))
        await world.llm.called(query=message, times=SCALE.leaving, seconds=SETTLED_SECONDS)
        for n, visitor in enumerate(crowd.visitors):
            await visitor.leave(closing=n % 2 == 0)
        sessions = [str(visitor.session_id) for visitor in crowd.visitors]
        held.release()
        await become(lambda: tally(world.chatdb, *sessions).answers == SCALE.leaving, SETTLED_SECONDS)
        assert crowd.answered == 0
        for visitor in crowd.visitors:
            visitor.waiting.clear()  # nothing is sent again: the answers come by themselves
            visitor.come()
        await become(lambda: crowd.answered == SCALE.leaving, SETTLED_SECONDS)
        await record(f"{SCALE.leaving} visitors leave in the middle of their answers", cluster, crowd.visitors)


async def test_a_client_never_reads(cluster: Cluster, world: World) -> None:
    """It is dropped, nobody else waits for it, its turns go on, and it finds its answers when it comes back."""
    message = unique("큰 답")
    world.llm.on(message, answer(BIG))
    gateway = cluster[0]
    async with Crowd([gateway], SCALE.talking // 3) as crowd:
        crowd.talk()
        with RawSocket(gateway, receive_buffer=4096) as deaf:
            back = FrontEnd([gateway], session_id=deaf.handshake())
            for message_id in (new_id() for _ in range(SCALE.deaf_prompts)):
                deaf.send_json({"message_id": message_id, "message": message})
                back.sent[message_id] += 1

            async def dropped() -> bool:
                return await asyncio.to_thread(holder_of, world.chatdb, str(back.session_id)) is None

            before = crowd.answered
            await become(dropped, what="it is dropped")
            assert crowd.answered > before, "nobody else waits"
        await become(lambda: len(answers_of(world.chatdb, str(back.session_id))) == SCALE.deaf_prompts, SETTLED_SECONDS)
        await crowd.more_answers()
        await crowd.finish()
        back.come()
        async with asyncio.timeout(SETTLED_SECONDS):
            await back.until(lambda: len(back.answers) == SCALE.deaf_prompts)
        crowd.visitors.append(back)
        assert [frame["message_id"] for frame in back.answers] == list(back.sent)
        await record("a client never reads", cluster, crowd.visitors)
    assert len(json.dumps(back.answers[0], ensure_ascii=False)) > len(BIG)
