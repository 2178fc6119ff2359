"""Statements shared by many callers, and reads shared by whoever asks: nobody waits for ever or pays for others."""

import asyncio
from uuid import UUID

import pytest

from common.errors import DatabaseError, RowRefused
from common.ids import new_uuid
from database.shared import MAX_QUEUED, BatchedStatement, SingleFlight
from tests.support.statements import ChatDb, Row
from tests.support.waiting import PATIENCE_SECONDS, become

pytestmark = pytest.mark.anyio


def prompt(session_id: UUID, content: str = "질문") -> Row:
    return {"id": new_uuid(), "session_id": session_id, "content": content, "instance_id": 1, "shown_at": None}


@pytest.fixture
async def prompts(db: ChatDb) -> BatchedStatement:
    return BatchedStatement(db.database, "store_prompts", apart="id", max_rows=5)


async def statements(db: ChatDb, session_id: UUID) -> list[int]:
    """How many of a session's rows each statement stored, in the order of the statements."""
    rows = await db.sql(
        'SELECT count(*) FROM "Chat" WHERE session_id = $1 GROUP BY xmin ORDER BY min(created_at)', session_id
    )
    return [row["count"] for row in rows]


async def test_rows_put_at_once_share_statements_up_to_a_limit(db: ChatDb, prompts: BatchedStatement) -> None:
    session_id = await db.session()
    found = await asyncio.gather(*(prompts.put(prompt(session_id)) for _ in range(12)))
    assert all(len(rows) == 1 for rows in found)
    assert await statements(db, session_id) == [5, 5, 2]


async def test_rows_that_come_while_a_statement_runs_share_the_next(db: ChatDb, prompts: BatchedStatement) -> None:
    session_id = await db.session()
    async with db.database.transaction() as connection:
        await connection.execute('LOCK TABLE "Chat" IN SHARE MODE')
        first = prompts.put(prompt(session_id))
        await become(lambda: db.waiting(1))
        more = [prompts.put(prompt(session_id)) for _ in range(4)]
    await asyncio.gather(first, *more)
    assert await statements(db, session_id) == [1, 4]


async def test_a_refused_row_does_not_take_its_neighbours_with_it(db: ChatDb, prompts: BatchedStatement) -> None:
    session_id = await db.session()
    rows = [prompt(session_id, content) for content in ("하나", "글자가 아닌 \0", "셋")]
    found = await asyncio.gather(*map(prompts.put, rows), return_exceptions=True)
    assert [type(one) for one in found] == [list, RowRefused, list]
    assert [row["content"] for row in await db.said(session_id)] == ["하나", "셋"]


async def test_rows_with_the_same_value_are_kept_apart_and_in_order(db: ChatDb) -> None:
    session_id, other = await db.session(), await db.session()
    ids = [new_uuid() for _ in range(4)]
    rows = [
        {"session_id": s, "chat_id": id, "is_push": True} for s, id in zip([session_id] * 3 + [other], ids, strict=True)
    ]
    stored = await db.share("store_answers", *rows)
    assert [row["chat_id"] for ((row),) in stored] == ids
    assert [row["id"] for row in await db.said(session_id)] == ids[:3]


async def test_a_database_that_fails_fails_every_row_and_the_next_ones_are_stored(
    db: ChatDb, prompts: BatchedStatement
) -> None:
    session_id = await db.session()
    await db.sql('ALTER TABLE "Turn" RENAME TO "Elsewhere"')
    try:
        found = await asyncio.gather(*(prompts.put(prompt(session_id)) for _ in range(7)), return_exceptions=True)
    finally:
        await db.sql('ALTER TABLE "Elsewhere" RENAME TO "Turn"')
    assert {type(one) for one in found} == {DatabaseError}
    assert len(await prompts.put(prompt(session_id))) == 1


async def test_what_nobody_foresaw_leaves_no_caller_waiting(db: ChatDb, prompts: BatchedStatement) -> None:
    """Neither those of the statement nor those behind them; and the next ones are stored."""
    session_id, loop = await db.session(), asyncio.get_running_loop()
    usual = loop.get_exception_handler()
    loop.set_exception_handler(lambda *_: None)  # the fault is this test's own
    put = [prompts.put({"id": new_uuid()} if n == 1 else prompt(session_id)) for n in range(7)]
    async with asyncio.timeout(PATIENCE_SECONDS):
        found = await asyncio.gather(*put, return_exceptions=True)
        assert {type(one) for one in found} == {DatabaseError}
        assert len(await prompts.put(prompt(session_id))) == 1
    loop.set_exception_handler(usual)


async def test_a_caller_who_has_given_up_does_no_harm_to_the_others(db: ChatDb, prompts: BatchedStatement) -> None:
    session_id = await db.session()
    put = [prompts.put(prompt(session_id)) for _ in range(3)]
    put[1].cancel()
    assert [len(await one) for one in (put[0], put[2])] == [1, 1]


async def test_more_rows_than_may_wait_are_refused_at_once(db: ChatDb) -> None:
    asked = BatchedStatement(db.database, "get_persona_ids", apart="session_id")
    put = [asked.put({"session_id": new_uuid()}) for _ in range(MAX_QUEUED + 1)]
    assert isinstance(put[-1].exception(), DatabaseError)
    assert await asyncio.gather(*put[:-1]) == [[]] * MAX_QUEUED


# One read for whoever asks


class Reads:
    """A read that counts itself, and ends when it is let to."""

    def __init__(self) -> None:
        self.count = 0
        self.go_on = asyncio.Event()
        self.fails = False

    async def __call__(self) -> int:
        self.count += 1
        number = self.count
        await self.go_on.wait()
        if self.fails:
            raise DatabaseError
        return number


async def test_who_asks_during_a_read_waits_for_it_and_who_asks_later_has_it_for_a_while() -> None:
    reads = Reads()
    newest = SingleFlight(reads, max_age=60.0)
    asking = [asyncio.create_task(newest.get()) for _ in range(3)]
    await become(lambda: reads.count)
    reads.go_on.set()
    assert await asyncio.gather(*asking, newest.get()) == [1, 1, 1, 1]


async def test_what_is_too_old_is_read_again() -> None:
    reads = Reads()
    reads.go_on.set()
    newest = SingleFlight(reads, max_age=0.0)
    assert [await newest.get() for _ in range(3)] == [1, 2, 3]


async def test_who_stops_asking_does_not_end_the_read_of_the_others() -> None:
    reads = Reads()
    newest = SingleFlight(reads, max_age=60.0)
    first, second = asyncio.create_task(newest.get()), asyncio.create_task(newest.get())
    await become(lambda: reads.count)
    first.cancel()
    await asyncio.wait([first])
    reads.go_on.set()
    assert await second == 1


async def test_a_read_that_failed_is_told_to_all_who_waited_and_tried_again_by_the_next() -> None:
    reads = Reads()
    newest = SingleFlight(reads, max_age=60.0)
    asking = [asyncio.create_task(newest.get()) for _ in range(2)]
    await become(lambda: reads.count)
    reads.fails = True
    reads.go_on.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(one) for one in found] == [DatabaseError] * 2
    reads.fails = False
    assert await newest.get() == 2
