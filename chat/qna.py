"""The FAQ and the terms of card_qna_db: lists for REST, exact questions answered from memory, views counted."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from common.errors import DatabaseError
from database.pool import Database
from database.shared import SingleFlight
from upstream.replies import Answer

MAX_TOP_K = 100
# How old a list may be, in seconds: old enough that a thousand readers share one query, too young to notice.
LIST_MAX_AGE = 0.1
MAX_COUNTED = 100_000


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
        self._newest = SingleFlight(self._read_newest, LIST_MAX_AGE)

    async def to_json(self, top_k: int) -> bytes:
        """The `top_k` most viewed rows as a JSON array. Raises DatabaseError."""
        rows = await self._newest.get()
        if top_k not in self._lists:
            self._lists[top_k] = orjson.dumps(rows[:top_k], default=str)
        return self._lists[top_k]

    async def _read_newest(self) -> list[dict[str, Any]]:
        rows = await self._database.fetch(f"list_{self._kind}s", MAX_TOP_K)
        self._lists = {}
        self.known |= self._by_text(rows)
        return [dict(row) for row in rows]

    async def refresh(self) -> None:
        """Reads the whole table: what any instance has returned is answered from memory. Raises DatabaseError."""
        self.known = self._by_text(await self._database.fetch(f"list_{self._kind}s", self._max_rows))

    def _by_text(self, rows: list[asyncpg.Record]) -> dict[str, Known]:
        # Backwards, so that of two rows with the same text the more viewed one wins; a char(n) ends in blanks.
        return {
            text: Known(self._kind, str(id).rstrip(), Answer(answer), self._views)
            for id, text, answer, *_ in reversed(rows)
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
