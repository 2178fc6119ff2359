"""A pool of connections to one database, and the SQL files that may be run on it."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from common import metrics
from common.addresses import servers
from common.errors import DatabaseError, RowRefused
from common.logs import log
from database.connecting import NO_TIME_LIMITS, connect
from database.failures import FAILED, ROW_REFUSED, Repeated, describe, is_lost, may_pass
from database.statements import Statements
from database.suspects import SUSPICIOUS_SECONDS, Suspects

IDLE_SECONDS = 120.0  # after which a connection is closed, before a middlebox forgets it
READ_ONLY_SECONDS = {"chatdb": 1.0, "card_qna_db": 60.0}  # between two looks for a server that can be written to
TRIES, TRIES_AFTER_ROLLBACK = 2, 5


class Database:
    """Every statement takes at most `timeout` seconds to get a connection and as many again to run."""

    def __init__(self, folder: str, dsn: str, size: int, timeout: float, prepared: bool = True) -> None:
        self._timeout = timeout
        self._waited = metrics.db_wait_seconds.labels(folder)
        self.statements = Statements(folder)
        self._read_only_seconds = READ_ONLY_SECONDS[folder]
        self._has_standby = "," in servers(dsn)
        self._was_read_only_at = -math.inf
        self._said = Repeated()
        self._suspects = Suspects(dsn, timeout)
        self._pool: asyncpg.Pool[asyncpg.Record] = asyncpg.create_pool(
            dsn,
            connect=connect,
            min_size=0,
            max_size=size,
            timeout=timeout,
            init=self.statements.place,
            reset=_keep_session_state,
            max_inactive_connection_lifetime=IDLE_SECONDS,
            statement_cache_size=100 if prepared else 0,
        )

    async def open(self) -> None:
        await self._pool

    async def close(self) -> None:
        """Waits at most `timeout` seconds for connections in use, then cuts them."""
        await self._suspects.tasks.cancel(self._timeout)
        try:
            await asyncio.wait_for(self._pool.close(), self._timeout)
        except (TimeoutError, *FAILED):
            self._pool.terminate()

    @property
    def connections_in_use(self) -> int:
        return self._pool.get_size() - self._pool.get_idle_size()

    async def fetch(self, name: str, *args: object, kept: list[Any] | None = None) -> list[asyncpg.Record]:
        """Runs sql/<folder>/<name>.sql, on a connection kept by `keeping` if given. Raises DatabaseError."""
        try:
            return await self._try(name, args, kept)
        except ROW_REFUSED as error:
            log.error("statement refused", statement=name, error=describe(error))
            raise RowRefused from error
        except FAILED as error:
            self._said.log(log.error, "statement failed", name, error)
            raise DatabaseError from error

    async def _try(self, name: str, args: tuple[object, ...], kept: list[Any] | None) -> list[asyncpg.Record]:
        tries = 0
        while True:
            try:
                return await self._run(self.statements[name], args, kept)
            except TimeoutError:
                if self._has_standby:
                    await self._pool.expire_connections()
                raise
            except ROW_REFUSED:
                raise
            except FAILED as error:
                tries += 1
                enough = TRIES_AFTER_ROLLBACK if isinstance(error, asyncpg.TransactionRollbackError) else TRIES
                if tries >= enough or not may_pass(error):
                    raise
                self._said.log(log.info, "statement is run again", name, error)
                await self._leave_lost_server(error)

    async def _leave_lost_server(self, error: BaseException) -> None:
        """What ended one connection has ended the others as well."""
        now = time.monotonic()
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            if now - self._was_read_only_at < self._read_only_seconds:
                return
            self._was_read_only_at = now
        if is_lost(error):
            await self._pool.expire_connections()

    async def fetchrow(self, name: str, *args: object) -> asyncpg.Record | None:
        rows = await self.fetch(name, *args)
        return rows[0] if rows else None

    async def _run(self, query: str, args: tuple[object, ...], kept: list[Any] | None) -> list[asyncpg.Record]:
        connection = kept.pop() if kept else await self._acquire()
        try:
            rows = await self._fetch(connection, query, args)
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

    async def _fetch(self, connection: Any, query: str, args: tuple[object, ...]) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record]
        if not connection.needs_transaction:
            timer = asyncio.get_running_loop().call_later(SUSPICIOUS_SECONDS, self._suspects.add, connection)
            try:
                rows = await connection.fetch(query, *args, timeout=self._timeout)
                return rows
            finally:
                timer.cancel()
                self._suspects.discard(connection)
        async with asyncio.timeout(self._timeout), connection.transaction(isolation="read_committed"):
            await connection.execute(NO_TIME_LIMITS)
            rows = await connection.fetch(query, *args)
            return rows

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
        acquired = self._pool.acquire(timeout=self._timeout)
        async with acquired as connection, connection.transaction(isolation="read_committed"):
            await connection.execute(NO_TIME_LIMITS)
            yield connection


async def _keep_session_state(connection: Any) -> None:
    """asyncpg's `reset` costs a round trip at each release; no statement here leaves anything behind to reset."""
