"""LISTEN and NOTIFY over connections that break: word arrives, or is known to have been missed."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import orjson
import pytest

from common.addresses import database_url
from common.errors import DatabaseError
from common.ids import new_uuid
from database.notices import INSTANCE_LOCK, SESSIONS, WORDS, Listener, Notifier
from tests.support.network import TcpProxy
from tests.support.postgres import PostgresServer
from tests.support.statements import ChatDb, open_pool
from tests.support.waiting import become

pytestmark = pytest.mark.anyio

ID = 4711


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[TcpProxy]:
    with TcpProxy(postgres.port) as proxy:
        yield proxy


class Ear:
    """A listening instance: what it heard on each channel, and how often it was connected."""

    def __init__(self, url: str) -> None:
        self.listener = Listener(database_url(url), ID, timeout=20.0)
        self.sessions: list[str] = []
        self.words: list[str] = []
        self.connected = self.failures = 0
        self.task = asyncio.create_task(
            self.listener.listen({SESSIONS: self.hear_of_session, WORDS: self.words.append}, self.on_connected)
        )

    def hear_of_session(self, text: str) -> None:
        if "nonsense" in text:
            raise ValueError(text)
        self.sessions.append(text)

    async def on_connected(self) -> None:
        self.connected += 1
        if self.failures:
            self.failures -= 1
            raise DatabaseError


def through(proxy: TcpProxy, db: ChatDb, postgres: PostgresServer) -> str:
    """The same ChatDB through a proxy."""
    return db.url.replace(f":{postgres.port}/", f":{proxy.port}/")


@pytest.fixture
async def ear(db: ChatDb, proxy: TcpProxy, postgres: PostgresServer) -> AsyncIterator[Ear]:
    ear = Ear(through(proxy, db, postgres))
    await become(lambda: ear.listener.is_listening)
    yield ear
    ear.task.cancel()
    await asyncio.wait([ear.task])


async def test_word_arrives_on_its_channel_in_order_and_nonsense_does_no_harm(db: ChatDb, ear: Ear) -> None:
    notifier, ids = Notifier(db.database), [new_uuid() for _ in range(3)]
    await db.sql(f"SELECT pg_notify('{SESSIONS.format(ID)}', 'nonsense')")
    for id in ids:
        await notifier.notify(ID, id)
    words = [{"type": "draft", "number": number} for number in range(5)]
    assert await notifier.tell(ID, list(words)) == sum(len(orjson.dumps(word)) for word in words)
    await notifier.notify(ID + 1, new_uuid())
    await become(lambda: len(ear.words) == 5 and len(ear.sessions) == 3)
    assert ear.sessions == [str(id) for id in ids]
    assert [orjson.loads(word) for word in ear.words] == words


async def test_the_same_word_twice_at_once_is_heard_by_each_instance_it_is_for(db: ChatDb, ear: Ear) -> None:
    """Two instances are told of one session in one moment."""
    notifier, id = Notifier(db.database), new_uuid()
    await asyncio.gather(notifier.notify(ID + 1, id), notifier.notify(ID, id))
    await become(lambda: ear.sessions == [str(id)])


async def test_a_lost_connection_is_noticed_at_once_and_made_again(db: ChatDb, ear: Ear, proxy: TcpProxy) -> None:
    """What was missed is looked for after each connect, and the lock is taken again that shows who lives."""
    for count in (2, 3):
        proxy.reset()
        await become(lambda count=count: ear.connected == count and ear.listener.is_listening)  # type: ignore[misc]
    await Notifier(db.database).notify(ID, new_uuid())
    await become(lambda: ear.sessions)
    assert await is_locked(db)
    assert proxy.connections == 1


async def test_a_connection_that_the_server_ends_is_made_again(db: ChatDb, ear: Ear) -> None:
    await db.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1", ID)
    await become(lambda: ear.connected == 2 and ear.listener.is_listening)


async def test_what_fails_after_a_connect_is_tried_again_and_leaves_no_connection(ear: Ear, proxy: TcpProxy) -> None:
    ear.failures = 2
    proxy.reset()
    await become(lambda: ear.connected == 4 and ear.listener.is_listening)
    await become(lambda: proxy.connections == 1)


async def test_the_lock_is_held_while_it_listens_and_given_up_with_it(db: ChatDb, ear: Ear) -> None:
    await become(lambda: is_locked(db))
    ear.task.cancel()
    await become(lambda: not_locked(db))


async def is_locked(db: ChatDb) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2"
    return bool(await db.value(query, INSTANCE_LOCK, ID))


async def not_locked(db: ChatDb) -> bool:
    return not await is_locked(db)


async def test_a_notice_that_cannot_be_sent_is_sent_later_and_a_word_is_let_go(
    db: ChatDb, ear: Ear, postgres: PostgresServer
) -> None:
    """Only the connection on which they are sent is away for a moment."""
    with TcpProxy(postgres.port) as away:
        database = await open_pool("chatdb", through(away, db, postgres))
        away.cut()
        id = new_uuid()
        notifier = Notifier(database)
        notifying = asyncio.create_task(notifier.notify(ID, id))
        assert await notifier.tell(ID, [{"type": "stop"}]) == 0
        away.mend()
        await notifying
        await become(lambda: ear.sessions == [str(id)])
        await database.close()
