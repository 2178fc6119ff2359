"""The FAQ and the terms of card_qna_db: lists for REST, exact questions answered from memory, views counted."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import orjson

from database import Database, SharedRead
from errors import DatabaseError
from upstream import Answer

logger = logging.getLogger("gateway.qna")

MAX_TOP_K = 100
# How old what REST shows may be, in seconds: enough that a thousand readers share one query, too short to notice.
LIST_MAX_AGE = 0.1
MAX_COUNTED = 100_000


class Catalogue:
    """One of the two tables. `key` and `text` name its columns; `kind` is `faq` or `term`."""

    def __init__(self, database: Database, kind: str, key: str, text: str, answer: str, max_rows: int) -> None:
        self._database = database
        self._kind = kind
        self._key, self._text, self._answer = key, text, answer
        self._max_rows = max_rows
        self._exact: dict[str, tuple[object, Answer]] = {}
        self._views: Counter[str] = Counter()
        self._lists: dict[int, bytes] = {}
        self._newest = SharedRead(self._read_newest, LIST_MAX_AGE)

    async def to_json(self, top_k: int) -> bytes:
        """The `top_k` most viewed rows as a JSON array. Raises DatabaseError."""
        rows = await self._newest.get()
        if top_k not in self._lists:
            self._lists[top_k] = orjson.dumps(rows[:top_k], default=str)
        return self._lists[top_k]

    async def _read_newest(self) -> list[dict[str, Any]]:
        rows = [dict(row) for row in await self._database.fetch(f"list_{self._kind}s", MAX_TOP_K)]
        self._lists = {}
        self._exact |= self._by_text(rows)
        return rows

    async def refresh(self) -> None:
        """Reads the whole table: what any instance has returned is answered from memory. Raises DatabaseError."""
        rows = await self._database.fetch(f"list_{self._kind}s", self._max_rows)
        self._exact = self._by_text([dict(row) for row in rows])

    def _by_text(self, rows: list[dict[str, Any]]) -> dict[str, tuple[object, Answer]]:
        # Backwards, so that of two rows with the same text the more viewed one stays.
        return {
            row[self._text]: (row[self._key], Answer(row[self._answer]))
            for row in reversed(rows)
            if row[self._text] and row[self._answer]
        }

    def find(self, text: str) -> Answer | None:
        """The answer to exactly this text; it counts as one view."""
        found = self._exact.get(text)
        if found is None:
            return None
        if len(self._views) < MAX_COUNTED:
            self._views[str(found[0]).rstrip()] += 1  # a char(n) is filled up with blanks
        return found[1]

    async def flush_views(self) -> None:
        """Adds the views counted since the last flush to the table, or keeps them. Raises DatabaseError."""
        views, self._views = self._views, Counter()
        if views:
            try:
                await self._database.fetch(f"add_{self._kind}_views", list(views), list(views.values()))
            except DatabaseError:
                self._views.update(views)
                raise


class Qna:
    def __init__(self, database: Database, max_rows: int) -> None:
        self.faqs = Catalogue(database, "faq", "faq_id", "question", "answer", max_rows)
        self.terms = Catalogue(database, "term", "term_id", "term", "definition", max_rows)

    def find(self, text: str) -> tuple[str, Answer | None]:
        """Where the answer to a prompt comes from: `faq` or `term` with the answer, or else `llm`."""
        for source, catalogue in (("faq", self.faqs), ("term", self.terms)):
            if answer := catalogue.find(text):
                return source, answer
        return "llm", None

    async def refresh(self) -> None:
        for catalogue in (self.faqs, self.terms):
            await catalogue.refresh()

    async def flush_views(self) -> None:
        for catalogue in (self.faqs, self.terms):
            await catalogue.flush_views()
