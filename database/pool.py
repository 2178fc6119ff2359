"""A pool of connections to one database, and the SQL files that may be run on it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from common import metrics
from common.errors import DatabaseError, RowRefused
from common.logs import log

SQL = Path(__file__).parent.parent / "sql"
IDLE_SECONDS = 300.0
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
FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def load_statements(folder: str) -> dict[str, str]:
    """The statements of sql/<folder> by file name. Raises ValueError for one without its first comment line."""
    statements = {path.stem: path.read_text("utf-8") for path in sorted((SQL / folder).glob("*.sql"))}
    for name, text in statements.items():
        if not text.startswith("-- ") or text.rstrip().endswith(";"):
            raise ValueError(f"sql/{folder}/{name}.sql: a comment line first, then one statement without a semicolon")
    return statements


class Database:
    """Every statement takes at most `timeout` seconds to get a connection and as many again to run."""

    def __init__(self, folder: str, dsn: str, size: int, timeout: float, prepared: bool = True) -> None:
        self.statements = load_statements(folder)
        self._timeout = timeout
        self._waited = metrics.db_wait_seconds.labels(folder)
        self._pool: asyncpg.Pool[asyncpg.Record] = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=size,
            timeout=timeout,
            reset=_keep_session_state,
            max_inactive_connection_lifetime=IDLE_SECONDS,
            statement_cache_size=100 if prepared else 0,
        )

    async def open(self) -> None:
        await self._pool

    async def close(self) -> None:
        """Waits at most `timeout` seconds for connections in use, then cuts them."""
        try:
            await asyncio.wait_for(self._pool.close(), self._timeout)
        except (TimeoutError, *FAILED):
            self._pool.terminate()

    @property
    def connections_in_use(self) -> int:
        return self._pool.get_size() - self._pool.get_idle_size()

    async def fetch(self, name: str, *args: object, kept: list[Any] | None = None) -> list[asyncpg.Record]:
        """Runs sql/<folder>/<name>.sql, on a connection kept by `keeping` if given. Raises DatabaseError."""
        query = self.statements[name]
        try:
            try:
                return await self._run(query, args, kept)
            except (TimeoutError, *_ROW_REFUSED):
                raise
            except _TRY_AGAIN as error:
                log.info("statement is run again", statement=name, error=describe(error))
                if not isinstance(error, asyncpg.DeadlockDetectedError):
                    await self._pool.expire_connections()  # what ended one connection has ended the others as well
                return await self._run(query, args, kept)
        except _ROW_REFUSED as error:
            log.error("statement refused", statement=name, error=describe(error))
            raise RowRefused from error
        except FAILED as error:
            log.error("statement failed", statement=name, error=describe(error))
            raise DatabaseError from error

    async def fetchrow(self, name: str, *args: object) -> asyncpg.Record | None:
        rows = await self.fetch(name, *args)
        return rows[0] if rows else None

    async def _run(self, query: str, args: tuple[object, ...], kept: list[Any] | None) -> list[asyncpg.Record]:
        connection = kept.pop() if kept else await self._acquire()
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args, timeout=self._timeout)
            if kept is not None:
                kept.append(connection)
            return rows
        except (TimeoutError, asyncio.CancelledError):
            # Asking a server that has gone silent to cancel can hang as well.
            connection.terminate()
            raise
        finally:
            if not kept:
                await self._pool.release(connection, timeout=self._timeout)

    async def _acquire(self) -> Any:
        started = time.perf_counter()
        # Taking an idle one needs no time limit, which is a task in Python 3.11; replacing a dead one has its own.
        connection = await self._pool.acquire(timeout=None if self._pool.get_idle_size() else self._timeout)
        self._waited.observe(time.perf_counter() - started)
        return connection

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[list[Any]]:
        """Keeps the connection, if there is one, between statements that follow each other directly."""
        kept: list[Any] = []
        try:
            yield kept
        finally:
            with suppress(asyncpg.InterfaceError):  # the pool was closed meanwhile
                for connection in kept:
                    await self._pool.release(connection, timeout=self._timeout)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A connection for statements that take effect together or not at all. Raises asyncpg's own errors."""
        async with self._pool.acquire(timeout=self._timeout) as connection, connection.transaction():
            yield connection


async def _keep_session_state(connection: Any) -> None:
    """asyncpg's `reset` costs a round trip at each release; no statement here leaves anything behind to reset."""


def describe(error: BaseException) -> str:
    """An error for the log: PostgreSQL's own sentence, which names no values; otherwise the kind."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{type(error).__name__}: {error.message}"
    return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
