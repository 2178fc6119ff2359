"""Answers come once, where the session is, in the order of the prompts, whichever instances make them."""

import asyncio
from itertools import pairwise

import pytest

from tests.support.backends import Held, answer
from tests.support.chat import visit
from tests.support.cluster import Cluster, answers_of, holder_of, prompts_of, receive_all, resume, until_closed
from tests.support.waiting import become
from tests.support.world import unique

pytestmark = pytest.mark.anyio

TAKEN_OVER = 4001


async def test_a_running_answer_is_delivered_where_the_session_is(three: Cluster) -> None:
    """Left in mid-turn, resumed on every instance in turn: the answer comes to the last one, once."""
    message = unique("오래 걸리는 질문")
    held = Held(answer("드디어"))
    three.world.llm.on(message, held)
    async with visit(three[0]) as visitor:
        before = await visitor.ask(unique("먼저"))
        message_id = await visitor.prompt(message)
        await three.world.llm.called(query=message)
    async with resume(three[1], visitor.session_id, before["timestamp"]) as second:
        await second.nothing_pending()
        async with resume(three[2], visitor.session_id, before["timestamp"]) as third:
            await third.nothing_pending()
            held.release()
            frame = await third.receive()
            assert (frame["message_id"], frame["message"]) == (message_id, "드디어")
            await third.nothing_pending()
        assert (await until_closed(second.socket))[:2] == ([], TAKEN_OVER)


async def test_a_turn_goes_on_when_its_visitor_leaves(three: Cluster) -> None:
    """All prompts that were taken are answered and stored, and replayed in order to who comes back."""
    messages = [unique("떠나며") for _ in range(4)]
    held = Held(answer("나중에"))
    three.world.llm.on(messages[0], held)
    async with visit(three[0]) as visitor:
        before = await visitor.ask(unique("먼저"))
        ids = [await visitor.prompt(message) for message in messages]
        await three.world.llm.called(query=messages[0])
        await become(lambda: len(prompts_of(three.world.chatdb, visitor.session_id)) == 5)
    held.release()
    await become(lambda: len(answers_of(three.world.chatdb, visitor.session_id)) == 5)
    async with resume(three[1], visitor.session_id, before["timestamp"]) as again:
        frames = await receive_all(again, 4)
        assert [frame["message_id"] for frame in frames] == ids
        await again.nothing_pending()


async def test_prompts_after_a_resume_wait_for_the_answers_made_elsewhere(three: Cluster) -> None:
    """Answers come in the order of the prompts, also when two instances make them."""
    slow, quick = unique("느린 질문"), unique("빠른 질문")
    held = Held(answer("느린 답"))
    three.world.llm.on(slow, held)
    async with visit(three[0]) as visitor:
        first = await visitor.prompt(slow)
        await three.world.llm.called(query=slow)
    async with resume(three[1], visitor.session_id) as again:
        second = await again.prompt(quick)
        await become(lambda: prompts_of(three.world.chatdb, visitor.session_id) == [first, second])
        await again.nothing_pending()
        assert not three.world.llm.calls_with(query=quick)
        held.release()
        frames = await receive_all(again, 2)
        assert [frame["message_id"] for frame in frames] == [first, second]
        assert frames[0]["timestamp"] < frames[1]["timestamp"]


async def test_prompts_after_a_resume_wait_also_when_their_visitor_leaves_again(three: Cluster) -> None:
    """Answers are stored in the order of the prompts, whoever is there to see them."""
    slow, quick = unique("느린 질문"), unique("빠른 질문")
    held = Held(answer("느린 답"))
    three.world.llm.on(slow, held)
    async with visit(three[0]) as visitor:
        first = await visitor.prompt(slow)
        await three.world.llm.called(query=slow)
    async with resume(three[1], visitor.session_id) as again:
        second = await again.prompt(quick)
        await become(lambda: prompts_of(three.world.chatdb, visitor.session_id) == [first, second])
    await become(lambda: holder_of(three.world.chatdb, visitor.session_id) is None)
    async with resume(three[2], visitor.session_id) as last:
        third = await last.prompt(unique("셋째 질문"))
        await become(lambda: prompts_of(three.world.chatdb, visitor.session_id) == [first, second, third])
        await last.nothing_pending()
        assert not three.world.llm.calls_with(query=quick)
        held.release()
        frames = await receive_all(last, 3)
        assert [frame["message_id"] for frame in frames] == [first, second, third]
    stored = [row["message_id"] for row in answers_of(three.world.chatdb, visitor.session_id)]
    assert stored == [first, second, third]


async def test_prompts_wait_when_the_session_goes_back_to_where_it_was(three: Cluster) -> None:
    """Three slow turns on two instances, the visitor going to and fro: the order of the prompts is kept."""
    messages = [unique("왔다 갔다") for _ in range(4)]
    held = [Held(answer(f"답 {n}")) for n in range(4)]
    for message, reply in zip(messages, held, strict=True):
        three.world.llm.on(message, reply)
    async with visit(three[0]) as visitor:
        ids = [await visitor.prompt(messages[0])]
        await three.world.llm.called(query=messages[0])
    for n in (1, 2):
        async with resume(three[n % 2], visitor.session_id) as again:
            ids.append(await again.prompt(messages[n]))
            await become(lambda: len(prompts_of(three.world.chatdb, visitor.session_id)) == len(ids))
    for reply in reversed(held):
        reply.release()
    async with resume(three[1], visitor.session_id, "1970-01-01T00:00:00+00:00") as again:
        ids.append(await again.prompt(messages[3]))
        frames = await receive_all(again, 4)
        assert [frame["message_id"] for frame in frames] == ids
        assert [frame["message"] for frame in frames] == [f"답 {n}" for n in range(4)]


async def test_timestamps_grow_strictly_when_pushes_and_answers_cross(three: Cluster) -> None:
    """Answers made here and pushes made on two other instances at the same moments come in the order of their times.

    Nothing is missing, nothing comes twice, and what came is what the database has.
    """
    session_turns = 30
    personas = three[0].http.get("/api/chat/personas").json()["personas"]
    async with visit(three[0], max_queue=None) as visitor:

        async def log_in(n: int) -> int:
            async with three[1 + n % 2].async_http() as client:
                body = {"session_id": visitor.session_id, "persona_id": personas[n % 3]["id"]}
                return (await client.post("/api/login", json=body)).status_code

        logins = [asyncio.create_task(log_in(n)) for n in range(20)]
        frames = [await visitor.receive()]
        for _ in range(session_turns):
            message_id = await visitor.prompt(unique("엇갈림"))
            while frames[-1]["message_id"] != message_id:
                frames.append(await visitor.receive())
        assert {await login for login in logins} == {200}
        while len(frames) < session_turns + 20:
            frames.append(await visitor.receive())
        await visitor.nothing_pending()
    assert all(one["timestamp"] < two["timestamp"] for one, two in pairwise(frames))
    stored = answers_of(three.world.chatdb, visitor.session_id)
    assert [row["created_at"].isoformat(timespec="microseconds") for row in stored] == [
        frame["timestamp"] for frame in frames
    ]
    assert [row["message_id"] for row in stored] == [frame["message_id"] for frame in frames]


async def test_since_never_skips_an_answer_while_pushes_and_answers_cross(three: Cluster) -> None:
    """A visitor who is thrown from instance to instance in the middle of it all sees each answer once, in order."""
    personas = three[0].http.get("/api/chat/personas").json()["personas"]
    async with visit(three[0]) as visitor:
        frames = [await visitor.ask(unique("시작"))]
    session = visitor.session_id
    stopped = asyncio.Event()
    logins: list[int] = []

    async def log_in(n: int) -> None:
        async with three[n].async_http() as client:
            while not stopped.is_set():
                body = {"session_id": session, "persona_id": personas[n]["id"]}
                if (await client.post("/api/login", json=body)).status_code == 200:  # not 404: between two sockets
                    logins.append(n)

    working = [asyncio.create_task(log_in(n)) for n in range(3)]
    prompts = 0
    for n in range(12):
        async with resume(three[n % 3], session, frames[-1]["timestamp"], max_queue=None) as again:
            await again.prompt(unique("던져짐"))
            prompts += 1
            frames.extend([await again.receive() for _ in range(4)])
            if n == 11:
                stopped.set()
                await asyncio.gather(*working)
                while len(frames) < 1 + prompts + len(logins):
                    frames.append(await again.receive())
                await again.nothing_pending()
    assert all(one["timestamp"] < two["timestamp"] for one, two in pairwise(frames))
    stored = answers_of(three.world.chatdb, session)
    assert [row["message_id"] for row in stored] == [frame["message_id"] for frame in frames]
