"""SQL in files, run through a pool; the schema brought up to date; rows of many sessions in one statement."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import asyncpg

import metrics
from errors import DatabaseError, RowRefused
from logs import fields

logger = logging.getLogger("gateway.database")

SQL = Path(__file__).parent / "sql"
MIGRATION_LOCK = 0x6361_7264  # any number that no other program locks in ChatDB
MIGRATION_TIMEOUT = 600.0  # seconds; taking over a large database rewrites its tables
BATCH_ROWS = 500
BATCH_QUEUE = 20_000
KEPT_USES = 20  # statements on one connection before others who wait for one have their turn

# The connection went away or the server cannot write (a standby after a failover): a new connection may do better.
# Every statement here may be run twice, so one that was lost on its way is simply run again.
_TRY_AGAIN = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
_ROW_REFUSED = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, ValueError)

T = TypeVar("T")
_Row: TypeAlias = "tuple[tuple[object, ...], asyncio.Future[asyncpg.Record | None]]"  # and who waits for it


def load_statements(folder: str) -> dict[str, str]:
    """The statements of sql/<folder> by file name. Raises ValueError for one without its first comment line."""
    statements = {path.stem: path.read_text("utf-8") for path in sorted((SQL / folder).glob("*.sql"))}
    for name, text in statements.items():
        if not text.startswith("-- ") or text.rstrip().endswith(";"):
            raise ValueError(f"sql/{folder}/{name}.sql: a comment line first, then one statement without a semicolon")
    return statements


async def keep_session_state(connection: Any) -> None:
    """asyncpg's `reset` costs a round trip at each release; no statement here leaves anything behind to reset."""


class Kept:
    """Holds a connection between statements that follow one another at once; given back now and then, for others."""

    __slots__ = ("_connection", "_uses")

    def __init__(self) -> None:
        self._connection: Any = None
        self._uses = 0

    def pop(self) -> Any:
        connection, self._connection = self._connection, None
        return connection

    def push(self, connection: Any) -> bool:
        """Whether it is kept; otherwise it is to be released."""
        self._uses += 1
        if self._uses % KEPT_USES:
            self._connection = connection
        return self._connection is not None


class Database:
    """One database: a pool, and the statements that may be run on it.

    Every call takes at most `timeout` seconds to get a connection and as long again for the statement, and raises
    DatabaseError for whatever goes wrong.
    """

    def __init__(self, folder: str, dsn: str, *, size: int, timeout: float, prepared: bool = True) -> None:
        self.statements = load_statements(folder)
        self._folder = folder
        self._migrations = sorted((SQL / folder / "migrations").glob("*.sql"))
        self._timeout = timeout
        self._waited = metrics.db_wait_seconds.labels(folder)
        self._pool: asyncpg.Pool[asyncpg.Record] = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=size,
            timeout=timeout,
            reset=keep_session_state,
            max_inactive_connection_lifetime=300.0,
            statement_cache_size=100 if prepared else 0,
        )

    async def open(self) -> None:
        await self._pool

    async def close(self) -> None:
        """Waits at most `timeout` seconds for connections in use, then cuts them."""
        try:
            await asyncio.wait_for(self._pool.close(), self._timeout)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    @property
    def newest_migration(self) -> str:
        return self._migrations[-1].stem

    @property
    def connections_in_use(self) -> int:
        return self._pool.get_size() - self._pool.get_idle_size()

    async def fetch(self, name: str, *args: object, kept: Kept | None = None) -> list[asyncpg.Record]:
        """Runs sql/<folder>/<name>.sql. Raises DatabaseError."""
        query = self.statements[name]
        try:
            try:
                return await self._run(query, args, kept)
            except (TimeoutError, *_ROW_REFUSED):
                raise
            except _TRY_AGAIN as error:
                logger.info("statement is run again", extra=fields(statement=name, error=describe(error)))
                if not isinstance(error, asyncpg.DeadlockDetectedError):
                    await self._pool.expire_connections()  # what ended one connection has ended the others as well
                return await self._run(query, args, kept)
        except _ROW_REFUSED as error:
            logger.error("statement refused", extra=fields(statement=name, error=describe(error)))
            raise RowRefused from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            logger.error("statement failed", extra=fields(statement=name, error=describe(error)))
            raise DatabaseError from error

    async def fetchrow(self, name: str, *args: object) -> asyncpg.Record | None:
        rows = await self.fetch(name, *args)
        return rows[0] if rows else None

    async def fetch_all_or_nothing(self, name: str, rows: Iterable[Sequence[object]]) -> list[asyncpg.Record]:
        """Runs a statement for each row in one transaction; what they returned. Raises asyncpg's own errors."""
        async with self._pool.acquire(timeout=self._timeout) as connection, connection.transaction():
            found = [await connection.fetch(self.statements[name], *row, timeout=self._timeout) for row in rows]
        return [row for rows_found in found for row in rows_found]

    async def _run(self, query: str, args: tuple[object, ...], kept: Kept | None) -> list[asyncpg.Record]:
        connection = (kept and kept.pop()) or await self._acquire()
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args, timeout=self._timeout)
            if kept and kept.push(connection):
                connection = None
            return rows
        except (TimeoutError, asyncio.CancelledError):
            # Asking a server that has gone silent to cancel can hang as well.
            connection.terminate()
            raise
        finally:
            await self._release(connection)

    async def _acquire(self) -> Any:
        started = time.perf_counter()
        # Taking an idle one needs no time limit, which is a task in Python 3.11; to replace a dead one has its own.
        connection = await self._pool.acquire(timeout=None if self._pool.get_idle_size() else self._timeout)
        self._waited.observe(time.perf_counter() - started)
        return connection

    async def _release(self, connection: Any) -> None:
        if connection is not None:
            await self._pool.release(connection, timeout=self._timeout)

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[Kept]:
        """A connection that is kept between statements which follow one another at once."""
        kept = Kept()
        try:
            yield kept
        finally:
            with suppress(asyncpg.InterfaceError):  # the pool was closed meanwhile
                await self._release(kept.pop())

    async def migrate(self) -> None:
        """Applies what is missing of sql/<folder>/migrations, in order, all or nothing, one instance at a time."""
        async with self._pool.acquire(timeout=self._timeout) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK, timeout=MIGRATION_TIMEOUT)
            await connection.execute(
                'CREATE TABLE IF NOT EXISTS "SchemaMigration" '
                "(name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            applied = {row["name"] for row in await connection.fetch('SELECT name FROM "SchemaMigration"')}
            for path in self._migrations:
                if path.stem not in applied:
                    logger.info("migration", extra=fields(name=path.stem))
                    await connection.execute(path.read_text("utf-8"), timeout=MIGRATION_TIMEOUT)
                    await connection.execute('INSERT INTO "SchemaMigration" (name) VALUES ($1)', path.stem)


def describe(error: BaseException) -> str:
    """An error for the log: PostgreSQL's own sentence, which names no values; otherwise the kind."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{type(error).__name__}: {error.message}"
    return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__


class SharedStatement:
    """Rows of all sessions in one statement, each caller waiting for its own row.

    While the statement runs, rows queue up for the next one; so an idle gateway adds nothing to a single row, and a
    busy one shares round trips and commits. The statement takes an array for each column and returns rows with the
    number `n` of the row they belong to. Rows that are alike in their first column go into statements of their own, in
    their order. A row that the database refuses does not take its neighbours with it.
    """

    def __init__(self, database: Database, statement: str) -> None:
        self._database = database
        self._statement = statement
        self._sizes = metrics.batch_rows.labels(statement)
        self._queue: list[_Row] = []
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def put(self, *row: object) -> asyncio.Future[asyncpg.Record | None]:
        """Queues a row; the future gives what the statement returned for it, if anything, or raises DatabaseError."""
        future: asyncio.Future[asyncpg.Record | None] = self._loop.create_future()
        if len(self._queue) >= BATCH_QUEUE:
            logger.error("too many rows wait for a statement", extra=fields(statement=self._statement))
            future.set_exception(DatabaseError())
            return future
        self._queue.append((row, future))
        if self._task is None:
            self._task = self._loop.create_task(self._work())
        return future

    async def _work(self) -> None:
        try:
            while self._queue:  # also with what comes while the connection is released
                async with self._database.keeping() as kept:
                    while self._queue:
                        await self._run_batch(self._take_batch(), kept)
        finally:
            self._task = None
            _fail(self._queue, DatabaseError())
            self._queue = []

    async def _run_batch(self, batch: list[_Row], kept: Kept) -> None:
        try:
            await self._run(batch, kept)
        except RowRefused:
            for one in batch:
                try:
                    await self._run([one], kept)
                except DatabaseError as error:
                    _fail([one], error)
        except DatabaseError as error:
            _fail(batch, error)
        except BaseException:
            _fail(batch, DatabaseError())
            raise

    def _take_batch(self) -> list[_Row]:
        batch: dict[object, _Row] = {}
        left = []
        for one in self._queue:
            key = one[0][0]
            if len(batch) < BATCH_ROWS and key not in batch:
                batch[key] = one
            else:
                left.append(one)
        self._queue = left
        return list(batch.values())

    async def _run(self, batch: list[_Row], kept: Kept) -> None:
        self._sizes.observe(len(batch))
        columns = zip(*(row for row, _ in batch), strict=True)
        found = {row["n"]: row for row in await self._database.fetch(self._statement, *map(list, columns), kept=kept)}
        for n, (_, future) in enumerate(batch, 1):
            if not future.done():
                future.set_result(found.get(n))


def _fail(batch: list[_Row], error: DatabaseError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


class SharedRead(Generic[T]):
    """One query at a time, whoever asks.

    What was read is good for `max_age` seconds; who comes while a query runs waits for it.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], max_age: float) -> None:
        self._read = read
        self._max_age = max_age
        self._good_until = 0.0
        self._value: T
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Raises what `read` raises."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._good_until:
            return self._value
        if self._task is None:
            self._task = loop.create_task(self._refresh())
        return await asyncio.shield(self._task)

    async def _refresh(self) -> T:
        try:
            self._value = await self._read()
            self._good_until = asyncio.get_running_loop().time() + self._max_age
            return self._value
        finally:
            self._task = None
