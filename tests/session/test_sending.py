"""A session sends each answer and push once, in the order of their times, whatever crosses."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from chat.frames import PlacedAnswer
from chat.session import REMEMBERED, Session
from chat.socket import Socket
from common.ids import new_uuid
from database.shared import BatchedStatement
from tests.support.parts import Client
from tests.support.statements import ChatDb, Row
from upstream.replies import Answer

pytestmark = pytest.mark.anyio


class HeldReads(BatchedStatement):
    """Reads whose rows are given only when they are let go; they were read before."""

    def hold(self) -> None:
        self.are_read, self.go_on = asyncio.Event(), asyncio.Event()

    def put(self, row: dict[str, object]) -> asyncio.Future[list[asyncpg.Record]]:
        read = super().put(row)
        return asyncio.ensure_future(self._pass_on(read)) if hasattr(self, "go_on") else read

    async def _pass_on(self, read: Awaitable[list[asyncpg.Record]]) -> list[asyncpg.Record]:
        rows = await read
        self.are_read.set()
        await self.go_on.wait()
        return rows


class Visit:
    """A session of which everything stored so far has been sent."""

    def __init__(self, db: ChatDb, client: Client, session: Session, reads: HeldReads) -> None:
        self.db = db
        self.client = client
        self.session = session
        self.reads = reads

    async def push(self, text: str) -> Row:
        """A push that is stored, and of which the session is not told."""
        return await self.db.push(self.session.id, content=text)

    async def deliver(self, stored: Row, text: str) -> None:
        placed = PlacedAnswer(stored["chat_id"], stored["chat_id"], stored["created_at"], Answer(text))
        await self.session.deliver(placed, stored["previous_at"])


@pytest.fixture
async def visit(db: ChatDb) -> Visit:
    client, id = Client(), await db.session()
    reads = HeldReads(db.database, "list_unsent_answers", apart="session_id")
    socket = Socket(await client.open(), id, send_timeout=60.0)
    return Visit(db, client, Session(id, 0, socket, (await db.row(id))["last_answer_at"], reads), reads)


async def test_an_answer_is_sent_as_it_is_given_if_nothing_lies_before_it(visit: Visit) -> None:
    """Without reading it again."""
    stored = await visit.push("저장된 글")
    await visit.deliver(stored, "건네받은 글")
    assert visit.client.frames == [
        {
            "sender": "bot",
            "timestamp": stored["created_at"].astimezone(UTC).isoformat(timespec="microseconds"),
            "message_id": str(stored["chat_id"]),
            "message": "건네받은 글",
            "login_required": False,
        }
    ]
    assert visit.session.sent_at == stored["created_at"]


async def test_what_another_instance_stored_in_between_is_sent_before(visit: Visit) -> None:
    await visit.push("하나")
    await visit.push("둘")
    await visit.deliver(await visit.push("셋"), "셋")
    assert visit.client.told == ["하나", "둘", "셋"]


async def test_what_was_sent_is_not_sent_again_however_late_it_is_delivered(visit: Visit) -> None:
    first, second = await visit.push("하나"), await visit.push("둘")
    for stored, text in ((second, "둘"), (first, "하나"), (second, "둘")):
        await visit.deliver(stored, text)
    await visit.session.catch_up()
    assert visit.client.told == ["하나", "둘"]


async def test_answers_at_once_are_sent_one_after_the_other(visit: Visit) -> None:
    stored = [await visit.push(str(n)) for n in range(3)]
    visit.client.reads.clear()
    delivering = [asyncio.create_task(visit.deliver(one, str(n))) for n, one in enumerate(stored)]
    await visit.client.is_sent_to.wait()
    visit.client.reads.set()
    await asyncio.gather(*delivering)
    assert visit.client.told == ["0", "1", "2"]


async def test_news_during_the_sending_of_others_is_sent_too(visit: Visit) -> None:
    await visit.push("하나")
    visit.client.reads.clear()
    first = asyncio.create_task(visit.session.catch_up())
    await visit.client.is_sent_to.wait()
    await visit.push("둘")
    second = asyncio.create_task(visit.session.catch_up())
    await asyncio.sleep(0)
    visit.client.reads.set()
    await asyncio.gather(first, second)
    assert visit.client.told == ["하나", "둘"]


async def test_news_after_a_read_and_before_its_rows_are_sent_is_read_anew(visit: Visit) -> None:
    visit.reads.hold()
    await visit.push("하나")
    first = asyncio.create_task(visit.session.catch_up())
    await visit.reads.are_read.wait()
    await visit.push("둘")
    second = asyncio.create_task(visit.session.catch_up())
    await asyncio.sleep(0)
    visit.reads.go_on.set()
    await asyncio.gather(first, second)
    assert visit.client.told == ["하나", "둘"]


async def test_many_who_bring_the_same_news_cost_one_read(visit: Visit) -> None:
    """Or two, if one has begun."""
    await visit.push("하나")
    await asyncio.gather(*(visit.session.catch_up() for _ in range(10)))
    assert visit.client.told == ["하나"]
    assert not visit.session.has_news


async def test_more_than_are_read_at_once_are_all_sent(visit: Visit) -> None:
    for n in range(25):
        await visit.push(str(n))
    await visit.session.catch_up()
    assert visit.client.told == [str(n) for n in range(25)]


async def test_the_first_frame_comes_before_what_was_missed(visit: Visit) -> None:
    await visit.push("놓친 글")
    await visit.session.begin(b'{"message": "first"}', has_news=True)
    assert visit.client.told == ["first", "놓친 글"]


async def test_a_new_session_reads_nothing(visit: Visit) -> None:
    await visit.push("새 글")
    await visit.session.begin(b'{"message": "first"}')
    assert visit.client.told == ["first"]


@pytest.mark.parametrize("change", ["connection_no = 1", "gone"])
async def test_a_socket_that_was_superseded_or_lost_its_session_is_closed_and_told_nothing(
    visit: Visit, change: str
) -> None:
    await visit.push("다른 소켓에 갈 글")
    statement = 'DELETE FROM "ChatSession"' if change == "gone" else f'UPDATE "ChatSession" SET {change}'
    await visit.db.sql(f"{statement} WHERE session_id = $1", visit.session.id)
    await visit.session.catch_up()
    assert visit.client.closed == (4001, "The session was opened elsewhere")
    assert visit.client.told == []
    assert not visit.session.socket.is_open


async def test_nothing_is_read_for_a_socket_that_is_closed(visit: Visit) -> None:
    await visit.push("늦은 글")
    visit.session.socket.is_open = False
    visit.reads.hold()
    await asyncio.wait_for(visit.session.catch_up(), 20)
    assert visit.client.told == []


# What is shown before it is stored


def unstored(created_at: datetime, message_id: UUID | None = None) -> PlacedAnswer:
    return PlacedAnswer(new_uuid(), message_id or new_uuid(), created_at, Answer("아직 저장되지 않은 답"))


async def test_what_is_shown_has_a_time_after_all_that_was_sent(visit: Visit) -> None:
    """Whatever this machine's clock says."""
    sent_at = visit.session.sent_at
    behind, ahead = sent_at - timedelta(hours=1), sent_at + timedelta(hours=1)
    assert await visit.session.show(unstored(behind)) == sent_at + timedelta(microseconds=1)
    assert await visit.session.show(unstored(ahead)) == ahead
    times = [datetime.fromisoformat(frame["timestamp"]) for frame in visit.client.frames]
    assert times == [sent_at + timedelta(microseconds=1), ahead]


async def test_what_was_shown_is_not_sent_again_when_it_is_stored(visit: Visit) -> None:
    """And what came before and after it is."""
    shown = unstored(datetime.now(UTC) + timedelta(hours=1))
    shown_at = await visit.session.show(shown)
    await visit.push("전")
    stored = await visit.db.push(visit.session.id, content="본 답", chat_id=shown.id, sent_at=shown_at)
    assert stored["created_at"] == shown_at
    await visit.push("후")
    await visit.session.catch_up()
    assert visit.client.told == ["아직 저장되지 않은 답", "전", "후"]


async def test_the_last_prompts_and_pushes_that_were_answered_are_known(visit: Visit) -> None:
    """Shown or sent: nothing that was being made for them is shown any more."""
    shown = unstored(datetime.now(UTC))
    await visit.session.show(shown)
    assert visit.session.answered == (shown.message_id,)
    ids = [(await visit.push(str(n)))["chat_id"] for n in range(REMEMBERED - 1)]
    await visit.session.catch_up()
    assert visit.session.answered == (shown.message_id, *ids)
    last = await visit.push("끝")
    await visit.session.catch_up()
    assert visit.session.answered == (*ids, last["chat_id"])
    assert len(visit.session.answered) == REMEMBERED >= 8


async def test_who_watches_is_told_of_the_next_answer_alone(visit: Visit) -> None:
    watchers = [asyncio.Event(), asyncio.Event()]
    for watcher in watchers:
        visit.session.watch(watcher)
    await visit.push("하나")
    await visit.session.catch_up()
    assert all(watcher.is_set() for watcher in watchers)
    watchers[0].clear()
    await visit.push("둘")
    await visit.session.catch_up()
    assert not watchers[0].is_set()
