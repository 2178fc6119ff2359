"""A machine that is lost: nobody closes its connections, and its lock stays held."""

import os
import signal

import pytest

from tests.support.backends import Held, answer
from tests.support.chat import visit
from tests.support.cluster import Cluster, SignsOfLife, Tally, holder_of, instance_ids, persona_id, resume, tally
from tests.support.waiting import become
from tests.support.world import NewWorld, unique

pytestmark = pytest.mark.anyio

# Signs of life of the others, one a second: so many go by before it may be taken for lost, and before it has to be.
SILENT_SIGNS, LOST_SIGNS = 10, 30


async def test_its_sessions_stop_counting_and_its_turns_are_answered_within_thirty_seconds(new_world: NewWorld) -> None:
    """One instance takes over; when the machine comes back after all, nothing is answered or sent twice."""
    world = new_world()
    with Cluster(world, 3) as cluster:
        lost, *others = cluster
        message = unique("사라진 서버")
        first, second = Held(answer("너무 늦은 답")), Held(answer("다른 곳에서"))
        world.llm.on(message, first, second)
        async with visit(lost) as visitor, visit(lost) as idle:
            message_id = await visitor.prompt(message)
            await world.llm.called(query=message)
            holder = holder_of(world.chatdb, visitor.session_id)
            os.kill(lost.process.pid, signal.SIGSTOP)
            try:
                signs = SignsOfLife(world.chatdb)
                await world.llm.called(query=message, times=2, seconds=2 * LOST_SIGNS)
                assert SILENT_SIGNS < signs.shown < LOST_SIGNS
                assert holder not in instance_ids(world.chatdb)
                for gateway in others:
                    assert persona_id(gateway, idle.session_id)[0] == 404
                moved = resume(others[0], visitor.session_id)
                again = await moved.__aenter__()
                second.release()
                frame = await again.receive()
                assert (frame["message_id"], frame["message"]) == (message_id, "다른 곳에서")
            finally:
                os.kill(lost.process.pid, signal.SIGCONT)
            first.release()
            await visitor.socket.wait_closed()
            assert visitor.socket.close_code == 4001
            await become(lambda: holder in instance_ids(world.chatdb), what="it is back")
            await again.ask(unique("이어서"))
            await moved.__aexit__(None, None, None)
        assert len(world.llm.calls_with(query=message)) == 2
        assert tally(world.chatdb) == Tally(2, 2, 0, 0)
