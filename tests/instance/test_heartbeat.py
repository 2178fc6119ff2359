"""Signs of life: who is declared dead, by whom, and when."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from common.clock import Clock
from common.errors import DatabaseError
from database.notices import INSTANCE_LOCK
from database.pool import Database
from service.heartbeat import CRASHED_SECONDS, Heartbeat
from tests.support.network import TcpProxy
from tests.support.postgres import PostgresServer
from tests.support.statements import ChatDb, open_pool

pytestmark = pytest.mark.anyio


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[TcpProxy]:
    with TcpProxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
async def cuttable(db: ChatDb, proxy: TcpProxy, postgres: PostgresServer) -> AsyncIterator[Database]:
    """The same ChatDB through the proxy."""
    url = db.url.replace(f":{postgres.port}/", f":{proxy.port}/")
    database = await open_pool("chatdb", url)
    yield database
    await database.close()


class Instances:
    """Instances that are registered, each known by a word."""

    def __init__(self, db: ChatDb) -> None:
        self.db = db
        self.ids: dict[str, int] = {}

    async def join(self, name: str, database: Database | None = None) -> Heartbeat:
        (row,) = await self.db.run("join_instance")
        self.ids[name] = row["id"]
        return Heartbeat(row["id"], Clock(row["now"]), database or self.db.database)

    async def there(self) -> set[str]:
        rows = await self.db.sql('SELECT id FROM "Instance"')
        return {name for name, id in self.ids.items() if id in {row["id"] for row in rows}}


async def test_who_shows_no_sign_of_life_is_declared_dead_unless_it_holds_its_lock(
    db: ChatDb, cuttable: Database, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """By who has watched it for so long: not by who could not look meanwhile, and not who beats."""
    caplog.set_level(logging.WARNING)
    instances = Instances(db)
    watcher, blinded = await instances.join("watcher"), await instances.join("blinded", cuttable)
    await instances.join("beating")
    silent, locked = await instances.join("silent"), await instances.join("locked")
    everybody = set(instances.ids)
    for heartbeat in (silent, locked, blinded, watcher):
        assert not (await heartbeat.beat(is_shown=False)).was_given_up
    locking = await asyncpg.connect(db.url)
    await locking.execute(f"SELECT pg_advisory_lock({INSTANCE_LOCK}, {instances.ids['locked']})")
    proxy.cut()
    with pytest.raises(DatabaseError):
        await blinded.beat(is_shown=False)
    proxy.mend()
    await asyncio.sleep(CRASHED_SECONDS / 2)
    await db.run("renew_instance", instances.ids["beating"], INSTANCE_LOCK, 1, True)
    assert not (await watcher.beat(is_shown=False)).was_given_up
    assert await instances.there() == everybody
    await asyncio.sleep(CRASHED_SECONDS / 2 + 0.1)
    assert (await blinded.beat(is_shown=False)).has_lost_others, "for all that it knows"
    assert await instances.there() == everybody
    assert not (await watcher.beat(is_shown=False)).was_given_up
    assert await instances.there() == everybody - {"silent"}
    assert [record.getMessage() for record in caplog.records if "instance lost" in record.getMessage()]
    assert (await silent.beat(is_shown=False)).was_given_up
    assert not (await silent.beat(is_shown=False)).was_given_up
    assert await instances.there() == everybody
    await locking.close()
