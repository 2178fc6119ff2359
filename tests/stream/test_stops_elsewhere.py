"""Stops cross instances, and outlive them."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.backends import Held, Stream, answer
from tests.support.cluster import Cluster, answers_of, kill_backends, locked
from tests.support.streams import STOPPED, Reader, Tap, delta, pieces, watching
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

LISTENING = "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"


async def stop(reader: Reader, message_id: str) -> None:
    """Stop a prompt."""
    await reader.visitor.send({"type": "stop", "message_id": message_id})


async def begin(world: World, reader: Reader, text: str = "여기까지") -> tuple[str, str, Tap]:
    """A prompt whose answer has begun: its id, its text, and the stream."""
    query, tap = unique("질문"), Tap()
    world.llm.on(query, tap)
    message_id = await reader.visitor.prompt(query)
    tap.send(delta(text))
    await reader.until_text(text, message_id)
    return message_id, query, tap


def contents(world: World, reader: Reader) -> list[str]:
    """The stored answers of a session."""
    return [row["content"] for row in answers_of(world.chatdb, reader.visitor.session_id)]


async def test_a_stop_reaches_the_instance_that_makes_the_answer(world: World, three: Cluster, reader: Reader) -> None:
    """From where the session has been resumed; what was shown there begins the answer."""
    message_id, _, tap = await begin(world, reader)
    async with watching(three[2], reader.visitor.session_id) as again:
        await again.until_text("여기까지")
        await stop(again, message_id)
        frame = await again.until_answer()
        assert (frame["message"], frame["stopped"]) == ("여기까지", True)
        await tap.abandoned()
        await again.visitor.nothing_pending()
    assert contents(world, reader) == ["여기까지"]


async def test_what_waits_in_line_elsewhere_is_stopped_there(world: World, three: Cluster, reader: Reader) -> None:
    """It is never asked, and the one before it goes on."""
    _, _, tap = await begin(world, reader)
    query = unique("둘째")
    second = await reader.visitor.prompt(query)
    await become(lambda: len(world.turns(reader.visitor.session_id)) == 2)
    async with watching(three[1], reader.visitor.session_id) as again:
        await stop(again, second)
        await again.until_text("여기까지")
        tap.end("여기까지와 끝")
        assert (await again.until_answer())["message"] == "여기까지와 끝"
        frame = await again.until_answer()
        assert (frame["message_id"], frame["message"], frame["stopped"]) == (second, STOPPED, True)
    assert not world.llm.calls_with(query=query)


async def test_a_stop_whose_word_is_lost_is_found(world: World, three: Cluster, reader: Reader) -> None:
    """The maker hears of nothing at that moment: it looks for itself."""
    message_id, _, tap = await begin(world, reader)
    await become(lambda: kill_backends(world.chatdb, LISTENING, 3) >= 3, what="three were there to be killed")
    world.chatdb.fetch('UPDATE "Turn" SET is_stopped = true WHERE prompt_id::text = $1', message_id)
    assert (await reader.until_answer())["message"] == "여기까지"
    await tap.abandoned()


async def test_stop_and_end_at_the_same_moment_on_two_instances(world: World, three: Cluster) -> None:
    """Again and again: what is sent is what is stored, once, and it is either of the two."""

    async def one() -> None:
        async with watching(three[0]) as reader:
            session_id = reader.visitor.session_id
            message_id, _, tap = await begin(world, reader)
            async with watching(three[1], session_id) as again:
                await again.until_text("여기까지")
                tap.end("여기까지와 끝")
                await stop(again, message_id)
                frame = await again.until_answer()
                assert frame["message"] == ("여기까지" if "stopped" in frame else "여기까지와 끝")
                assert contents(world, reader) == [frame["message"]]
                await again.visitor.nothing_pending()

    await asyncio.gather(*(one() for _ in range(20)))


@pytest.fixture
def own(new_world: NewWorld) -> Iterator[Cluster]:
    """Three instances that may be killed, of a world of their own."""
    with Cluster(new_world(), 3) as cluster:
        yield cluster


async def test_a_stop_outlives_the_instance_that_made_the_answer(own: Cluster) -> None:
    """Killed while the stopped answer is being stored: it is not asked again, and answered by the sentence."""
    world = own.world
    async with watching(own[0]) as reader:
        message_id, query, tap = await begin(world, reader)
        session_id = reader.visitor.session_id
    async with watching(own[1], session_id) as again:
        await again.until_text("여기까지")
        with locked(world.chatdb, "ChatbotResponse"):
            await stop(again, message_id)
            await tap.abandoned()
            await become(lambda: world.chatdb.value('SELECT bool_or(is_stopped) FROM "Turn"'))
            own[0].kill()
        frame = await again.until_answer()
        assert (frame["message"], frame["stopped"]) in ((STOPPED, True), ("여기까지", True))
        assert contents(world, again) == [frame["message"]]
        assert len(world.llm.calls_with(query=query)) == 1


async def test_a_stop_outlives_the_instance_that_received_it(own: Cluster) -> None:
    """Killed as soon as the stop is stored, also where the maker is killed as well: nobody asks again."""
    world = own.world
    async with watching(own[0]) as reader:
        message_id, query, tap = await begin(world, reader)
        session_id = reader.visitor.session_id
    async with watching(own[1], session_id) as again:
        await again.until_text("여기까지")
        await stop(again, message_id)
        await tap.abandoned()
        own[1].kill()
    await become(lambda: contents(world, again) == ["여기까지"])
    async with watching(own[2], session_id, "1970-01-01T00:00:00+00:00") as third:
        assert (await third.until_answer())["stopped"] is True
    assert len(world.llm.calls_with(query=query)) == 1


async def test_a_stopped_prompt_is_not_asked_by_who_takes_it_over(own: Cluster) -> None:
    """The maker is killed before it could hear of the stop: the text is lost, and the sentence is the answer."""
    world = own.world
    query = unique("질문")
    world.llm.on(query, Held(answer("늦은 답")))
    async with watching(own[0]) as reader:
        await reader.visitor.prompt(query)
        await world.llm.called(query=query)
        waiting = unique("둘째")
        await reader.visitor.prompt(waiting)
        await become(lambda: len(world.turns(reader.visitor.session_id)) == 2)
    own[0].process.send_signal(19)  # SIGSTOP: it hears nothing
    world.chatdb.execute('UPDATE "Turn" SET is_stopped = true')
    own[0].kill()
    await become(lambda: contents(world, reader) == [STOPPED, STOPPED])
    assert (len(world.llm.calls_with(query=query)), world.llm.calls_with(query=waiting)) == (1, [])


async def test_what_was_taken_over_can_be_stopped_by_who_watched_it(own: Cluster) -> None:
    """A session watches an answer elsewhere, whose maker is killed: the next attempt begins anew, and is stopped."""
    world = own.world
    async with watching(own[0]) as reader:
        message_id, query, _ = await begin(world, reader, "처음 것")
        session_id = reader.visitor.session_id
    async with watching(own[1], session_id) as again:
        await again.until_text("처음 것")
        world.llm.on(query, Stream([*pieces("새로 만든")[:-1]], then="hang"))
        own[0].kill()
        await again.until_text("새로 만든")
        assert [frame["attempt"] for frame in again.of_type("start")] == [1, 2]
        await stop(again, message_id)
        frame = await again.until_answer()
        assert (frame["message"], frame["stopped"]) == ("새로 만든", True)
        assert contents(world, again) == ["새로 만든"]
        assert len(world.llm.calls_with(query=query)) == 2
