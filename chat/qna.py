"""The FAQ and the terms of card_qna_db: lists for REST, exact questions answered from memory, views counted."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson

from common.errors import DatabaseError
from common.logs import log
from database.pool import Database
from database.shared import SingleFlight
from upstream.replies import Answer

MAX_TOP_K = 100
# How old a list may be, in seconds: old enough that a thousand readers share one query, too young to notice.
LIST_MAX_AGE = 0.1
MAX_COUNTED = 100_000
ENCODINGS = {"SQL_ASCII": "UTF8"}  # PostgreSQL's names where they are not Python's as well


@dataclass(frozen=True, slots=True)
class Known:
    """An answer from memory; `kind` is `faq` or `term`."""

    kind: str
    id: str
    answer: Answer
    views: Counter[str]

    def count_view(self) -> None:
        if len(self.views) < MAX_COUNTED:
            self.views[self.id] += 1


class Catalogue:
    """One of the two tables: of each row the id, a text, and what is answered to exactly this text."""

    def __init__(self, database: Database, kind: str, max_rows: int) -> None:
        self._database = database
        self._kind = kind
        self._max_rows = max_rows
        self.known: dict[str, Known] = {}
        self._views = Counter[str]()
        self._lists: dict[int, bytes] = {}
        self._left_out: dict[str, str] = {}
        self._newest = SingleFlight(self._read_newest, LIST_MAX_AGE)

    async def to_json(self, top_k: int) -> bytes:
        """The `top_k` most viewed rows as a JSON array. Raises DatabaseError."""
        rows = await self._newest.get()
        if top_k not in self._lists:
            self._lists[top_k] = orjson.dumps(rows[:top_k], default=str)
        return self._lists[top_k]

    async def _read_newest(self) -> list[dict[str, Any]]:
        rows, _ = await self._read(MAX_TOP_K)
        self._lists = {}
        self.known |= self._by_text(rows)
        return rows

    async def refresh(self) -> None:
        """Reads the whole table: what any instance has returned is answered from memory. Raises DatabaseError."""
        rows, left_out = await self._read(self._max_rows)
        self.known = self._by_text(rows)
        if left_out != self._left_out:
            log.warning(
                "rows left out", table=f"{self._kind}s", rows=len(left_out), first=dict(list(left_out.items())[:5])
            )
        self._left_out = left_out

    async def _read(self, limit: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """The most viewed rows, and of those that are of no use the ids, and why. Raises DatabaseError."""
        rows, left_out = [], {}
        for record in await self._database.fetch(f"list_{self._kind}s", limit):
            row = dict(record)
            encoding = ENCODINGS.get(name := row.pop("encoding"), name)
            try:
                for column, value in row.items():
                    if value is None:
                        raise ValueError(f"{column} is null")
                    if isinstance(value, bytes):
                        row[column] = value.decode(encoding)
                rows.append(row)
            except UnicodeDecodeError:
                left_out[str(record[0])] = f"{column} is not {encoding}"
            except (ValueError, LookupError) as error:
                left_out[str(record[0])] = str(error)
        return rows, left_out

    def _by_text(self, rows: list[dict[str, Any]]) -> dict[str, Known]:
        # Backwards, so that of two rows with the same text the more viewed one wins; a char(n) ends in blanks.
        return {
            text: Known(self._kind, str(id).rstrip(), Answer(answer), self._views)
            for id, text, answer, *_ in (row.values() for row in reversed(rows))
            if text and answer
        }

    async def flush_views(self) -> None:
        """Adds the views counted since the last flush to the table, or keeps them. Raises DatabaseError."""
        views = dict(self._views)
        self._views.clear()
        if views:
            try:
                await self._database.fetch(f"add_{self._kind}_views", list(views), list(views.values()))
            except DatabaseError:
                self._views.update(views)
                raise


class Qna:
    def __init__(self, database: Database, max_rows: int) -> None:
        self.faqs = Catalogue(database, "faq", max_rows)
        self.terms = Catalogue(database, "term", max_rows)

    def find(self, text: str) -> Known | None:
        return self.faqs.known.get(text) or self.terms.known.get(text)

    async def refresh(self) -> None:
        try:
            await self.faqs.refresh()
        finally:
            await self.terms.refresh()

    async def flush_views(self) -> None:
        try:
            await self.faqs.flush_views()
        finally:
            await self.terms.flush_views()
