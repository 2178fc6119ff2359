"""Work shared by many callers: rows of all of them in one statement, one read for whoever asks."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeAlias, TypeVar

import asyncpg

from common import metrics
from common.errors import DatabaseError, RowRefused
from common.logs import log
from database.pool import Database

MAX_ROWS = 500
MAX_QUEUED = 20_000
KEPT_USES = 20  # statements on one connection before others who wait for one have their turn
T = TypeVar("T")
_COLUMNS = re.compile(r"WITH ORDINALITY AS \w+ \(([\w, ]+), n\)")
_Waiting: TypeAlias = tuple[dict[str, object], asyncio.Future[list[asyncpg.Record]]]  # a row and its caller


class BatchedStatement:
    """Rows of many callers in one statement, each caller waiting for what it returns for their row.

    While the statement runs, rows queue up for the next one; so an idle gateway adds nothing to a single row, and a
    busy one shares round trips and commits. The statement takes an array for each of the columns that it names, and
    returns rows with the number `n` of the row they belong to. Rows with the same value in the column `apart` never
    share a statement, and keep their order. A row that the database refuses does not take its neighbours with it.
    """

    def __init__(self, database: Database, statement: str, *, apart: str, max_rows: int = MAX_ROWS) -> None:
        columns = _COLUMNS.search(database.statements[statement])
        assert columns, f"{statement}.sql names no columns"
        self._columns = columns[1].split(", ")
        self._apart = apart
        self._database = database
        self._statement = statement
        self._max_rows = max_rows
        self._sizes = metrics.batch_rows.labels(statement)
        self._queue: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def put(self, row: dict[str, object]) -> asyncio.Future[list[asyncpg.Record]]:
        """Queues a row, its columns by name; the future has what the statement returns for it, or DatabaseError."""
        future: asyncio.Future[list[asyncpg.Record]] = self._loop.create_future()
        if len(self._queue) >= MAX_QUEUED:
            log.error("too many rows wait for a statement", statement=self._statement)
            future.set_exception(DatabaseError())
            return future
        self._queue.append((row, future))
        if self._task is None:
            self._task = self._loop.create_task(self._work())
        return future

    async def _work(self) -> None:
        try:
            while self._queue:
                async with self._database.keeping() as kept:
                    for _ in range(KEPT_USES):
                        if self._queue:
                            await self._run_batch(self._take_batch(), kept)
        finally:
            self._task = None
            _fail(self._queue, DatabaseError())
            self._queue = []

    def _take_batch(self) -> list[_Waiting]:
        batch: dict[object, _Waiting] = {}
        left = []
        for one in self._queue:
            key = one[0][self._apart]
            if len(batch) < self._max_rows and key not in batch:
                batch[key] = one
            else:
                left.append(one)
        self._queue = left
        return list(batch.values())

    async def _run_batch(self, batch: list[_Waiting], kept: list[Any]) -> None:
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

    async def _run(self, batch: list[_Waiting], kept: list[Any]) -> None:
        self._sizes.observe(len(batch))
        columns = [[row[column] for row, _ in batch] for column in self._columns]
        found: dict[int, list[asyncpg.Record]] = {}
        for row in await self._database.fetch(self._statement, *columns, kept=kept):
            found.setdefault(row["n"], []).append(row)
        for n, (_, future) in enumerate(batch, 1):
            if not future.done():
                future.set_result(found.get(n, []))


def _fail(batch: list[_Waiting], error: DatabaseError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


class SingleFlight(Generic[T]):
    """One read at a time: whoever asks while it runs waits for it. Its result is good for `max_age` seconds."""

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
