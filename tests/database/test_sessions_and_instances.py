"""The statements about sessions and instances: who holds a socket, who is alive, and what is to be sent."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from common.ids import new_uuid
from database.notices import INSTANCE_LOCK
from tests.support.statements import ChatDb
from tests.support.waiting import become

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


async def test_sessions_are_opened_together_and_each_is_told_its_time(db: ChatDb) -> None:
    ids = [new_uuid() for _ in range(3)]
    rows = [{"session_id": id, "instance_id": n, "key_hash": bytes([n])} for n, id in enumerate(ids, 4)]
    opened = await db.share("open_sessions", *rows)
    for n, (id, ((row),)) in enumerate(zip(ids, opened, strict=True), 4):
        stored = await db.row(id)
        assert (stored["instance_id"], stored["key_hash"], stored["connection_no"]) == (n, bytes([n]), 0)
        assert row == {"last_answer_at": stored["last_answer_at"]}
        assert (stored["ended_at"], stored["persona_id"]) == (None, None)


async def test_the_opening_may_be_run_again_when_its_reply_was_lost(db: ChatDb) -> None:
    row = {"session_id": new_uuid(), "instance_id": 1}
    assert await db.share("open_sessions", row) == await db.share("open_sessions", row)


async def test_a_session_ends_only_for_its_newest_socket(db: ChatDb) -> None:
    """With the time, from which it can be resumed; those beside it are left alone."""
    session_id, other = await db.session(5, connection_no=2), await db.session(5)
    await db.share("end_sessions", {"session_id": session_id, "connection_no": 1})
    assert (await db.row(session_id))["instance_id"] == 5
    before = await db.now()
    assert await db.share("end_sessions", {"session_id": session_id, "connection_no": 2}) == [[{}]]
    row = await db.row(session_id)
    assert row["instance_id"] is None
    assert before <= row["ended_at"] <= await db.now()
    assert (await db.row(other))["instance_id"] == 5


# Resuming


async def test_a_session_is_given_to_a_newer_socket(db: ChatDb) -> None:
    session_id, other = await db.session(5), await db.session(5)
    (first,) = await db.run("resume_session", session_id, 6, 24.0)
    assert (first["instance_before"], first["connection_no"], first["prompts"]) == (5, 1, 0)
    assert first["last_answer_at"] == (await db.row(session_id))["last_answer_at"]
    await db.share("end_sessions", {"session_id": session_id, "connection_no": 1})
    (second,) = await db.run("resume_session", session_id, 7, 24.0)
    assert (second["instance_before"], second["connection_no"]) == (None, 2)
    row = await db.row(session_id)
    assert (row["instance_id"], row["connection_no"], row["ended_at"]) == (7, 2, None)
    assert (await db.row(other))["connection_no"] == 0


async def test_the_window_to_resume_counts_from_the_end_and_in_hours(db: ChatDb) -> None:
    """A session that has not ended is resumed however old it is."""
    now = await db.now()
    ended = await db.session(None, ended_at=now - HOUR / 2 + MINUTE)
    too_late = await db.session(None, ended_at=now - HOUR / 2 - MINUTE)
    open_for_days = await db.session(5, ended_at=now - 100 * HOUR)
    resumed = [bool(await db.run("resume_session", id, 6, 0.5)) for id in (ended, too_late, open_for_days)]
    assert resumed == [True, False, True]
    assert (await db.row(too_late))["instance_id"] is None
    assert await db.run("resume_session", new_uuid(), 6, 24.0) == []


async def test_the_prompts_of_the_last_minute_are_counted(db: ChatDb) -> None:
    """Neither older ones, nor answers, nor those of other sessions."""
    session_id, other = await db.session(), await db.session()
    ids = [await db.prompt(session_id) for _ in range(5)]
    await db.prompt(other)
    await db.answer(session_id, ids[0])
    for id, age in zip(ids, (61, 70, 3000), strict=False):
        await db.sql("UPDATE \"Chat\" SET created_at = now() - $2::float8 * interval '1 s' WHERE id = $1", id, age)
    (row,) = await db.run("resume_session", session_id, 6, 24.0)
    assert row["prompts"] == 2


async def test_two_sockets_at_once_get_different_numbers_and_the_second_knows_of_the_first(db: ChatDb) -> None:
    session_id = await db.session(5)
    async with db.locked("ChatSession", session_id):
        resuming = asyncio.gather(*(db.run("resume_session", session_id, n, 24.0) for n in (6, 7)))
        await become(lambda: db.waiting(2))
    (one,), (two,) = await resuming
    if one["connection_no"] > two["connection_no"]:
        one, two = two, one
    last = (await db.row(session_id))["instance_id"]
    assert (one["connection_no"], two["connection_no"]) == (1, 2)
    assert (one["instance_before"], {two["instance_before"], last}) == (5, {6, 7})


# What is to be sent


async def test_what_was_not_sent_is_answers_and_pushes_after_a_time_oldest_first(db: ChatDb) -> None:
    session_id, other = await db.session(connection_no=4), await db.session()
    id = await db.prompt(session_id)
    sent = await db.answer(session_id, id)
    second = await db.prompt(session_id)
    answer = await db.answer(session_id, second, content="나", source_tool="tool", payload={"login_required": True})
    push, own = await db.push(session_id, id, content="다"), await db.push(session_id, content="라")
    await db.answer(other, await db.prompt(other))
    (rows,) = await db.share("list_unsent_answers", {"session_id": session_id, "sent_at": sent["created_at"]})
    expected = [(answer, second, "나"), (push, id, "다"), (own, own["chat_id"], "라")]
    assert [(row["id"], row["created_at"], row["message_id"], row["content"]) for row in rows] == [
        (stored["chat_id"], stored["created_at"], message_id, content) for stored, message_id, content in expected
    ]
    assert (rows[0]["source_tool"], rows[0]["payload"]) == ("tool", '{"login_required": true}')
    assert {(row["connection_no"], row["has_more"]) for row in rows} == {(4, False)}


async def test_sessions_are_read_together_and_at_most_ten_answers_of_each(db: ChatDb) -> None:
    """The tenth says that there may be more. No answer is one row, no session is none."""
    some, many, ten, none = [await db.session() for _ in range(4)]
    since = await db.now() - HOUR
    stored = {id: [await db.push(id) for _ in range(n)] for id, n in ((some, 9), (many, 12), (ten, 10))}
    ids = (some, none, many, new_uuid(), ten)
    found = await db.share("list_unsent_answers", *({"session_id": id, "sent_at": since} for id in ids))
    for id, rows in zip((some, many, ten), (found[0], found[2], found[4]), strict=True):
        assert [row["id"] for row in rows] == [row["chat_id"] for row in stored[id]][:10]
        assert [row["has_more"] for row in rows] == ([False] * 9 + [True])[: len(rows)]
    assert [(row["id"], row["connection_no"]) for row in found[1]] == [(None, 0)]
    assert found[3] == []


# The history


async def test_the_history_is_the_newest_oldest_first_with_the_ids_that_visitors_know(db: ChatDb) -> None:
    session_id, other = await db.session(), await db.session()
    id = await db.prompt(session_id, "가")
    answer = await db.answer(session_id, id, content="나", source_tool="tool", payload={"login_required": True})
    push = await db.push(session_id, content="다")
    await db.prompt(other)
    await db.run("set_feedback", id, True)
    rows = await db.run("list_history", session_id, 100)
    assert [(row["is_user"], row["content"], row["message_id"], row["is_helpful"]) for row in rows] == [
        (True, "가", id, None),
        (False, "나", id, True),
        (False, "다", push["chat_id"], None),
    ]
    assert (rows[1]["source_tool"], rows[1]["payload"]) == ("tool", '{"login_required": true}')
    assert rows[1]["created_at"] == answer["created_at"]
    assert await db.run("list_history", session_id, 2) == rows[1:]
    assert [row["id"] for row in await db.run("list_history", await db.session(), 5)] == [None]
    assert await db.run("list_history", new_uuid(), 5) == []


async def test_of_the_same_time_a_prompt_stands_before_its_answer_and_the_order_is_one_for_good(db: ChatDb) -> None:
    """As clocks of the earlier version left them; whatever the order in the table, and whatever the limit."""
    session_id, ids = await db.session(), sorted(new_uuid() for _ in range(8))
    for n in (5, 0, 7, 2, 6, 3, 1, 4):
        await db.sql(
            'INSERT INTO "Chat" (id, session_id, is_user, content, created_at)'
            " VALUES ($1, $2, $3, '글', '2026-01-01')",
            ids[n],
            session_id,
            n >= 4,
        )
    expected = [*ids[4:], *ids[:4]]
    for limit in range(1, 9):
        rows = await db.run("list_history", session_id, limit)
        assert [row["id"] for row in rows] == expected[-limit:]


# Instances


async def signs(db: ChatDb, id: int) -> dict[int | None, tuple[int | None, bool]]:
    rows = await db.run("renew_instance", id, INSTANCE_LOCK, 1, True)
    return {row["id"]: (row["beat"], row["is_locked"]) for row in rows}


async def join(db: ChatDb) -> int:
    (row,) = await db.run("join_instance")
    id: int = row["id"]
    return id


async def test_a_sign_of_life_is_seen_by_the_others_and_not_by_oneself(db: ChatDb) -> None:
    await db.sql('DELETE FROM "Instance"')
    one = await join(db)
    assert await signs(db, one) == {None: (None, False)}  # there is nobody else
    two = await join(db)
    (before,) = await db.sql('SELECT * FROM "Instance" WHERE id = $1', one)
    assert [row["was_given_up"] for row in await db.run("renew_instance", one, INSTANCE_LOCK, 2, True)] == [False]
    assert await signs(db, two) == {one: (2, False)}
    (after,) = await db.sql('SELECT * FROM "Instance" WHERE id = $1', one)
    assert after["seen_at"] > before["seen_at"]
    assert after["started_at"] == before["started_at"]


async def test_who_was_declared_dead_is_told_so_once_and_is_there_again(db: ChatDb) -> None:
    await db.sql('DELETE FROM "Instance"')
    one, two = await join(db), await join(db)
    assert len(await db.run("remove_instance", one, None)) == 1
    given_up = [(await db.run("renew_instance", one, INSTANCE_LOCK, 1, True))[0]["was_given_up"] for _ in range(2)]
    assert given_up == [True, False]
    assert list(await signs(db, two)) == [one]


async def test_a_lock_counts_only_where_it_is_the_instances_own_in_this_database(db: ChatDb) -> None:
    """Neither that of another instance, nor one of another kind, nor one in a neighbouring ChatDB."""
    await db.sql('DELETE FROM "Instance"')
    one, two = await join(db), await join(db)
    chatdb = (await db.value("SELECT current_database()"), f"SELECT pg_advisory_lock({INSTANCE_LOCK}, {two})")
    for name, lock, is_locked in [
        (*chatdb, True),
        (chatdb[0], f"SELECT pg_advisory_lock({INSTANCE_LOCK}, {two + 1})", False),
        (chatdb[0], f"SELECT pg_advisory_lock({INSTANCE_LOCK + 1}, {two})", False),
        (chatdb[0], f"SELECT pg_advisory_lock({(INSTANCE_LOCK << 32) + two})", False),
        ("postgres", chatdb[1], False),
    ]:
        locking = await asyncpg.connect(db.url, database=name)
        try:
            await locking.execute(lock)
            assert (await signs(db, one))[two][1] == is_locked, lock
        finally:
            await locking.close()


async def test_an_instance_that_has_shown_another_sign_is_not_removed(db: ChatDb) -> None:
    """One that is removed ends its sessions, with the time, and no others."""
    one, two = await join(db), await join(db)
    session_id, other = await db.session(one), await db.session(two)
    assert await db.run("remove_instance", one, 5) == []
    assert (await db.row(session_id))["instance_id"] == one
    before = await db.now()
    assert len(await db.run("remove_instance", one, 0)) == 1
    assert await db.run("remove_instance", one, 0) == await db.run("remove_instance", one, None) == []
    row = await db.row(session_id)
    assert row["instance_id"] is None
    assert row["ended_at"] >= before
    assert (await db.row(other))["instance_id"] == two


async def test_an_instance_takes_back_its_sessions_and_hears_which_have_news(db: ChatDb) -> None:
    """Not those of a newer socket, which it is told of, like those that are gone or have unsent answers."""
    ended = await db.now()
    back, answered, superseded, elsewhere = [await db.session(None, ended_at=ended) for _ in range(4)]
    gone = new_uuid()
    sent_at = {id: (await db.row(id))["last_answer_at"] for id in (back, answered, superseded, elsewhere)}
    await db.push(answered)
    await db.sql('UPDATE "ChatSession" SET connection_no = 1 WHERE session_id = $1', superseded)
    await db.sql('UPDATE "ChatSession" SET instance_id = 9, ended_at = NULL WHERE session_id = $1', elsewhere)
    here = [back, answered, superseded, elsewhere, gone]
    times = [sent_at.get(id, ended) for id in here]
    rows = await db.run("reclaim_sessions", 3, here, [0] * 5, times)
    assert {row["session_id"] for row in rows} == {answered, superseded, gone}
    holders = [(await db.row(id))["instance_id"] for id in (back, answered, superseded, elsewhere)]
    assert holders == [3, 3, None, 9]
    assert (await db.row(back))["ended_at"] is None
    assert (await db.row(superseded))["ended_at"] == ended
