"""Sessions that are opened, resumed, superseded and left, at chosen moments: the parts of an instance or two."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from common.errors import DatabaseError
from common.ids import new_uuid
from tests.support.parts import Client, Parts, Visitor, parts
from tests.support.statements import ChatDb
from tests.support.waiting import become
from tests.support.world import NewWorld, World

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
SUPERSEDED = (4001, "The session was opened elsewhere")


@pytest.fixture(scope="module")
def world(new_world: NewWorld, db: ChatDb) -> World:
    return new_world()


async def test_a_new_session_is_stored_with_the_hash_of_its_key(db: ChatDb, here: Parts) -> None:
    visitor = await here.visit()
    row = await db.row(visitor.id)
    assert row["instance_id"] == here.id
    assert visitor.key and visitor.key.encode() not in row["key_hash"]
    assert await _is_held(db, visitor, here)


async def _is_held(db: ChatDb, visitor: Visitor, parts: Parts | None) -> bool:
    return bool((await db.row(visitor.id))["instance_id"] == (parts.id if parts else None))


async def test_who_leaves_is_gone_here_and_in_the_database(db: ChatDb, here: Parts) -> None:
    visitor = await here.visit()
    assert len(here.chat.sessions) == 1
    visitor.leave()
    assert len(here.chat.sessions) == 0
    await become(lambda: _is_held(db, visitor, None))
    assert not here.chat.sessions.leave(visitor.session)


async def test_an_end_that_cannot_be_stored_is_stored_later(db: ChatDb, here: Parts) -> None:
    """After five seconds, since that is nothing that anybody waits for."""
    visitor = await here.visit()
    await db.sql('ALTER TABLE "ChatSession" RENAME TO "Elsewhere"')
    try:
        visitor.leave()
        await become(lambda: not here.chat.sessions._end_sessions._queue)
        await asyncio.sleep(0.1)
    finally:
        await db.sql('ALTER TABLE "Elsewhere" RENAME TO "ChatSession"')
    await become(lambda: _is_held(db, visitor, None))


async def test_a_session_that_is_being_opened_counts(db: ChatDb, here: Parts) -> None:
    """Otherwise any number could come at once; one whose opening failed does not count any more."""
    client = Client()
    client.reads.clear()
    opening = asyncio.create_task(here.chat.sessions.open(await client.open(), None, None, streams=False))
    assert len(here.chat.sessions) == 0
    await asyncio.sleep(0)
    assert len(here.chat.sessions) == 1
    client.reads.set()
    here.chat.sessions.leave(await opening)
    await db.sql('ALTER TABLE "ChatSession" RENAME TO "Elsewhere"')
    try:
        with pytest.raises(DatabaseError):
            await here.visit()
    finally:
        await db.sql('ALTER TABLE "Elsewhere" RENAME TO "ChatSession"')
    assert len(here.chat.sessions) == 0


async def test_a_session_whose_missed_answers_cannot_be_read_is_let_go(db: ChatDb, here: Parts) -> None:
    visitor = await here.visit()
    await db.push(visitor.id)
    visitor.leave()
    await become(lambda: _is_held(db, visitor, None))
    await db.sql('ALTER TABLE "ChatbotResponse" RENAME TO "Elsewhere"')
    try:
        with pytest.raises(DatabaseError):
            await here.resume(visitor, (await db.row(visitor.id))["created_at"] - HOUR)
    finally:
        await db.sql('ALTER TABLE "Elsewhere" RENAME TO "ChatbotResponse"')
    assert here.chat.sessions.find(visitor.id) is None
    await become(lambda: _is_held(db, visitor, None))


async def test_a_time_in_the_future_hides_no_answer_that_is_still_to_come(db: ChatDb, here: Parts) -> None:
    """And without a time nothing is replayed."""
    visitor = await here.visit()
    await db.push(visitor.id, content="전")
    for since in (await db.now() + HOUR, None):
        again = await here.resume(visitor, since)
        assert again.client.told == []
        await db.push(visitor.id, content="후")
        here.chat.delivery.look_at(visitor.id)
        await again.client.until_told("후")


async def test_prompts_of_the_last_minute_count_on_after_a_resume(db: ChatDb, here: Parts) -> None:
    """Whoever sends too much gains nothing by connecting again, to any instance."""
    visitor = await here.visit()
    for _ in range(3):
        await db.prompt(visitor.id, instance_id=-1)
    assert (await here.resume(visitor)).session.prompts.counted == 3


async def test_an_older_socket_here_is_closed_and_does_not_end_the_session(db: ChatDb, here: Parts) -> None:
    visitor = await here.visit()
    again = await here.resume(visitor)
    await become(lambda: visitor.client.closed == SUPERSEDED)
    assert not here.chat.sessions.leave(visitor.session)
    assert here.chat.sessions.find(visitor.id) is again.session
    assert await _is_held(db, visitor, here)
    assert len(here.chat.sessions) == 1


async def test_of_two_resumes_that_cross_the_newer_stays(db: ChatDb, here: Parts) -> None:
    """Though the older one is the last that is heard of."""
    visitor = await here.visit()
    newer = await here.resume(visitor)
    late = Client()
    session = here.chat.sessions._make(await late.open(), visitor.id, 0, newer.session.sent_at)
    here.chat.sessions._put_in_place(session, here.id)
    await become(lambda: late.closed == SUPERSEDED)
    assert here.chat.sessions.find(visitor.id) is newer.session
    assert newer.client.closed is None


async def test_the_instance_of_an_older_socket_is_told_and_closes_it(db: ChatDb, here: Parts, there: Parts) -> None:
    """By what it reads: a notice says only which session to look at."""
    heard: list[str] = []
    visitor = await here.visit()
    listening = await asyncpg.connect(db.url)
    await listening.add_listener(f"gateway_instance_{here.id}", lambda *notice: heard.append(str(notice[-1])))
    await there.resume(visitor)
    await become(lambda: heard == [str(visitor.id)])
    await listening.close()
    here.chat.hear_of_session(heard[0])
    await become(lambda: visitor.client.closed == SUPERSEDED)
    visitor.leave()
    await asyncio.sleep(0)
    assert await _is_held(db, visitor, there)


async def test_an_instance_that_was_declared_dead_looks_after_its_sessions(
    db: ChatDb, here: Parts, there: Parts
) -> None:
    """Those that were ended meanwhile are its own again, what they missed is sent, and who has left has left."""
    stays, leaves, moves = [await here.visit() for _ in range(3)]
    await db.run("remove_instance", here.id, None)
    await db.push(stays.id, content="놓친 글")
    leaves.session.socket.is_open = False
    moved = await there.resume(moves)
    await here.chat.delivery.look_around()
    await stays.client.until_told("놓친 글")
    await become(lambda: moves.client.closed == SUPERSEDED)
    await become(lambda: _is_held(db, leaves, None))
    assert await _is_held(db, stays, here)
    assert await _is_held(db, moved, there)


async def test_with_nobody_there_is_nothing_to_look_after(db: ChatDb, here: Parts) -> None:
    await here.chat.delivery.look_around()
    here.chat.delivery.look_at(new_uuid())
    assert not len(here.chat.delivery.tasks)


async def test_stopping_closes_every_socket_and_cuts_those_that_do_not_close(db: ChatDb, here: Parts) -> None:
    visitors = [await here.visit() for _ in range(3)]

    async def leave(visitor: Visitor) -> None:
        await become(lambda: visitor.client.closed)
        visitor.leave()

    leaving = asyncio.gather(*(leave(visitor) for visitor in visitors[1:]))
    await here.chat.sessions.close_all()
    await leaving
    assert {visitor.client.closed for visitor in visitors} == {(1012, "Server is restarting")}
    assert visitors[0].client.is_cut


async def test_a_visitor_who_does_not_read_is_cut_off(db: ChatDb, world: World) -> None:
    """After the time for a frame; the session is free for another socket."""
    async with parts(db, world, send_timeout=0.2) as here:
        visitor = await here.visit()
        visitor.client.unread = 1
        visitor.client.reads.clear()
        await db.push(visitor.id)
        here.chat.delivery.look_at(visitor.id)
        await become(lambda: visitor.client.is_cut)
        assert not visitor.session.socket.is_open
        visitor.client.reads.set()
        await visitor.session.socket.send(b'{"message": "late"}')
        assert visitor.client.told == []
