"""The same message_id again: one stored prompt, one answer, one call to the LLM server."""

import asyncio

import pytest

from tests.support.backends import Held, answer
from tests.support.chat import new_id, visit
from tests.support.cluster import Cluster, Tally, receive_all, resume, tally
from tests.support.waiting import become
from tests.support.world import unique

pytestmark = pytest.mark.anyio

ONE = Tally(prompts=1, answers=1, lost=0, doubled=0)
ALREADY_USED = "Invalid message: message_id is already used"


async def test_a_prompt_sent_again_while_it_is_answered_gets_the_one_answer(three: Cluster) -> None:
    """On the same socket, before the answer: nothing is asked or answered twice."""
    message, llm = unique("다시"), three.world.llm
    held = Held(answer("한 번"))
    llm.on(message, held)
    async with visit(three[0]) as visitor:
        message_id = await visitor.prompt(message)
        await llm.called(query=message)
        for _ in range(3):
            await visitor.prompt(message, message_id)
        await visitor.nothing_pending()
        held.release()
        assert (await visitor.receive())["message"] == "한 번"
        await visitor.nothing_pending()
        assert len(llm.calls_with(query=message)) == 1
        assert tally(three.world.chatdb, visitor.session_id) == ONE


async def test_a_prompt_sent_many_times_in_one_breath_is_one_prompt(three: Cluster) -> None:
    """Not even the first storing is waited for: still one prompt, one call and one answer."""
    message, llm = unique("한숨에"), three.world.llm
    async with visit(three[0]) as visitor:
        message_id = new_id()
        for _ in range(5):
            await visitor.prompt(message, message_id)
        assert (await visitor.receive())["message_id"] == message_id
        await become(lambda: tally(three.world.chatdb, visitor.session_id) == ONE)
        assert len(llm.calls_with(query=message)) == 1


async def test_a_prompt_sent_again_after_its_answer_gets_the_answer_again(three: Cluster) -> None:
    """On the same socket, after the answer: the stored answer comes again, as it was."""
    message, llm = unique("답한 뒤"), three.world.llm
    async with visit(three[0]) as visitor:
        first = await visitor.ask(message)
        await visitor.prompt(message, first["message_id"])
        assert await visitor.receive() == first
        await visitor.nothing_pending()
        assert len(llm.calls_with(query=message)) == 1
        assert tally(three.world.chatdb, visitor.session_id) == ONE


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same instance", "another instance"])
async def test_a_prompt_sent_again_after_a_resume_gets_the_running_answer(three: Cluster, elsewhere: bool) -> None:
    """The answer that is on its way comes once, to where the visitor is now."""
    message, llm = unique("돌아와서"), three.world.llm
    held = Held(answer("한 번"))
    llm.on(message, held)
    async with visit(three[0]) as visitor:
        message_id = await visitor.prompt(message)
        await llm.called(query=message)
    async with resume(three[1] if elsewhere else three[0], visitor.session_id) as again:
        await again.prompt(message, message_id)
        await again.nothing_pending()
        held.release()
        frame = await again.receive()
        assert (frame["message_id"], frame["message"]) == (message_id, "한 번")
        await again.nothing_pending()
    assert len(llm.calls_with(query=message)) == 1
    assert tally(three.world.chatdb, visitor.session_id) == ONE


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same instance", "another instance"])
async def test_a_prompt_sent_again_after_a_resume_gets_the_stored_answer(three: Cluster, elsewhere: bool) -> None:
    """What was answered before comes again, whichever instance answered it."""
    message, llm = unique("답을 받고 돌아와서"), three.world.llm
    async with visit(three[0]) as visitor:
        first = await visitor.ask(message)
    async with resume(three[1] if elsewhere else three[0], visitor.session_id) as again:
        await again.nothing_pending()
        await again.prompt(message, first["message_id"])
        assert await again.receive() == first
        await again.nothing_pending()
    assert len(llm.calls_with(query=message)) == 1
    assert tally(three.world.chatdb, visitor.session_id) == ONE


async def test_a_prompt_sent_again_on_every_instance_in_turn_is_asked_once(three: Cluster) -> None:
    """A visitor who is moved from instance to instance, and retries on each, gets one answer."""
    message, llm = unique("옮겨 다니며"), three.world.llm
    held = Held(answer("한 번"))
    llm.on(message, held)
    async with visit(three[0]) as visitor:
        message_id = await visitor.prompt(message)
        await llm.called(query=message)
    for n in range(1, 6):
        async with resume(three[n % 3], visitor.session_id) as again:
            await again.prompt(message, message_id)
            await again.nothing_pending()
    async with resume(three[0], visitor.session_id) as again:
        held.release()
        assert (await again.receive())["message_id"] == message_id
        await again.nothing_pending()
    assert len(llm.calls_with(query=message)) == 1
    assert tally(three.world.chatdb, visitor.session_id) == ONE


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same instance", "another instance"])
@pytest.mark.parametrize("running", [False, True], ids=["answered", "running"])
async def test_an_id_of_another_session_is_refused(three: Cluster, elsewhere: bool, running: bool) -> None:
    """Nobody gets, changes or stops another session's turn by its id, and nothing is asked for the refused prompt."""
    message, llm = unique("남의 질문"), three.world.llm
    held = Held(answer("내 답"))
    llm.on(message, held)
    if not running:
        held.release()
    async with visit(three[0]) as owner, visit(three[1] if elsewhere else three[0]) as stranger:
        message_id = await owner.prompt(message)
        await llm.called(query=message)
        if not running:
            await owner.receive()
        other = unique("훔치기")
        await stranger.prompt(other, message_id)
        assert await stranger.receive() == {"error": ALREADY_USED, "message_id": message_id}
        held.release()
        if running:
            assert (await owner.receive())["message"] == "내 답"
        await stranger.ask(unique("계속"))
        await owner.nothing_pending()
        assert not llm.calls_with(query=other)
        assert tally(three.world.chatdb, owner.session_id) == ONE
        assert tally(three.world.chatdb, stranger.session_id) == ONE


async def test_of_sessions_that_use_an_id_at_once_one_has_it(three: Cluster) -> None:
    """The same id from nine sockets on three instances at the same moment: one is answered, the others are refused."""
    message_id, message = new_id(), unique("동시에")
    sockets = [visit(three[n % 3]) for n in range(9)]
    visitors = [await socket.__aenter__() for socket in sockets]
    await asyncio.gather(*(visitor.prompt(message, message_id) for visitor in visitors))
    frames = [await visitor.receive() for visitor in visitors]
    assert [frame.get("error") for frame in frames].count(ALREADY_USED) == 8
    assert [frame.get("message") for frame in frames].count(f"re: {message}") == 1
    assert len(three.world.llm.calls_with(query=message)) == 1
    assert tally(three.world.chatdb, *(visitor.session_id for visitor in visitors)) == ONE
    for socket in sockets:
        await socket.__aexit__(None, None, None)


async def test_the_id_of_a_push_cannot_be_used_for_a_prompt(three: Cluster) -> None:
    """A prompt under the id of a push is answered with an error, not with silence."""
    async with visit(three[0]) as visitor:
        personas = three[0].http.get("/api/chat/personas").json()["personas"]
        login = {"session_id": visitor.session_id, "persona_id": personas[0]["id"]}
        assert three[1].http.post("/api/login", json=login).status_code == 200
        push = await visitor.receive()
        await visitor.prompt(unique("푸시의 번호로"), push["message_id"])
        assert await visitor.receive() == {"error": ALREADY_USED, "message_id": push["message_id"]}


async def test_ids_are_compared_as_uuids_whatever_their_case(three: Cluster) -> None:
    """An id in capitals is an id, and the same as in small letters."""
    message, message_id = unique("대문자"), new_id()
    async with visit(three[0]) as visitor:
        await visitor.prompt(message, message_id.upper())
        first = await visitor.receive()
        assert (first["message_id"].lower(), first["message"]) == (message_id, f"re: {message}")
        await visitor.prompt(message, message_id)
        assert await visitor.receive() == first
        assert tally(three.world.chatdb, visitor.session_id) == ONE


async def test_an_id_that_was_refused_for_its_text_can_be_used_again(three: Cluster) -> None:
    """A refused prompt leaves nothing behind: the corrected one is stored under the same id."""
    message_id = new_id()
    async with visit(three[0]) as visitor:
        await visitor.prompt("   ", message_id)
        assert (await visitor.receive())["message_id"] == message_id
        await visitor.prompt(unique("고친 질문"), message_id)
        assert (await visitor.receive())["message_id"] == message_id
        assert tally(three.world.chatdb, visitor.session_id) == ONE


async def test_all_answers_come_when_all_prompts_are_sent_twice(three: Cluster) -> None:
    """A client that repeats everything it is unsure of gets every answer, in order, and each turn is made once."""
    llm = three.world.llm
    messages = [unique("두 번씩") for _ in range(6)]
    ids = [new_id() for _ in messages]
    async with visit(three[2]) as visitor:
        for _ in range(2):
            for message, message_id in zip(messages, ids, strict=True):
                await visitor.prompt(message, message_id)
        frames = await receive_all(visitor, 6)
        firsts = list(dict.fromkeys(frame["message_id"] for frame in frames))
        assert firsts == ids[: len(firsts)]
        await become(lambda: tally(three.world.chatdb, visitor.session_id) == Tally(6, 6, 0, 0))
        assert all(len(llm.calls_with(query=message)) == 1 for message in messages)
