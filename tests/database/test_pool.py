"""A pool of connections to a database that fails: what is tried again, what is given up, and in what time."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from common.errors import DatabaseError, RowRefused
from common.ids import new_uuid
from database.migrations import migrate
from database.pool import Database
from tests.support.network import TcpProxy
from tests.support.postgres import PostgresServer
from tests.support.statements import ChatDb, open_pool
from tests.support.waiting import PATIENCE_SECONDS, become

pytestmark = pytest.mark.anyio

SOON = 0.5  # seconds that a statement may take where it is to fail


class Proxied:
    """A ChatDB with a proxy before it."""

    def __init__(self, server: PostgresServer, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.database = server.database(prefix="pool")
        self.url = self.database.url_at(proxy.port)

    async def pool(self, size: int = 1, timeout: float = PATIENCE_SECONDS, prepared: bool = True) -> Database:
        return await open_pool("chatdb", self.url, size, timeout, prepared=prepared)


@pytest.fixture(scope="module")
def proxied(postgres: PostgresServer) -> Iterator[Proxied]:
    with TcpProxy(postgres.port) as proxy:
        yield Proxied(postgres, proxy)


@pytest.fixture(scope="module", autouse=True)
async def migrated(proxied: Proxied) -> None:
    pool = await proxied.pool()
    await migrate(pool)
    await pool.close()


async def connections(pool: Database, count: int) -> None:
    """Has a pool open so many connections."""
    async with asyncio.TaskGroup() as group:
        barrier = asyncio.Barrier(count)

        async def hold() -> None:
            async with pool.transaction():
                await barrier.wait()

        for _ in range(count):
            group.create_task(hold())


async def test_a_statement_whose_connection_was_lost_is_run_again_on_a_new_one(proxied: Proxied) -> None:
    """What ended one connection has ended the others of the pool as well: none of them is tried."""
    pool = await proxied.pool(size=4)
    await connections(pool, 4)
    proxied.proxy.reset()
    assert await pool.fetch("list_personas") == []
    await pool.close()


async def test_a_server_that_became_read_only_is_left_for_one_that_can_be_written_to(proxied: Proxied) -> None:
    """As after a failover, when an old connection is healthy and of no use."""
    pool = await proxied.pool()
    async with pool.transaction() as connection:
        await connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    assert len(await pool.fetch("join_instance")) == 1
    await pool.close()


@pytest.mark.parametrize("code", ["40P01", "40001"], ids=["deadlock", "serialization"])
async def test_a_statement_that_fell_victim_to_others_is_run_again(db: ChatDb, code: str) -> None:
    """As PostgreSQL raises it, here for the first time only."""
    session_id = await db.session()
    await db.sql("CREATE SEQUENCE tries")
    await db.sql(
        "CREATE FUNCTION raise_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('tries') = 1 THEN RAISE EXCEPTION 'victim' USING ERRCODE = '{code}'; END IF;"
        " RETURN NEW; END $$"
    )
    await db.sql('CREATE TRIGGER raises BEFORE UPDATE ON "ChatSession" FOR EACH ROW EXECUTE FUNCTION raise_once()')
    try:
        await db.share("end_sessions", {"session_id": session_id, "connection_no": 0})
        assert (await db.row(session_id))["instance_id"] is None
    finally:
        await db.sql("DROP FUNCTION raise_once CASCADE")
        await db.sql("DROP SEQUENCE tries")


@pytest.mark.parametrize(
    "arguments", [("글자가 아닌 \0", None), ("이" * 101, None), (5, None)], ids=["NUL", "too long", "no text"]
)
async def test_values_that_the_database_refuses_are_told_from_its_failures(db: ChatDb, arguments: Any) -> None:
    with pytest.raises(RowRefused):
        await db.run("upsert_persona", *arguments)


async def test_a_database_that_is_silent_costs_a_statement_its_time_and_its_connection(proxied: Proxied) -> None:
    """It may be silent for ever on that one: the next statement gets another."""
    pool = await proxied.pool()
    await pool.fetch("list_personas")
    pool._timeout = SOON
    await become(lambda: proxied.proxy.connections == 1)
    proxied.proxy.freeze()
    started = time.monotonic()
    with pytest.raises(DatabaseError):
        await pool.fetch("list_personas")
    assert time.monotonic() - started < PATIENCE_SECONDS
    assert pool.connections_in_use == 0
    proxied.proxy.mend()
    await become(lambda: proxied.proxy.connections == 0, what="the silent connection was given up")
    pool._timeout = PATIENCE_SECONDS
    assert await pool.fetch("list_personas") == []
    await pool.close()


async def test_who_gets_no_connection_in_time_is_told_so(proxied: Proxied) -> None:
    pool = await proxied.pool()
    async with pool.transaction():
        pool._timeout = SOON
        with pytest.raises(DatabaseError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await pool.fetch("list_personas")
    pool._timeout = PATIENCE_SECONDS
    assert await pool.fetch("list_personas") == []
    await pool.close()


async def test_a_caller_who_is_cancelled_leaves_no_connection_in_use(db: ChatDb) -> None:
    session_id = await db.session()
    async with db.locked("ChatSession", session_id):
        waiting = asyncio.create_task(db.run("resume_session", session_id, 1, 1.0))
        await become(lambda: db.waiting(1))
        waiting.cancel()
        await asyncio.wait([waiting])
    assert db.database.connections_in_use == 0


async def test_closing_does_not_wait_for_a_connection_in_use(proxied: Proxied) -> None:
    pool = await proxied.pool()
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, OSError)):
            async with pool.transaction():
                pool._timeout = SOON
                await pool.close()


@pytest.mark.parametrize("prepared", [True, False])
async def test_statements_are_prepared_only_where_they_may_be(proxied: Proxied, prepared: bool) -> None:
    pool = await proxied.pool(prepared=prepared)
    await pool.fetch("list_personas")
    async with pool.transaction() as connection:
        rows = await connection.fetch("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%\"Persona\"%'")
        assert bool([row for row in rows if row["name"]]) == prepared
    await pool.close()


async def test_a_connection_that_is_kept_for_several_statements_is_given_back(db: ChatDb) -> None:
    async with db.database.keeping() as kept:
        await db.database.fetch("list_personas", kept=kept)
        assert db.database.connections_in_use == 1
        await db.database.fetch("get_key_hash", new_uuid(), kept=kept)
        assert db.database.connections_in_use == 1
    assert db.database.connections_in_use == 0
