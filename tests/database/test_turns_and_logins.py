"""The statements about turns, which one instance has in hand, and about logins."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from common.ids import new_uuid
from tests.support.statements import ChatDb, Row

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


async def claim(db: ChatDb, id: UUID, session_id: UUID, instance_id: int) -> Row:
    (row,) = await db.run("claim_prompt", id, session_id, instance_id)
    return row


# A prompt that is sent again


async def test_an_id_that_is_free_is_nobodys(db: ChatDb) -> None:
    assert await db.run("claim_prompt", new_uuid(), await db.session(), 1) == []


async def test_an_answered_prompt_comes_with_its_answer_and_is_not_opened_again(db: ChatDb) -> None:
    """Its own answer, and not the push that carries its id."""
    session_id = await db.session()
    id = await db.prompt(session_id)
    stored = await db.answer(session_id, id, content="답", source_tool="tool", payload={"login_required": True})
    await db.push(session_id, id, content="추천")
    row = await claim(db, id, session_id, 1)
    assert row == {
        "session_id": session_id,
        "asked_at": (await db.said(session_id))[0]["created_at"],
        "is_user": True,
        "attempt": None,
        "is_stopped": None,
        "id": stored["chat_id"],
        "message_id": id,
        "created_at": stored["created_at"],
        "content": "답",
        "source_tool": "tool",
        "payload": '{"login_required": true}',
    }
    assert await db.turns(session_id) == {}


async def test_a_prompt_with_a_push_and_no_answer_is_not_answered(db: ChatDb) -> None:
    session_id = await db.session()
    id = await db.prompt(session_id)
    await db.push(session_id, id)
    row = await claim(db, id, session_id, 2)
    assert (row["id"], row["created_at"], row["attempt"]) == (None, None, None)


async def test_a_turn_that_another_instance_has_in_hand_is_left_to_it(db: ChatDb) -> None:
    session_id = await db.session()
    id = await db.prompt(session_id, instance_id=1)
    row = await claim(db, id, session_id, 2)
    assert (row["attempt"], row["is_stopped"], row["id"]) == (None, None, None)
    assert (await db.turns(session_id))[id] == (await db.turns(session_id))[id] | {"instance_id": 1, "attempt": 1}


async def test_a_turn_in_ones_own_name_is_claimed_as_the_next_attempt_and_stays_stopped(db: ChatDb) -> None:
    session_id = await db.session()
    id = await db.prompt(session_id, instance_id=1)
    assert ((await claim(db, id, session_id, 1))["attempt"], (await db.turns(session_id))[id]["attempt"]) == (2, 2)
    await db.run("stop_turn", id, session_id)
    row = await claim(db, id, session_id, 1)
    assert (row["attempt"], row["is_stopped"]) == (3, True)


async def test_a_prompt_whose_turn_is_gone_is_opened_anew(db: ChatDb) -> None:
    session_id = await db.session()
    id = await db.prompt(session_id, instance_id=1)
    await db.sql('DELETE FROM "Turn" WHERE prompt_id = $1', id)
    row = await claim(db, id, session_id, 4)
    assert (row["attempt"], row["is_stopped"]) == (1, False)
    turn = (await db.turns(session_id))[id]
    assert (turn["instance_id"], turn["attempt"], turn["session_id"]) == (4, 1, session_id)


async def test_neither_a_prompt_of_another_session_nor_an_answer_is_claimed(db: ChatDb) -> None:
    session_id, other = await db.session(), await db.session()
    id = await db.prompt(session_id, instance_id=1)
    push = await db.push(session_id)
    row = await claim(db, id, other, 1)
    assert (row["session_id"], row["attempt"]) == (session_id, None)
    assert (await db.turns(session_id))[id]["attempt"] == 1
    row = await claim(db, push["chat_id"], session_id, 1)
    assert (row["is_user"], row["attempt"]) == (False, None)
    assert list(await db.turns(session_id)) == [id]


# Turns in hand


async def test_open_turns_of_a_session_are_those_that_others_have(db: ChatDb) -> None:
    session_id, other = await db.session(), await db.session()
    await db.prompt(session_id, instance_id=1)
    ids = {await db.prompt(session_id, instance_id=n): n for n in (2, 3)}
    await db.prompt(other, instance_id=2)
    rows = await db.run("list_open_turns", session_id, 1)
    assert {row["prompt_id"]: row["instance_id"] for row in rows} == ids


async def test_a_stop_marks_a_turn_of_its_own_session_and_says_who_has_it(db: ChatDb) -> None:
    session_id, other = await db.session(), await db.session()
    id, beside = await db.prompt(session_id, instance_id=61), await db.prompt(session_id, instance_id=61)
    elsewhere = await db.prompt(other, instance_id=62)
    assert await db.run("stop_turn", id, other) == []
    assert await db.run("list_stopped_turns", 61) == []
    assert await db.run("stop_turn", id, session_id) == [{"instance_id": 61}]
    assert await db.run("stop_turn", elsewhere, other) == [{"instance_id": 62}]
    assert await db.run("stop_turn", new_uuid(), session_id) == []
    assert await db.run("list_stopped_turns", 61) == [{"prompt_id": id}]
    assert not (await db.turns(session_id))[beside]["is_stopped"]


async def living(db: ChatDb) -> int:
    """An instance that is registered, beside which no other has a turn left over."""
    await db.sql('DELETE FROM "Turn"')
    (row,) = await db.run("join_instance")
    id: int = row["id"]
    return id


async def test_turns_of_who_is_gone_are_taken_in_the_order_of_the_prompts(db: ChatDb) -> None:
    """With how often they were taken, whether they were stopped, and whether they are too old to be asked."""
    taker, other = await living(db), await living(db)
    session_id = await db.session()
    ids = [await db.prompt(session_id, f"질문 {n}", instance_id=-1) for n in range(6)]
    lives = await db.prompt(session_id, instance_id=other)
    await db.run("stop_turn", ids[1], session_id)
    now = await db.now()
    for id, age in ((ids[4], 59 * MINUTE), (ids[2], 61 * MINUTE), (ids[5], 62 * MINUTE)):
        await db.sql('UPDATE "Chat" SET created_at = $2 WHERE id = $1', id, now - age)
    rows = await db.run("take_turns", taker, [], True)
    assert [row["id"] for row in rows] == [ids[n] for n in (5, 2, 4, 0, 1, 3)]
    assert [row["content"] for row in rows] == [f"질문 {n}" for n in (5, 2, 4, 0, 1, 3)]
    assert {row["session_id"] for row in rows} == {session_id}
    assert {row["id"] for row in rows if row["is_stopped"]} == {ids[1]}
    assert {row["id"] for row in rows if row["is_too_old"]} == {ids[2], ids[5]}
    assert {row["attempt"] for row in rows} == {2}
    turns = await db.turns(session_id)
    assert {turns[id]["instance_id"] for id in ids} == {taker}
    assert {turns[id]["attempt"] for id in ids} == {2}
    assert (turns[lives]["instance_id"], turns[lives]["attempt"]) == (other, 1)
    assert await db.run("take_turns", other, [lives], True) == []


async def test_a_turn_in_ones_own_name_is_taken_up_a_few_times_unless_it_is_in_hand(db: ChatDb) -> None:
    """It may be one that ends its instance: it is not tried for ever."""
    taker = await living(db)
    session_id = await db.session()
    in_hand, unknown = [await db.prompt(session_id, instance_id=taker) for _ in range(2)]
    taken = [await db.run("take_turns", taker, [in_hand], True) for _ in range(6)]
    assert [[row["id"] for row in rows] for rows in taken] == [[unknown]] * 4 + [[]] * 2
    assert [row["attempt"] for rows in taken for row in rows] == [2, 3, 4, 5]
    assert (await db.turns(session_id))[in_hand]["attempt"] == 1


async def test_what_another_instance_is_taking_at_this_moment_is_not_waited_for(db: ChatDb) -> None:
    taker = await living(db)
    session_id = await db.session()
    taken, free = [await db.prompt(session_id, instance_id=-1) for _ in range(2)]
    async with db.database.transaction() as connection:
        await connection.execute(f"SELECT FROM \"Turn\" WHERE prompt_id = '{taken}' FOR UPDATE")
        rows = await asyncio.wait_for(db.run("take_turns", taker, [], True), 10)
    assert [row["id"] for row in rows] == [free]


# Logins


async def asked_for(db: ChatDb, session_id: UUID) -> UUID:
    """The prompt of an answer that asks for a login."""
    id = await db.prompt(session_id)
    await db.answer(session_id, id, payload={"login_required": True})
    return id


async def test_a_login_ties_its_own_session_to_its_own_persona(db: ChatDb) -> None:
    """Together with others that are connected, or not, or want a persona that there is not."""
    first, second, third = [await db.persona(f"login {n}") for n in range(3)]
    one, two, left, unknown = await db.session(), await db.session(2), await db.session(None), new_uuid()
    nobody, beside = await db.session(persona_id=first), await db.session(persona_id=third)
    wanted = [(one, first), (two, second), (left, first), (unknown, first), (nobody, third + 1000)]
    rows = await db.share("tie_personas", *({"session_id": s, "persona_id": p} for s, p in wanted))
    found = [(row["is_connected"], row["is_persona"]) for (row,) in rows]
    assert found == [(True, True), (True, True), (False, True), (False, True), (True, False)]
    tied = [(await db.row(id))["persona_id"] for id in (one, two, left, nobody, beside)]
    assert tied == [first, second, None, first, third]


async def test_a_push_answers_the_newest_prompt_that_asked_for_a_login_and_only_once(db: ChatDb) -> None:
    persona_id = await db.persona("pushes")
    session_id, other = await db.session(), await db.session()

    async def asking() -> UUID | None:
        ((row,),) = await db.share("tie_personas", {"session_id": session_id, "persona_id": persona_id})
        id: UUID | None = row["prompt_id"]
        return id

    assert await asking() is None
    await asked_for(db, other)
    assert await asking() is None
    older, newest = await asked_for(db, session_id), await asked_for(db, session_id)
    later = await db.prompt(session_id)
    await db.answer(session_id, later, payload={"login_required": False})
    await db.answer(session_id, await db.prompt(session_id), payload={"login_required": "true"})
    assert await asking() == newest
    await db.push(session_id, payload={"login_required": True})
    assert await asking() == newest
    await db.push(session_id, newest, payload={"login_required": True})
    assert await asking() is None, older
    again = await asked_for(db, session_id)
    assert await asking() == again


async def test_who_is_logged_in_is_told_of_the_connected_and_of_those_with_a_turn_in_hand(db: ChatDb) -> None:
    persona_id = await db.persona("asked")
    connected, stranger = await db.session(persona_id=persona_id), await db.session()
    left, busy = [await db.session(None, persona_id=persona_id) for _ in range(2)]
    await db.prompt(busy)
    ids = (connected, left, busy, new_uuid(), stranger)
    rows = await db.share("get_persona_ids", *({"session_id": id} for id in ids))
    yes = [{"persona_id": persona_id}]
    assert rows == [yes, [], yes, [], [{"persona_id": None}]]


async def test_the_key_of_a_session_is_its_own(db: ChatDb) -> None:
    session_id, old = await db.session(key_hash=b"own"), await db.session(key_hash=None)
    assert await db.run("get_key_hash", session_id) == [{"key_hash": b"own"}]
    assert await db.run("get_key_hash", old) == [{"key_hash": None}]
    assert await db.run("get_key_hash", new_uuid()) == []


async def test_personas_are_listed_by_id_and_changed_by_name(db: ChatDb) -> None:
    """What is the same is left alone, an id is kept and none is used up; a description may come and go."""
    await db.persona("하")
    count = await db.value('SELECT count(*) FROM "Persona"')
    outcomes = [
        await db.run("upsert_persona", "가나", text) for text in ("설명", "설명", "다른 설명", None, None, "다시")
    ]
    assert [[row["added"] for row in rows] for rows in outcomes] == [[True], [], [False], [False], [], [False]]
    personas = await db.run("list_personas")
    assert len(personas) == count + 1
    assert [row["id"] for row in personas] == sorted(row["id"] for row in personas)
    assert (personas[-1]["name"], personas[-1]["description"]) == ("가나", "다시")
    assert await db.persona("다음") == personas[-1]["id"] + 1
