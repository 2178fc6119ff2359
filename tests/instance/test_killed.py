"""kill -9: what an instance had in hand is taken up by one other, and answered once."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.support.backends import Held, answer
from tests.support.card_qna import FAQS
from tests.support.chat import Visitor, visit
from tests.support.cluster import (
    NOTICED_SIGNS,
    Cluster,
    SignsOfLife,
    Tally,
    answers_of,
    instance_ids,
    prompts_of,
    receive_all,
    resume,
    tally,
)
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

TIMEOUT_SENTENCE = "LLM 서버 통신 오류: 응답 시간이 초과되었습니다."


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def cluster(world: World) -> Iterator[Cluster]:
    """Instances of which each test kills one; `fresh` starts the next."""
    with Cluster(world) as cluster:
        yield cluster


@pytest.fixture
def fresh(cluster: Cluster) -> list[int]:
    """Places in the cluster of three living instances."""
    living = [n for n, gateway in enumerate(cluster.gateways) if gateway.process.running()]
    while len(living) < 3:
        cluster.launch().wait_until_healthy()
        living.append(len(cluster.gateways) - 1)
    return living


async def cut(visitor: Visitor) -> None:
    """The socket is gone, without a close frame."""
    with pytest.raises(ConnectionClosedError):
        await visitor.receive()


async def test_unanswered_prompts_are_taken_up_by_one_instance_in_time(cluster: Cluster, fresh: list[int]) -> None:
    """Within five seconds; of two survivors one asks the LLM server, once for each prompt, in their order."""
    killed, *survivors = (cluster[n] for n in fresh)
    llm, chatdb = cluster.world.llm, cluster.world.chatdb
    messages = [unique("죽은 뒤") for _ in range(3)]
    second = Held(answer("다시 물었습니다."))
    llm.on(messages[0], Held(answer("결코")), second)
    async with visit(killed) as visitor, visit(killed) as idle:
        ids = [await visitor.prompt(message) for message in messages]
        await llm.called(query=messages[0])
        await become(lambda: prompts_of(chatdb, visitor.session_id) == ids)
        killed.kill()
        signs = SignsOfLife(chatdb)
        await llm.called(query=messages[0], times=2)
        assert signs.shown <= NOTICED_SIGNS
        await cut(visitor)
        await cut(idle)
    async with resume(survivors[0], visitor.session_id) as again:
        second.release()
        frames = await receive_all(again, 3)
        assert [frame["message_id"] for frame in frames] == ids
        assert frames[0]["message"] == "다시 물었습니다."
        await again.nothing_pending()
    assert [len(llm.calls_with(query=message)) for message in messages] == [2, 1, 1]
    assert tally(chatdb, visitor.session_id) == Tally(3, 3, 0, 0)
    assert len(instance_ids(chatdb)) == 2


async def test_who_does_not_come_back_in_time_finds_the_answers_later(cluster: Cluster, fresh: list[int]) -> None:
    """The answers are made with nobody there, and replayed after `since`."""
    killed, *survivors = (cluster[n] for n in fresh)
    llm, chatdb = cluster.world.llm, cluster.world.chatdb
    messages = [unique("나중에 온 손님") for _ in range(2)]
    llm.on(messages[0], Held(answer("결코")), answer("다시"))
    async with visit(killed) as visitor:
        before = await visitor.ask(unique("먼저"))
        ids = [await visitor.prompt(message) for message in messages]
        await llm.called(query=messages[0])
        await become(lambda: len(prompts_of(chatdb, visitor.session_id)) == 3)
        killed.kill()
    await become(lambda: len(answers_of(chatdb, visitor.session_id)) == 3)
    async with resume(survivors[1], visitor.session_id, before["timestamp"]) as again:
        frames = await receive_all(again, 2)
        assert [frame["message_id"] for frame in frames] == ids
        await again.nothing_pending()
    assert [len(llm.calls_with(query=message)) for message in messages] == [2, 1]


async def test_a_prompt_sent_again_after_its_instance_was_killed_is_answered_once(
    cluster: Cluster, fresh: list[int]
) -> None:
    """The client's retry and the taking over are one turn, whichever comes first."""
    killed, *survivors = (cluster[n] for n in fresh)
    llm, chatdb = cluster.world.llm, cluster.world.chatdb
    message = unique("다시 보낸 질문")
    second = Held(answer("한 번"))
    llm.on(message, Held(answer("결코")), second)
    async with visit(killed) as visitor:
        message_id = await visitor.prompt(message)
        await llm.called(query=message)
        killed.kill()
        await cut(visitor)
    async with resume(survivors[0], visitor.session_id) as again:
        await again.prompt(message, message_id)
        await again.nothing_pending()
        await llm.called(query=message, times=2)
        await again.prompt(message, message_id)
        await again.nothing_pending()
        second.release()
        frame = await again.receive()
        assert (frame["message_id"], frame["message"]) == (message_id, "한 번")
        await again.nothing_pending()
        await again.prompt(message, message_id)
        assert await again.receive() == frame
    assert len(llm.calls_with(query=message)) == 2
    assert tally(chatdb, visitor.session_id) == Tally(1, 1, 0, 0)


async def test_an_answer_made_elsewhere_reaches_a_socket_that_moved_on(cluster: Cluster, fresh: list[int]) -> None:
    """One survivor makes the answer; the visitor, now on the other one, gets it, and new prompts wait for it."""
    killed, *survivors = (cluster[n] for n in fresh)
    llm, chatdb = cluster.world.llm, cluster.world.chatdb
    message, next_message = unique("옮긴 손님"), unique("다음 질문")
    second = Held(answer("다시"))
    llm.on(message, Held(answer("결코")), second)
    async with visit(killed) as visitor:
        first = await visitor.prompt(message)
        await llm.called(query=message)
        killed.kill()
        await cut(visitor)
    await llm.called(query=message, times=2)
    for survivor in survivors:
        async with resume(survivor, visitor.session_id) as again:
            await again.nothing_pending()
    async with resume(survivors[0], visitor.session_id) as again:
        then = await again.prompt(next_message)
        await become(lambda: prompts_of(chatdb, visitor.session_id) == [first, then])
        second.release()
        frames = await receive_all(again, 2)
        assert [frame["message_id"] for frame in frames] == [first, then]
        await again.nothing_pending()
    assert len(llm.calls_with(query=message)) == 2
    assert len(llm.calls_with(query=next_message)) == 1


async def test_a_single_instance_that_is_started_again_takes_up_its_own(new_world: NewWorld) -> None:
    """With no other instance there the next one does it: prompts younger than an hour are asked, older ones not."""
    world = new_world()
    messages = [unique("홀로") for _ in range(3)]
    old, cached = unique("어제의 질문"), FAQS[0].question
    for message in (messages[0], old):
        world.llm.on(message, Held(answer("결코")), answer(f"re: {message}"))
    with Cluster(world, 1) as cluster:
        (killed,) = cluster
        async with visit(killed) as visitor, visit(killed) as other:
            ids = [await visitor.prompt(message) for message in messages]
            old_id = await other.prompt(old)
            cached_id = await other.prompt(cached)
            await world.llm.called(query=messages[0])
            await world.llm.called(query=old)
            await become(lambda: tally(world.chatdb).prompts == 5)
            killed.kill()
        world.chatdb.fetch(
            'UPDATE "Chat" SET created_at = created_at - $2::interval WHERE session_id = $1::text::uuid',
            other.session_id,
            timedelta(minutes=61),
        )
        world.chatdb.fetch(
            'UPDATE "Chat" SET created_at = created_at - $2::interval WHERE id = $1::text::uuid',
            ids[0],
            timedelta(minutes=59),
        )
        restarted = cluster.launch()
        restarted.wait_until_healthy()
        signs = SignsOfLife(world.chatdb)
        await become(lambda: tally(world.chatdb) == Tally(5, 5, 0, 0))
        assert signs.shown <= NOTICED_SIGNS
        stored = answers_of(world.chatdb, visitor.session_id)
        assert [(row["message_id"], row["content"]) for row in stored] == [
            (id, f"re: {message}") for id, message in zip(ids, messages, strict=True)
        ]
        stored = answers_of(world.chatdb, other.session_id)
        assert [(row["message_id"], row["content"]) for row in stored] == [
            (old_id, TIMEOUT_SENTENCE),
            (cached_id, TIMEOUT_SENTENCE),
        ]
        assert len(world.llm.calls_with(query=old)) == 1
        assert instance_ids(world.chatdb) == [2]


async def test_answers_that_come_back_to_a_given_up_instance_are_not_stored_twice(
    cluster: Cluster, fresh: list[int]
) -> None:
    """An instance that was only silent and the one that took its turns both have an answer: one is stored and sent."""
    silent = cluster[fresh[0]]
    llm, chatdb = cluster.world.llm, cluster.world.chatdb
    message = unique("둘이 답한 질문")
    first, second = Held(answer("먼저 물은 쪽")), Held(answer("나중에 물은 쪽"))
    llm.on(message, first, second)
    async with visit(silent) as visitor:
        message_id = await visitor.prompt(message)
        await llm.called(query=message)
        holder = chatdb.value('SELECT instance_id FROM "Turn" WHERE prompt_id = $1::text::uuid', message_id)
        # As the others do it with an instance that shows no sign of life; it is back after its next one.
        while len(llm.calls_with(query=message)) < 2:
            chatdb.fetch('DELETE FROM "Instance" WHERE id = $1', holder)
            await become(
                lambda: holder in instance_ids(chatdb) or len(llm.calls_with(query=message)) > 1, what="it is back"
            )
        second.release()
        frame = await visitor.receive()
        assert (frame["message_id"], frame["message"]) == (message_id, "나중에 물은 쪽")
        first.release()
        await become(lambda: all(call.done for call in llm.calls_with(query=message)))
        await visitor.ask(unique("계속"))
        await visitor.nothing_pending()
    assert tally(chatdb, visitor.session_id) == Tally(2, 2, 0, 0)
