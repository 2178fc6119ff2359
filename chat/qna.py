"""The FAQ and the terms of card_qna_db: lists for REST, exact questions answered from memory, views counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

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
    """An answer from memory."""

    catalogue: Catalogue
    key: object
    answer: Answer

    @property
    def kind(self) -> str:
        return self.catalogue.kind

    def count_view(self) -> None:
        self.catalogue.count_view(self.key)


class Catalogue:
    """One of the two tables. `key` and `text` name its columns; `kind` is `faq` or `term`."""

    def __init__(self, database: Database, kind: str, key: str, text: str, answer: str, max_rows: int) -> None:
        self._database = database
        self.kind = kind
        self._key, self._text, self._answer = key, text, answer
        self._max_rows = max_rows
        self._exact: dict[str, Known] = {}
        self._views: Counter[str] = Counter()
        self._lists: dict[int, bytes] = {}
        self._newest = SingleFlight(self._read_newest, LIST_MAX_AGE)

    async def to_json(self, top_k: int) -> bytes:
        """The `top_k` most viewed rows as a JSON array. Raises DatabaseError."""
        rows = await self._newest.get()
        if top_k not in self._lists:
            self._lists[top_k] = orjson.dumps(rows[:top_k], default=str)
        return self._lists[top_k]

    async def _read_newest(self) -> list[dict[str, Any]]:
        rows = [dict(row) for row in await self._database.fetch(f"list_{self.kind}s", MAX_TOP_K)]
        self._lists = {}
        self._exact |= self._by_text(rows)
        return rows

    async def refresh(self) -> None:
        """Reads the whole table: what any instance has returned is answered from memory. Raises DatabaseError."""
        rows = await self._database.fetch(f"list_{self.kind}s", self._max_rows)
        self._exact = self._by_text([dict(row) for row in rows])

    def _by_text(self, rows: list[dict[str, Any]]) -> dict[str, Known]:
        # Backwards, so that of two rows with the same text the more viewed one wins.
        return {
            row[self._text]: Known(self, row[self._key], Answer(row[self._answer]))
            for row in reversed(rows)
            if row[self._text] and row[self._answer]
        }

    def find(self, text: str) -> Known | None:
        """The answer to exactly this text."""
        return self._exact.get(text)

    def count_view(self, key: object) -> None:
        if len(self._views) < MAX_COUNTED:
            self._views[str(key).rstrip()] += 1  # a char(n) is padded with blanks

    async def flush_views(self) -> None:
        """Adds the views counted since the last flush to the table, or keeps them. Raises DatabaseError."""
        views, self._views = self._views, Counter()
        if views:
            try:
                await self._database.fetch(f"add_{self.kind}_views", list(views), list(views.values()))
            except DatabaseError:
                self._views.update(views)
                raise


class Qna:
    def __init__(self, database: Database, max_rows: int) -> None:
        self.faqs = Catalogue(database, "faq", "faq_id", "question", "answer", max_rows)
        self.terms = Catalogue(database, "term", "term_id", "term", "definition", max_rows)

    def find(self, text: str) -> Known | None:
        return self.faqs.find(text) or self.terms.find(text)

    async def refresh(self) -> None:
        for catalogue in (self.faqs, self.terms):
            await catalogue.refresh()

    async def flush_views(self) -> None:
        for catalogue in (self.faqs, self.terms):
            await catalogue.flush_views()
