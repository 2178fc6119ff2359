"""The FAQ and the terms in memory: what is known, what is no longer, and views that outlive a failure."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from chat.qna import MAX_COUNTED, MAX_TOP_K, Catalogue, Qna
from common.errors import DatabaseError
from database.pool import Database
from tests.support import postgres as server
from tests.support.card_qna import FAQS, TERMS, Faq, build_card_qna
from tests.support.statements import open_pool
from tests.support.waiting import become

pytestmark = pytest.mark.anyio

# Twice the same question, of which the more viewed answer counts; some that cannot be answered; many.
MORE = (
    Faq("같은 질문", "덜 본 답", 3),
    Faq("같은 질문", "더 본 답", 4),
    Faq("답이 없는 질문", "", 5),
    Faq("", "질문이 없는 답", 5),
    *(Faq(f"질문 {n}", f"답 {n}", 0) for n in range(MAX_TOP_K)),
)


class World:
    def __init__(self, built: server.Database, database: Database) -> None:
        self.built = built
        self.database = database
        self.qna = Qna(database, max_rows=1000)

    async def views(self, question: str) -> int:
        views: int = await asyncio.to_thread(
            self.built.value, "SELECT max(views) FROM faqs WHERE question = $1", question
        )
        return views

    async def execute(self, script: str) -> None:
        await asyncio.to_thread(self.built.execute, script)

    def told(self, text: str) -> str | None:
        known = self.qna.find(text)
        return known.answer.message if known else None


@pytest.fixture(scope="module")
def template(postgres: server.PostgresServer) -> server.Database:
    return build_card_qna(postgres.database(prefix="catalogue"), faqs=(*FAQS, *MORE))


@pytest.fixture
async def world(postgres: server.PostgresServer, template: server.Database) -> AsyncIterator[World]:
    built = postgres.database(template, prefix="catalogue")
    database = await open_pool("card_qna_db", built.url)
    yield World(built, database)
    await database.close()


async def test_all_rows_are_known_as_far_as_they_can_be_answered(world: World) -> None:
    """Of both tables, beyond what the lists show."""
    await world.qna.refresh()
    for faq in (*FAQS, *MORE[4:]):
        assert world.told(faq.question) == faq.answer
    for term in TERMS:
        assert world.told(term.term) == term.definition
    assert world.told("같은 질문") == "더 본 답"
    assert world.told("답이 없는 질문") is world.told("") is world.told("카드를 잃어버렸어요 ") is None
    known = world.qna.find(TERMS[0].term)
    assert known is not None and known.kind == "term"


async def test_no_more_rows_than_allowed_are_kept_and_those_are_the_most_viewed(world: World) -> None:
    few = Catalogue(world.database, "faq", 2)
    await few.refresh()
    assert list(reversed(few.known)) == ["결제일을 바꾸고 싶어요", "카드를 잃어버렸어요"]


async def test_what_was_deleted_or_changed_is_not_answered_as_before(world: World) -> None:
    await world.qna.refresh()
    await world.execute(
        f"DELETE FROM faqs WHERE question = '{FAQS[0].question}'; DELETE FROM terms WHERE term = '{TERMS[0].term}';"
        f"UPDATE faqs SET answer = '새 답' WHERE question = '{FAQS[1].question}'"
    )
    await world.qna.refresh()
    assert world.told(FAQS[0].question) is world.told(TERMS[0].term) is None
    assert world.told(FAQS[1].question) == "새 답"
    assert world.told(FAQS[2].question) == FAQS[2].answer


async def test_what_a_list_has_shown_is_answered_from_memory(world: World) -> None:
    """At once, though the table is read only now and then."""
    shown = orjson.loads(await world.qna.faqs.to_json(3))
    assert [world.told(row["question"]) for row in shown] == [row["answer"] for row in shown]
    assert list(shown[0]) == ["faq_id", "question", "answer", "views"]
    assert [len(orjson.loads(await world.qna.terms.to_json(n))) for n in (1, 2, 100)] == [1, 2, len(TERMS)]


async def test_empty_tables_are_empty_lists_and_nothing_is_known(world: World) -> None:
    await world.qna.refresh()
    await world.execute("DELETE FROM faqs; DELETE FROM terms")
    await world.qna.refresh()
    assert [await world.qna.faqs.to_json(3), await world.qna.terms.to_json(100)] == [b"[]", b"[]"]
    assert world.told(FAQS[0].question) is world.told(TERMS[0].term) is None


async def test_lists_of_any_length_are_of_the_newest_rows(world: World) -> None:
    async def first(top_k: int) -> str:
        text: str = orjson.loads(await world.qna.faqs.to_json(top_k))[0]["answer"]
        return text

    assert [await first(n) for n in (1, 5)] == [FAQS[1].answer] * 2
    await world.execute(f"UPDATE faqs SET answer = '새 답' WHERE question = '{FAQS[1].question}'")

    async def is_new() -> bool:
        return [await first(n) for n in (1, 5)] == ["새 답"] * 2

    await become(is_new)


async def test_views_that_cannot_be_written_are_kept_and_written_once(world: World) -> None:
    """With those that are counted meanwhile; of both tables."""
    await world.qna.refresh()
    faq, term = world.qna.find(FAQS[0].question), world.qna.find(TERMS[0].term)
    assert faq and term
    faq.count_view()
    faq.count_view()
    term.count_view()
    await world.execute("ALTER TABLE faqs RENAME TO elsewhere")
    with pytest.raises(DatabaseError):
        await world.qna.flush_views()
    faq.count_view()
    await world.execute("ALTER TABLE elsewhere RENAME TO faqs")
    for _ in range(2):
        await world.qna.flush_views()
    assert await world.views(FAQS[0].question) == (FAQS[0].views or 0) + 3
    terms = await asyncio.to_thread(world.built.value, "SELECT views FROM terms WHERE term = $1", TERMS[0].term)
    assert terms == (TERMS[0].views or 0) + 1


async def test_views_of_no_more_rows_than_allowed_wait_to_be_written(world: World) -> None:
    """While the database is away for long."""
    await world.qna.refresh()
    faq, other = world.qna.find(FAQS[0].question), world.qna.find(FAQS[1].question)
    assert faq and other
    faq.views.update({f"-{n}": 1 for n in range(MAX_COUNTED)})
    faq.count_view()
    other.count_view()
    assert len(faq.views) == MAX_COUNTED
