"""Rows of many callers in one statement."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Generic, TypeAlias, TypeVar

import asyncpg

from common import metrics
from common.errors import DatabaseError, RowRefused
from common.logs import fields
from database.pool import Database, KeptConnection
from database.statements import check_columns

logger = logging.getLogger("gateway.database")

MAX_ROWS = 500
MAX_QUEUED = 20_000

Row = TypeVar("Row", bound="tuple[Any, ...]")  # a NamedTuple
Found = TypeVar("Found")
_Waiting: TypeAlias = "tuple[Row, asyncio.Future[Found]]"


class _Batched(Generic[Row, Found]):
    """Rows of many callers in one statement, each caller waiting for what concerns its own row.

    While the statement runs, rows queue up for the next one; so an idle gateway adds nothing to a single row, and a
    busy one shares round trips and commits. The statement takes an array for each field of `row`, a NamedTuple, and
    returns rows with the number `n` of the row they belong to. Rows that are alike in the column `apart` never meet in
    one statement, and keep their order. A row that the database refuses does not take its neighbours with it.
    """

    max_rows = MAX_ROWS

    def __init__(self, database: Database, statement: str, row: type[Row], *, apart: str) -> None:
        columns: tuple[str, ...] = row._fields  # type: ignore[attr-defined]  # what makes a tuple a NamedTuple
        check_columns(statement, database.statements[statement], columns)
        self._database = database
        self._statement = statement
        self._apart = columns.index(apart)
        self._sizes = metrics.batch_rows.labels(statement)
        self._queue: list[_Waiting[Row, Found]] = []
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def put(self, row: Row) -> asyncio.Future[Found]:
        """Queues a row; the future gives what the statement returned for it, or raises DatabaseError."""
        future: asyncio.Future[Found] = self._loop.create_future()
        if len(self._queue) >= MAX_QUEUED:
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

    def _take_batch(self) -> list[_Waiting[Row, Found]]:
        batch: dict[object, _Waiting[Row, Found]] = {}
        left = []
        for one in self._queue:
            key = one[0][self._apart]
            if len(batch) < self.max_rows and key not in batch:
                batch[key] = one
            else:
                left.append(one)
        self._queue = left
        return list(batch.values())

    async def _run_batch(self, batch: list[_Waiting[Row, Found]], kept: KeptConnection) -> None:
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

    async def _run(self, batch: list[_Waiting[Row, Found]], kept: KeptConnection) -> None:
        self._sizes.observe(len(batch))
        columns = zip(*(row for row, _ in batch), strict=True)
        found = self._by_number(await self._database.fetch(self._statement, *map(list, columns), kept=kept))
        for n, (_, future) in enumerate(batch, 1):
            if not future.done():
                future.set_result(found(n))

    def _by_number(self, rows: list[asyncpg.Record]) -> Any:
        """Gives what was found for the row of a number."""
        raise NotImplementedError


class BatchedStatement(_Batched[Row, "asyncpg.Record | None"]):
    """A statement that returns a row, or none, for each row it is given."""

    def _by_number(self, rows: list[asyncpg.Record]) -> Any:
        return {row["n"]: row for row in rows}.get


class BatchedQuery(_Batched[Row, "list[asyncpg.Record]"]):
    """A query that returns any number of rows, which may be large, for each row it is given."""

    max_rows = 50

    def _by_number(self, rows: list[asyncpg.Record]) -> Any:
        found: dict[int, list[asyncpg.Record]] = {}
        for row in rows:
            found.setdefault(row["n"], []).append(row)
        return lambda n: found.get(n, [])


def _fail(batch: list[_Waiting[Any, Any]], error: DatabaseError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
