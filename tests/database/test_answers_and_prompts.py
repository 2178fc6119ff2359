"""The statements that store prompts and answers: each once, in strict order, with all that belongs to them."""

import asyncio
from datetime import timedelta

import pytest

from common.ids import new_uuid
from tests.support.statements import ChatDb
from tests.support.waiting import become

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


async def test_a_prompt_is_stored_with_its_persona_and_its_turn_is_open(db: ChatDb) -> None:
    persona_id = await db.persona("prompts")
    session_id = await db.session(persona_id=persona_id)
    id = await db.prompt(session_id, "무엇이 좋을까요?", instance_id=7)
    (row,) = await db.said(session_id)
    assert (row["id"], row["is_user"], row["content"], row["persona_id"]) == (id, True, "무엇이 좋을까요?", persona_id)
    turn = (await db.turns(session_id))[id]
    assert (turn["instance_id"], turn["attempt"], turn["is_stopped"]) == (7, 1, False)


async def test_prompts_of_one_statement_have_their_order_in_time(db: ChatDb) -> None:
    """Not all the time at which it began."""
    session_id, ids = await db.session(), [new_uuid() for _ in range(20)]
    rows = [{"id": id, "session_id": session_id, "content": "질문"} for id in ids]
    assert [len(stored) for stored in await db.share("store_prompts", *rows)] == [1] * 20
    said = await db.said(session_id)
    assert [row["id"] for row in said] == ids
    assert len({row["created_at"] for row in said}) == 20


async def test_a_prompt_that_was_there_before_is_neither_stored_nor_taken_in_hand_again(db: ChatDb) -> None:
    """Its row is missing in what is returned, and those beside it are stored."""
    session_id = await db.session()
    id, other = await db.prompt(session_id, "먼저"), new_uuid()
    await db.answer(session_id, id)
    again = {"id": id, "session_id": session_id, "content": "다르게"}
    beside = {"id": other, "session_id": session_id, "content": "그 옆"}
    assert [len(stored) for stored in await db.share("store_prompts", again, beside)] == [0, 1]
    assert [row["content"] for row in await db.said(session_id)] == ["먼저", "대답", "그 옆"]
    assert list(await db.turns(session_id)) == [other]


async def test_a_prompt_of_no_session_is_not_stored(db: ChatDb) -> None:
    row = {"id": new_uuid(), "session_id": new_uuid(), "content": "질문"}
    assert await db.share("store_prompts", row) == [[]]


async def test_an_answer_is_stored_with_all_that_belongs_to_it_and_closes_its_turn(db: ChatDb) -> None:
    persona_id = await db.persona("answers")
    session_id = await db.session(instance_id=3, persona_id=persona_id)
    id, other = await db.prompt(session_id), await db.prompt(session_id)
    before = (await db.row(session_id))["last_answer_at"]
    payload = {"login_required": True, "card_list": ["가", {"나": 1}]}
    stored = await db.answer(session_id, id, content="이 카드", source_tool="tool", payload=payload)
    assert (stored["instance_id"], stored["previous_at"]) == (3, before)
    (row,) = [row for row in await db.said(session_id) if not row["is_user"]]
    assert (row["id"], row["content"], row["persona_id"]) == (stored["chat_id"], "이 카드", persona_id)
    assert row["created_at"] == stored["created_at"] == (await db.row(session_id))["last_answer_at"] > before
    (response,) = await db.sql('SELECT * FROM "ChatbotResponse" WHERE chat_id = $1', stored["chat_id"])
    assert (response["prompt_chat_id"], response["source_tool"], response["is_helpful"]) == (id, "tool", None)
    assert response["push_no"] == 0
    assert await db.value(
        'SELECT response_payload = $2::text::jsonb FROM "ChatbotResponse" WHERE chat_id = $1',
        stored["chat_id"],
        '{"login_required": true, "card_list": ["가", {"나": 1}]}',
    )
    assert list(await db.turns(session_id)) == [other]


async def test_a_second_answer_to_a_prompt_is_not_stored_and_moves_nothing(db: ChatDb) -> None:
    """It is told where the session is, and that it has no time of its own."""
    session_id = await db.session(instance_id=3)
    id = await db.prompt(session_id)
    first = await db.answer(session_id, id)
    row = {"session_id": session_id, "prompt_id": id, "chat_id": new_uuid()}
    ((second,),) = await db.share("store_answers", row)
    assert second == {"chat_id": row["chat_id"], "instance_id": 3, "previous_at": first["created_at"]} | {
        "created_at": None
    }
    assert len(await db.said(session_id)) == 2
    assert (await db.row(session_id))["last_answer_at"] == first["created_at"]


async def test_an_answer_of_no_session_is_not_stored(db: ChatDb) -> None:
    assert await db.share("store_answers", {"session_id": new_uuid(), "chat_id": new_uuid()}) == [[]]


async def test_times_of_answers_grow_strictly_whatever_the_clock_says(db: ChatDb) -> None:
    """Of one that was shown under an earlier time, and of one whose clock is behind."""
    ahead = await db.now() + HOUR
    session_id = await db.session(last_answer_at=ahead)
    assert (await db.answer(session_id, await db.prompt(session_id)))["created_at"] == ahead + MICROSECOND
    late = await db.answer(session_id, await db.prompt(session_id), sent_at=ahead - HOUR)
    assert late["created_at"] == ahead + 2 * MICROSECOND
    assert (await db.push(session_id))["created_at"] == ahead + 3 * MICROSECOND


async def test_an_answer_that_was_shown_keeps_the_time_it_was_shown_under(db: ChatDb) -> None:
    session_id = await db.session()
    shown_at = await db.now() + HOUR
    stored = await db.answer(session_id, await db.prompt(session_id), sent_at=shown_at)
    assert stored["created_at"] == shown_at


async def test_an_answers_time_is_that_of_its_storing_and_not_of_the_waiting_for_it(db: ChatDb) -> None:
    """Whoever waits for the lock on a session had begun before what it waits for."""
    session_id = await db.session()
    async with db.locked("ChatSession", session_id):
        storing = asyncio.create_task(db.push(session_id))
        await become(lambda: db.waiting(1))
        released_at = await db.now()
    assert (await storing)["created_at"] > released_at


# A prompt with its answer


async def test_a_prompt_stored_with_its_answer_stands_before_it_and_has_no_turn(db: ChatDb) -> None:
    persona_id = await db.persona("together")
    session_id, id = await db.session(persona_id=persona_id), new_uuid()
    stored = await db.answer(session_id, id, prompt="연회비는?")
    said = await db.said(session_id)
    assert [(row["id"], row["is_user"], row["content"]) for row in said] == [
        (id, True, "연회비는?"),
        (stored["chat_id"], False, "대답"),
    ]
    assert {row["persona_id"] for row in said} == {persona_id}
    assert await db.turns(session_id) == {}


async def test_a_prompt_that_was_stored_before_is_not_answered_with_it_again(db: ChatDb) -> None:
    """Nor is its turn closed, which another instance may have in hand, in this session or another."""
    session_id, other = await db.session(), await db.session()
    id = await db.prompt(other)
    row = {"session_id": session_id, "prompt_id": id, "chat_id": new_uuid(), "prompt": "연회비는?"}
    ((found,),) = await db.share("store_answers", row)
    assert found["created_at"] is None
    assert await db.said(session_id) == []
    assert list(await db.turns(other)) == [id]


# Pushes


async def test_pushes_are_numbered_in_their_session_and_leave_turns_open(db: ChatDb) -> None:
    """Those with a prompt's id, after its answer, and those with their own; of another session nothing counts."""
    session_id, other = await db.session(), await db.session()
    id = await db.prompt(session_id)
    await db.push(other)
    chat_ids = [(await db.push(session_id, prompt_id))["chat_id"] for prompt_id in (id, None, id)]
    assert list(await db.turns(session_id)) == [id]
    await db.answer(session_id, id)
    numbers = [
        await db.value('SELECT push_no FROM "ChatbotResponse" WHERE chat_id = $1', chat_id) for chat_id in chat_ids
    ]
    assert numbers == [1, 2, 3]
    assert (await db.row(session_id))["pushes"] == 3


# An answer that was shown, whose first storing had succeeded after all


async def test_an_answer_stored_late_is_given_the_time_it_was_shown_under(db: ChatDb) -> None:
    session_id = await db.session()
    stored = await db.answer(session_id, await db.prompt(session_id))
    shown_at = stored["created_at"] - timedelta(milliseconds=5)
    await db.run("set_answer_time", stored["chat_id"], shown_at)
    assert [row["created_at"] for row in await db.said(session_id) if not row["is_user"]] == [shown_at]


async def test_a_time_is_never_set_forward_nor_before_another_answer(db: ChatDb) -> None:
    """Not past the session's last answer, and not to or before the time of the one before."""
    session_id, other = await db.session(), await db.session()
    first = await db.answer(session_id, await db.prompt(session_id))
    second = await db.answer(session_id, await db.prompt(session_id))
    for time in (second["created_at"] + HOUR, first["created_at"], first["created_at"] - HOUR):
        await db.run("set_answer_time", second["chat_id"], time)
        times = [row["created_at"] for row in await db.said(session_id) if not row["is_user"]]
        assert times == [first["created_at"], second["created_at"]]
    between = first["created_at"] + MICROSECOND
    stored = await db.answer(other, await db.prompt(other))  # of another session, and a prompt: neither counts
    await db.prompt(session_id)
    await db.run("set_answer_time", second["chat_id"], between)
    times = [row["created_at"] for row in await db.said(session_id) if not row["is_user"]]
    assert times == [first["created_at"], between]
    assert [row["created_at"] for row in await db.said(other)][-1] == stored["created_at"]


# Feedback


async def test_feedback_goes_to_the_newest_answer_under_an_id_alone(db: ChatDb) -> None:
    """The prompt's answer, then the push that carries its id; a push of its own goes by its own id."""
    session_id = await db.session()
    id = await db.prompt(session_id)
    answer = await db.answer(session_id, id)
    neighbour = await db.answer(session_id, await db.prompt(session_id))
    feedback = 'SELECT is_helpful FROM "ChatbotResponse" WHERE chat_id = $1'
    assert len(await db.run("set_feedback", id, False)) == 1
    push = await db.push(session_id, id)
    own = await db.push(session_id)
    assert len(await db.run("set_feedback", id, True)) == 1
    assert len(await db.run("set_feedback", own["chat_id"], False)) == 1
    stored = [await db.value(feedback, row["chat_id"]) for row in (answer, neighbour, push, own)]
    assert stored == [False, None, True, False]
    await db.run("set_feedback", own["chat_id"], None)
    assert await db.value(feedback, own["chat_id"]) is None
    assert await db.run("set_feedback", session_id, True) == await db.run("set_feedback", new_uuid(), True) == []
