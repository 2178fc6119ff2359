"""The statements of card_qna_db: the most viewed first, and views added to exactly the rows that were seen."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from database.pool import Database
from tests.support import postgres as server
from tests.support.card_qna import FAQS, TERMS, IdKind, build_card_qna, faq_id, term_id
from tests.support.statements import open_pool

pytestmark = pytest.mark.anyio

KINDS = pytest.mark.parametrize("kind", ["faq", "term"])


@pytest.fixture(scope="module", params=["integer", "padded"])
async def qna(request: pytest.FixtureRequest, postgres: server.PostgresServer) -> AsyncIterator["CardQna"]:
    """Both tables, with ids of either type."""
    built = build_card_qna(postgres.database(), request.param)
    database = await open_pool("card_qna_db", built.url)
    yield CardQna(database, built, request.param)
    await database.close()


class CardQna:
    def __init__(self, database: Database, built: server.Database, ids: IdKind) -> None:
        self.database = database
        self._built = built
        self._ids = ids

    def id(self, kind: str, place: int) -> str:
        return str(faq_id(place, self._ids) if kind == "faq" else term_id(place, self._ids))

    async def views(self, kind: str) -> list[int | None]:
        """Of each row, in the order of the ids."""
        rows = await asyncio.to_thread(self._built.fetch, f"SELECT views FROM {kind}s ORDER BY {kind}_id")
        return [row["views"] for row in rows]

    def reset(self, kind: str) -> None:
        """The counts as they were, and the rows in another order than that of their ids."""
        rows = FAQS if kind == "faq" else TERMS
        for place in (3, 1, 5, 0, 4, 2):
            self._built.fetch(
                f"UPDATE {kind}s SET views = $2 WHERE rtrim({kind}_id::text) = $1",
                self.id(kind, place),
                rows[place].views,
            )

    async def add(self, kind: str, views: dict[int, int]) -> None:
        ids = [self.id(kind, place) for place in views]
        await self.database.fetch(f"add_{kind}_views", ids, list(views.values()))


@KINDS
async def test_views_are_added_to_the_rows_that_were_seen_alone(qna: CardQna, kind: str) -> None:
    """Also to a row that had no count yet; an id that is no longer there takes nothing with it."""
    before = await qna.views(kind)
    places = (4, 0, 2)
    assert before[4] is None
    await qna.add(kind, {place: n for n, place in enumerate(places, 2)} | {998: 1})
    added = {4: 2, 0: 3, 2: 4}
    assert await qna.views(kind) == [
        (views or 0) + added[place] if place in added else views for place, views in enumerate(before)
    ]


@KINDS
async def test_the_most_viewed_come_first_and_of_the_same_views_the_lower_id(qna: CardQna, kind: str) -> None:
    """A row without a count is one that was never viewed; the list ends at its limit."""
    rows = FAQS if kind == "faq" else TERMS
    expected = sorted(range(len(rows)), key=lambda place: (-(rows[place].views or 0), place))
    await asyncio.to_thread(qna.reset, kind)
    for limit in (1, 3, 100):
        found = await qna.database.fetch(f"list_{kind}s", limit)
        assert [str(row[0]).rstrip() for row in found] == [qna.id(kind, place) for place in expected[:limit]]
