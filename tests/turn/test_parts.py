"""What befalls a turn between its prompt and its answer: the parts of one instance or two, at chosen moments."""

import asyncio
from datetime import timedelta

import pytest

from chat.answers import RETRY_SECONDS
from chat.frames import answer_row
from chat.qna import Qna
from common.errors import Refused
from common.ids import new_uuid
from tests.support.backends import Held, LlmStub, Reply, answer
from tests.support.card_qna import FAQS, TERMS
from tests.support.parts import Parts, parts
from tests.support.statements import ChatDb
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique
from upstream.replies import Answer

pytestmark = pytest.mark.anyio

DB_FAILED = "Internal Server Error: DB operation failed"
MALFORMED = "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."
TIMED_OUT = "LLM 서버 통신 오류: 응답 시간이 초과되었습니다."
STOPPED = "답변이 중지되었습니다."
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def world(new_world: NewWorld, db: ChatDb) -> World:
    return new_world()


def held(llm: LlmStub, reply: Reply | None = None) -> tuple[str, Held]:
    """A question whose answer is held back."""
    text = unique("느린 질문")
    holding = Held(reply or answer(f"re: {text}"))
    llm.on(text, holding)
    return text, holding


# An answer that another instance was first to store, or that cannot be stored


async def test_the_answer_of_who_stored_it_first_is_the_one_that_is_sent(db: ChatDb, here: Parts, llm: LlmStub) -> None:
    text, holding = held(llm)
    visitor = await here.visit()
    id = visitor.prompt(text)
    await llm.called(query=text)
    await db.answer(visitor.id, id, content="다른 인스턴스의 답")
    holding.release()
    await visitor.client.until_told("다른 인스턴스의 답")
    await become(lambda: not here.chat.in_hand)


async def test_an_answer_that_the_database_refuses_leaves_no_turn_that_would_be_asked_again(
    db: ChatDb, here: Parts, llm: LlmStub
) -> None:
    """The visitor sees it, something is stored in its place, and the session goes on."""
    refused, text = unique("거절될 질문"), unique("다음 질문")
    llm.on(refused, answer("저장이 거절되는 답"))
    await db.sql("ALTER TABLE \"Chat\" ADD CONSTRAINT no CHECK (content <> '저장이 거절되는 답')")
    visitor = await here.visit()
    visitor.prompt(refused)
    visitor.prompt(text)
    await visitor.client.until_told("저장이 거절되는 답", f"re: {text}")
    await become(lambda: not here.chat.in_hand)
    await db.sql('ALTER TABLE "Chat" DROP CONSTRAINT no')
    assert await db.turns(visitor.id) == {}
    assert [row["content"] for row in await db.said(visitor.id)] == [refused, text, MALFORMED, f"re: {text}"]


async def test_as_many_answers_as_allowed_wait_for_the_database_and_more_are_let_go(
    db: ChatDb, world: World, llm: LlmStub
) -> None:
    """All of them are shown; those that waited are stored once, under the time that was shown."""
    async with parts(db, world, max_unstored_answers=2) as here:
        texts = [held(llm) for _ in range(3)]
        visitors = [await here.visit() for _ in texts]
        for visitor, (text, _) in zip(visitors, texts, strict=True):
            visitor.prompt(text)
            await llm.called(query=text)
        await db.sql('ALTER TABLE "ChatbotResponse" RENAME TO "Elsewhere"')
        try:
            for visitor, (text, holding) in zip(visitors, texts, strict=True):
                holding.release()
                await visitor.client.until_told(f"re: {text}")
            await become(lambda: here.chat.in_hand == 2)
            await asyncio.sleep(2 * RETRY_SECONDS)  # it is tried again, in vain
            assert here.chat._answers.unstored == 2
        finally:
            await db.sql('ALTER TABLE "Elsewhere" RENAME TO "ChatbotResponse"')
        await become(lambda: not here.chat.in_hand)
        assert here.chat._answers.unstored == 0
        for visitor, count in zip(visitors, (2, 2, 1), strict=True):
            said = await db.said(visitor.id)
            assert len(said) == count
            assert len(await db.turns(visitor.id)) == 2 - count
            shown_at = visitor.client.frames[1]["timestamp"]
            assert [row["created_at"].isoformat(timespec="microseconds") for row in said[1:]] == [shown_at][: count - 1]
            assert len(visitor.client.told) == 1


async def test_an_answer_that_was_stored_late_after_all_gets_the_time_under_which_it_was_shown(
    db: ChatDb, world: World, llm: LlmStub
) -> None:
    """The first attempt had waited for a lock, was given up, and succeeded when the lock was gone."""
    async with parts(db, world) as here:
        text, holding = held(llm)
        visitor = await here.visit()
        visitor.prompt(text)
        await llm.called(query=text)
        here.database._timeout = 0.3
        async with db.locked("ChatSession", visitor.id):
            holding.release()
            await visitor.client.until_told(f"re: {text}")
        await become(lambda: not here.chat.in_hand)
        _, stored = await db.said(visitor.id)
        assert stored["created_at"].isoformat(timespec="microseconds") == visitor.client.frames[1]["timestamp"]


async def test_news_that_cannot_be_read_is_read_and_sent_later(
    db: ChatDb, here: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    visitor = await here.visit()
    await db.push(visitor.id, content="추천")
    await db.push(visitor.id, content="둘째")
    await db.sql('ALTER TABLE "ChatbotResponse" RENAME TO "Elsewhere"')
    try:
        here.chat.delivery.look_at(visitor.id)
        await become(lambda: "statement failed" in caplog.text)
    finally:
        await db.sql('ALTER TABLE "Elsewhere" RENAME TO "ChatbotResponse"')
    await visitor.client.until_told("추천", "둘째")


async def test_an_answer_that_cannot_be_sent_for_what_lies_before_it_is_sent_later(db: ChatDb, here: Parts) -> None:
    """What another instance stored before it has to be read first, and that fails."""
    visitor, answer = await here.visit(), Answer("답")
    await db.push(visitor.id, content="추천")
    (stored,) = await here.chat._answers._store_answers.put(answer_row(visitor.id, None, new_uuid(), answer))
    await db.sql('ALTER TABLE "ChatbotResponse" RENAME TO "Elsewhere"')
    try:
        await here.chat.delivery.deliver(visitor.id, stored["chat_id"], answer, stored)
        assert visitor.client.told == []
    finally:
        await db.sql('ALTER TABLE "Elsewhere" RENAME TO "ChatbotResponse"')
    await visitor.client.until_told("추천", "답")


async def test_a_notice_that_comes_while_a_session_is_sent_others_is_not_dropped(db: ChatDb, here: Parts) -> None:
    visitor = await here.visit()
    visitor.client.reads.clear()
    visitor.client.is_sent_to.clear()
    await db.push(visitor.id, content="하나")
    here.chat.hear_of_session(str(visitor.id))
    await visitor.client.is_sent_to.wait()
    await db.push(visitor.id, content="둘")
    here.chat.hear_of_session(str(visitor.id))
    await asyncio.sleep(0)
    visitor.client.reads.set()
    await visitor.client.until_told("하나", "둘")


async def test_a_known_answer_waits_with_its_prompt_for_a_moment_only(db: ChatDb, world: World) -> None:
    """However long a statement may take: then the prompt is stored by itself, so that it is not lost."""
    async with parts(db, world, db_timeout=60.0) as here:
        visitor = await here.visit()
        async with db.locked("ChatSession", visitor.id):
            visitor.prompt(FAQS[0].question)
            await become(lambda: db.turns(visitor.id), what="the prompt is stored by itself")
        await visitor.client.until_told(FAQS[0].answer)
        await become(lambda: not here.chat.in_hand)
        assert [row["is_user"] for row in await db.said(visitor.id)] == [True, False]


# Prompts that are sent again


async def test_a_question_answered_from_memory_may_be_sent_again(db: ChatDb, here: Parts) -> None:
    """Its id is known; it is answered by what is stored, and no view is counted."""
    visitor, known = await here.visit(), FAQS[1]
    id = visitor.prompt(known.question)
    await visitor.client.until_told(known.answer)
    await become(lambda: not here.chat.in_hand)
    visitor.prompt(known.question, id)
    await visitor.client.until_told(known.answer, known.answer)
    assert visitor.client.frames[1] == visitor.client.frames[2]
    assert len(await db.said(visitor.id)) == 2
    assert sum(views(here.chat.qna).values()) == 1
    await become(lambda: not here.chat.in_hand)


def views(qna: Qna) -> dict[str, int]:
    """Those that are counted and not yet written."""
    return dict(qna.faqs._views + qna.terms._views)


async def test_a_view_is_counted_for_each_answer_from_memory_and_once_each(
    db: ChatDb, here: Parts, llm: LlmStub
) -> None:
    """Also where it waits behind another turn, and is stored by itself."""
    text, holding = held(llm)
    visitor = await here.visit()
    visitor.prompt(FAQS[0].question)
    await visitor.client.until_told(FAQS[0].answer)
    visitor.prompt(text)
    visitor.prompt(TERMS[1].term)
    visitor.prompt(FAQS[0].question)
    holding.release()
    await visitor.client.until_told(FAQS[0].answer, f"re: {text}", TERMS[1].definition, FAQS[0].answer)
    assert views(here.chat.qna) == {"1": 2, "2": 1}
    await become(lambda: not here.chat.in_hand)


async def test_an_id_of_another_session_or_of_an_answer_is_refused(db: ChatDb, here: Parts, llm: LlmStub) -> None:
    """In hand or answered; the other session does not notice."""
    text, holding = held(llm)
    visitor, other = await here.visit(), await here.visit()
    in_hand = visitor.prompt(text)
    with pytest.raises(Refused, match="message_id is already used"):
        other.prompt(unique("내 질문"), in_hand)
    await llm.called(query=text)
    push = await db.push(visitor.id)
    visitor.prompt(unique("질문"), push["chat_id"])
    await become(lambda: visitor.client.errors == ["Invalid message: message_id is already used"])
    holding.release()
    await become(lambda: f"re: {text}" in visitor.client.told)
    other.prompt(unique("내 질문"), in_hand)
    await become(lambda: other.client.errors == ["Invalid message: message_id is already used"])
    assert other.client.told == []
    await become(lambda: not here.chat.in_hand)


async def test_a_prompt_of_a_session_that_is_gone_from_the_database_is_an_error(db: ChatDb, here: Parts) -> None:
    visitor = await here.visit()
    await db.sql('DELETE FROM "ChatSession" WHERE session_id = $1', visitor.id)
    visitor.prompt(unique("질문"))
    await become(lambda: visitor.client.errors == [DB_FAILED])
    assert not here.chat.in_hand


async def test_a_prompt_sent_again_while_another_instance_answers_it_is_not_an_error(
    db: ChatDb, here: Parts, there: Parts, llm: LlmStub
) -> None:
    """The one answer will do, and it takes the place of no other prompt of the session."""
    text, holding = held(llm)
    visitor = await here.visit()
    id = visitor.prompt(text)
    await llm.called(query=text)
    again = await there.resume(visitor)
    again.prompt(text, id)
    assert there.chat.turns.count(visitor.id) == 1
    holding.release()
    await become(lambda: not here.chat.in_hand)
    there.chat.delivery.look_at(visitor.id)
    await again.client.until_told(f"re: {text}")
    assert len(llm.calls_with(query=text)) == 1


async def test_a_prompt_that_is_claimed_goes_on_as_its_next_attempt(db: ChatDb, here: Parts, llm: LlmStub) -> None:
    """Its storing had seemed to fail. If it was stopped meanwhile, it is not asked."""
    visitor = await here.visit(streams=True)
    asked, stopped = unique("다시 보낸 질문"), unique("중지된 질문")
    ids = [await db.prompt(visitor.id, text, instance_id=here.id) for text in (asked, stopped)]
    await db.run("stop_turn", ids[1], visitor.id)
    visitor.prompt(asked, ids[0])
    await visitor.client.until_told(f"re: {asked}")
    visitor.prompt(stopped, ids[1])
    await visitor.client.until_told(f"re: {asked}", STOPPED)
    assert [frame["attempt"] for frame in visitor.client.of_type("start")] == [2]
    assert llm.calls_with(query=stopped) == []


async def test_an_answer_that_was_not_sent_yet_comes_once_and_in_its_order(db: ChatDb, here: Parts) -> None:
    """Though its prompt is sent again before."""
    visitor, text = await here.visit(), unique("질문")
    id = await db.prompt(visitor.id, text)
    await db.push(visitor.id, content="추천")
    await db.answer(visitor.id, id, content="답")
    visitor.prompt(text, id)
    await visitor.client.until_told("추천", "답")
    await become(lambda: not here.chat.in_hand and not len(here.chat.delivery.tasks))
    assert visitor.client.told == ["추천", "답"]


async def test_a_prompt_that_cannot_be_stored_may_have_been_answered(db: ChatDb, here: Parts) -> None:
    """It is refused, and what was stored meanwhile is sent."""
    visitor = await here.visit()
    await db.push(visitor.id, content="그사이의 답")
    await db.sql('ALTER TABLE "Turn" RENAME TO "Elsewhere"')
    try:
        visitor.prompt(unique("질문"))
        await become(lambda: visitor.client.errors == [DB_FAILED])
        await visitor.client.until_told("그사이의 답")
    finally:
        await db.sql('ALTER TABLE "Elsewhere" RENAME TO "Turn"')


async def test_a_stop_that_comes_before_its_prompt_is_stored_is_marked_then(
    db: ChatDb, here: Parts, llm: LlmStub
) -> None:
    """It holds for whoever takes the turn over."""
    text, holding = held(llm)
    visitor = await here.visit()
    visitor.prompt(text)
    await llm.called(query=text)
    async with db.database.transaction() as connection:
        await connection.execute('LOCK TABLE "Chat" IN SHARE MODE')
        second = visitor.prompt(unique("중지될 질문"))
        await become(lambda: db.waiting(1))
        visitor.stop(second)
        await become(lambda: not len(here.chat.stops.tasks))

    async def is_marked() -> bool:
        turns = await db.turns(visitor.id)
        return second in turns and bool(turns[second]["is_stopped"])

    await become(is_marked)
    holding.release()
    await visitor.client.until_told(f"re: {text}", STOPPED)


# Lines


async def test_waiting_prompts_are_counted_and_as_many_as_allowed_are_taken(
    db: ChatDb, world: World, llm: LlmStub
) -> None:
    async with parts(db, world, max_pending_prompts=2) as here:
        text, holding = held(llm)
        visitor = await here.visit()
        texts = [text, *(unique("다음 질문") for _ in range(2))]
        for one in texts:
            visitor.prompt(one)
        with pytest.raises(Refused, match="Too many pending messages"):
            visitor.prompt(unique("하나 더"))
        holding.release()
        await visitor.client.until_told(*(f"re: {one}" for one in texts))
        await become(lambda: not here.chat.in_hand)
        visitor.prompt(FAQS[0].question)
        await become(lambda: visitor.client.told[-1] == FAQS[0].answer)
        assert here.chat.turns.count(visitor.id) in (0, 1)
        await become(lambda: not here.chat.turns._lanes)


async def test_prompts_behind_a_question_from_memory_that_cannot_be_stored_keep_their_order(
    db: ChatDb, here: Parts
) -> None:
    visitor, ids = await here.visit(), [new_uuid() for _ in range(3)]
    await db.sql('ALTER TABLE "ChatbotResponse" RENAME TO "Elsewhere"')
    try:
        for id, text in zip(ids, (FAQS[0].question, unique("둘째"), FAQS[1].question), strict=True):
            visitor.prompt(text, id)
        await become(lambda: len(visitor.client.told) >= 1)
    finally:
        await db.sql('ALTER TABLE "Elsewhere" RENAME TO "ChatbotResponse"')
    await become(lambda: not here.chat.in_hand)
    answered = [frame["message_id"] for frame in visitor.client.frames[1:]]
    assert answered == [str(id) for id in ids]
    assert [row["id"] for row in await db.said(visitor.id) if row["is_user"]] == ids


async def test_what_is_taken_over_keeps_its_order_before_what_waits_for_it(
    db: ChatDb, here: Parts, llm: LlmStub
) -> None:
    """Prompts of who is gone come in their order, and then those of the visitor who has come back."""
    visitor = await here.visit()
    visitor.leave()
    texts = [unique("넘겨받은 질문") for _ in range(3)]
    for text in texts:
        await db.prompt(visitor.id, text, instance_id=-7)
    again = await here.resume(visitor)
    texts.append(unique("새 질문"))
    again.prompt(texts[-1])
    await become(lambda: len(llm.calls_with(query=texts[-1])) == 0 and here.chat.turns.count(visitor.id) == 2)
    await here.chat.turns.take_over(may_be_orphans=True)
    await again.client.until_told(*(f"re: {text}" for text in texts))
    await become(lambda: not here.chat.turns._lanes)


async def test_what_is_left_over_is_answered_as_what_it_was(db: ChatDb, here: Parts, llm: LlmStub) -> None:
    """What is too old says that it took too long; what was stopped says so; what is in hand is left alone."""
    text, holding = held(llm)
    visitor, streaming = await here.visit(), await here.visit(streams=True)
    visitor.prompt(text)
    await llm.called(query=text)
    too_old, stopped, left = [unique(kind) for kind in ("오래된 질문", "중지된 질문", "남은 질문")]
    old_id = await db.prompt(visitor.id, too_old, instance_id=-7)
    await db.sql('UPDATE "Chat" SET created_at = $2 WHERE id = $1', old_id, await db.now() - 2 * HOUR)
    await db.run("stop_turn", await db.prompt(visitor.id, stopped, instance_id=-7), visitor.id)
    await db.prompt(streaming.id, left, instance_id=-7)
    await here.chat.turns.take_over(may_be_orphans=True)
    await here.chat.turns.take_over(may_be_orphans=True)
    await streaming.client.until_told(f"re: {left}")
    holding.release()
    await visitor.client.until_told(f"re: {text}", TIMED_OUT, STOPPED)
    assert llm.calls_with(query=too_old) == llm.calls_with(query=stopped) == []
    assert len(llm.calls_with(query=text)) == 1
    assert [frame["attempt"] for frame in streaming.client.of_type("start")] == [2]


async def test_a_resumed_sessions_prompts_wait_for_the_other_instance_and_not_for_ever(
    db: ChatDb, here: Parts, there: Parts, llm: LlmStub
) -> None:
    """The answer's notice may be lost: it is looked for."""
    text, holding = held(llm)
    quick = unique("빠른 질문")
    visitor = await here.visit()
    visitor.prompt(text)
    await llm.called(query=text)
    again = await there.resume(visitor, streams=True)
    again.prompt(quick)
    await become(lambda: there.chat.turns.count(visitor.id) == 2)
    assert llm.calls_with(query=quick) == []
    holding.release()
    await become(lambda: not here.chat.in_hand)
    await again.client.until_told(f"re: {text}", f"re: {quick}")
    await become(lambda: not there.chat.turns._lanes and not len(there.chat.drafts.tasks))


async def test_who_leaves_again_leaves_nothing_that_waits_unless_a_prompt_does(
    db: ChatDb, here: Parts, there: Parts, llm: LlmStub
) -> None:
    text, holding = held(llm)
    visitor = await here.visit()
    visitor.prompt(text)
    await llm.called(query=text)
    first = await there.resume(visitor)
    first.leave()
    await become(lambda: not there.chat.turns._lanes)
    second = await there.resume(visitor)
    second.prompt(unique("질문"))
    second.leave()
    await become(lambda: there.chat.turns.count(visitor.id) == 2)
    holding.release()
    await become(lambda: not there.chat.turns._lanes and not there.chat.in_hand)
    answers = [row for row in await db.said(visitor.id) if not row["is_user"]]
    assert len(answers) == 2
