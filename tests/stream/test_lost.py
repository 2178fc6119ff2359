"""Instances that are killed, stopped, or given up while they make an answer that is watched."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.backends import Held, Stream
from tests.support.cluster import Cluster, answers_of, holder_of
from tests.support.streams import Tap, delta, pieces, watching
from tests.support.waiting import become
from tests.support.world import NewWorld, unique

pytestmark = pytest.mark.anyio

DRAIN_SECONDS = 1.5


@pytest.fixture
def own(new_world: NewWorld) -> Iterator[Cluster]:
    """Three instances that may be harmed, and are soon out of patience when told to stop."""
    with Cluster(new_world(), 3, DRAIN_SECONDS=str(DRAIN_SECONDS)) as cluster:
        yield cluster


@pytest.mark.parametrize("is_watched", [False, True])
async def test_the_next_attempt_after_a_kill_begins_anew(own: Cluster, is_watched: bool) -> None:
    """Whether its visitor watches on another instance or comes back afterwards."""
    world, query = own.world, unique("질문")
    held = Held(Stream(pieces("새로 만든 답")))
    world.llm.on(query, Stream([delta("처음 것")], then="hang"), held)
    async with watching(own[0]) as reader:
        message_id = await reader.visitor.prompt(query)
        await reader.until_text()
        session_id = reader.visitor.session_id
    if not is_watched:
        own[0].kill()
    async with watching(own[1], session_id) as again:
        if is_watched:
            await again.until_text("처음 것")
            own[0].kill()
        await again.until(lambda: {"type": "start", "message_id": message_id, "attempt": 2} in again.frames)
        held.release()
        assert (await again.until_answer())["message"] == "새로 만든 답"
        assert "새로 만든 답".startswith(again.text())
        await again.visitor.nothing_pending()
    assert len(answers_of(world.chatdb, session_id)) == 1


async def test_an_instance_that_was_given_up_mixes_nothing_in(own: Cluster) -> None:
    """It stood still, another makes the answer, and it goes on with its own: that is seen by nobody."""
    world, query, first, second = own.world, unique("질문"), Tap(), Tap()
    world.llm.on(query, first, second)
    async with watching(own[0]) as reader:
        await reader.visitor.prompt(query)
        first.send(delta("처음 것"))
        await reader.until_text("처음 것")
        session_id = reader.visitor.session_id
    async with watching(own[1], session_id) as again:
        await again.until_text("처음 것")
        maker = world.chatdb.value('SELECT instance_id FROM "Turn"')
        os.kill(own[0].process.pid, signal.SIGSTOP)
        try:
            world.chatdb.fetch('DELETE FROM "Instance" WHERE id = $1', maker)
            await second.called()
            second.send(delta("새로 "))
            await again.until_text("새로 ")
        finally:
            os.kill(own[0].process.pid, signal.SIGCONT)
        first.send(delta(" 첫째는 잊어라"))
        second.send(delta("만든 답"))
        await again.until_text("새로 만든 답")
        first.send(delta(" 정말"))
        second.end("새로 만든 답.")
        assert (await again.until_answer())["message"] == "새로 만든 답."
        first.end("처음 것 첫째는 잊어라 정말")
        await become(lambda: world.llm.calls_with(query=query)[0].done)
        await again.visitor.nothing_pending()
        attempts = [frame["attempt"] for frame in again.frames if "attempt" in frame]
        assert attempts == sorted(attempts)
        assert not any("첫째는" in frame.get("text", "") for frame in again.frames)
    assert [row["content"] for row in answers_of(world.chatdb, session_id)] == ["새로 만든 답."]


async def test_a_socket_of_an_instance_that_was_given_up_sees_the_answer_that_is_stored(own: Cluster) -> None:
    """Its visitor never left: what another made and stored first is the answer, and no delta comes behind it."""
    world, query, first, second = own.world, unique("질문"), Tap(), Tap()
    world.llm.on(query, first, second)
    async with watching(own[0]) as reader:
        await reader.visitor.prompt(query)
        first.send(delta("처음 것"))
        await reader.until_text("처음 것")
        session_id = reader.visitor.session_id
        holder = holder_of(world.chatdb, session_id)
        os.kill(own[0].process.pid, signal.SIGSTOP)
        try:
            world.chatdb.fetch('DELETE FROM "Instance" WHERE id = $1', holder)
            world.chatdb.fetch('UPDATE "ChatSession" SET instance_id = NULL, ended_at = now()')
            await second.called()
            second.end("새로 만든 답")
            await become(lambda: answers_of(world.chatdb, session_id))
        finally:
            os.kill(own[0].process.pid, signal.SIGCONT)
        assert (await reader.until_answer())["message"] == "새로 만든 답"
        first.send(delta(" 그리고 더"))
        await reader.visitor.nothing_pending()
        first.end("처음 것 그리고 더")
        await reader.visitor.prompt(unique("다음"))
        assert (await reader.until_answer())["message"].startswith("re: ")


async def test_an_instance_that_is_told_to_stop_shows_the_rest(own: Cluster) -> None:
    """What it finishes in its time is shown to the end, here and elsewhere, and then its sockets are closed."""
    world, queries, taps = own.world, [unique("질문") for _ in range(2)], [Tap(), Tap()]
    for query, tap in zip(queries, taps, strict=True):
        world.llm.on(query, tap)
        tap.send(delta("반"))
    async with watching(own[0]) as here, watching(own[0]) as moving:
        for reader, query in zip((here, moving), queries, strict=True):
            await reader.visitor.prompt(query)
            await reader.until_text("반")
        async with watching(own[1], moving.visitor.session_id) as there:
            await there.until_text("반")
            own[0].process.send_signal(signal.SIGTERM)
            await become(lambda: "stopping" in own[0].output())
            for tap in taps:
                tap.send(delta("과 반"))
            for reader in (here, there):
                await reader.until_text("반과 반")
            for tap in taps:
                tap.end("반과 반.")
            for reader in (here, there):
                assert (await reader.until_answer())["message"] == "반과 반."
            await here.visitor.socket.wait_closed()
            assert here.visitor.socket.close_code == 1012
    own[0].wait()
    assert [len(world.llm.calls_with(query=query)) for query in queries] == [1, 1]


async def test_what_is_not_finished_in_time_is_handed_over(own: Cluster) -> None:
    """The next attempt is another's, and begins anew for who watches it there."""
    world, query = own.world, unique("질문")
    first, second = Tap(), Tap()
    world.llm.on(query, first, second)
    async with watching(own[0]) as reader:
        await reader.visitor.prompt(query)
        first.send(delta("처음 것"))
        await reader.until_text("처음 것")
        own[0].process.send_signal(signal.SIGTERM)
        await reader.visitor.socket.wait_closed()
        assert reader.visitor.socket.close_code == 1012
    async with watching(own[1], reader.visitor.session_id) as again:
        await second.called()
        second.send(delta("새로"))
        await again.until_text("새로")
        second.end("새로 만든 답")
        assert (await again.until_answer())["message"] == "새로 만든 답"
    await first.abandoned()
    assert [row["content"] for row in answers_of(world.chatdb, reader.visitor.session_id)] == ["새로 만든 답"]
