"""FAQs and terms, whatever type their ids have."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.card_qna import FAQS, TERMS, Faq, IdKind, Term, build_card_qna, faq_id, term_id
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.http import assert_invalid
from tests.support.postgres import Database, PostgresServer
from tests.support.waiting import eventually
from tests.support.world import NewGateway, NewWorld, World

pytestmark = pytest.mark.anyio

# More than the largest top_k, all less viewed than the named ones with views.
MANY_FAQS = (*FAQS, *(Faq(f"질문 {number}?", f"대답 {number}", 0) for number in range(110)))
MANY_TERMS = (*TERMS, *(Term(f"용어 {number}", f"뜻 {number}", 0) for number in range(110)))


@dataclass(frozen=True)
class Qna:
    gateway: Gateway
    ids: IdKind

    def get(self, path: str, **query: Any) -> list[dict[str, Any]]:
        response = self.gateway.http.get(path, params=query)
        assert response.status_code == 200, response.text
        rows: list[dict[str, Any]] = response.json()
        return rows

    def orders_of_faqs(self) -> list[list[dict[str, Any]]]:
        """All FAQs in the order that is promised: those without a count among the never viewed, or last."""
        rows: list[dict[str, Any]] = [
            {"faq_id": faq_id(place, self.ids), "question": faq.question, "answer": faq.answer} | {"views": faq.views}
            for place, faq in enumerate(MANY_FAQS)
        ]
        return [
            sorted(rows, key=lambda row: (-(row["views"] or 0), row["faq_id"])),
            sorted(rows, key=lambda row: (row["views"] is None, -(row["views"] or 0), row["faq_id"])),
        ]

    def orders_of_terms(self) -> list[list[dict[str, Any]]]:
        """All terms in the order that is promised, likewise."""
        rows = [
            (term.views, {"term_id": term_id(place, self.ids), "term": term.term, "definition": term.definition})
            for place, term in enumerate(MANY_TERMS)
        ]
        orders = [
            sorted(rows, key=lambda row: (-(row[0] or 0), row[1]["term_id"])),
            sorted(rows, key=lambda row: (row[0] is None, -(row[0] or 0), row[1]["term_id"])),
        ]
        return [[row for _, row in order] for order in orders]


@pytest.fixture(scope="module", params=["integer", "string"])
def qna(request: pytest.FixtureRequest, postgres: PostgresServer, new_world: NewWorld) -> Iterator[Qna]:
    database = build_card_qna(postgres.database(), request.param, MANY_FAQS, MANY_TERMS)
    with Gateway(new_world(card_qna=database).settings) as gateway:
        yield Qna(gateway, request.param)


def counted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a missing count as 0: it may be shown either way."""
    return [row | {"views": row["views"] or 0} for row in rows]


def test_faqs_come_most_viewed_first_three_by_default(qna: Qna) -> None:
    assert qna.get("/api/qna/faq") == qna.orders_of_faqs()[0][:3]


def test_terms_come_most_viewed_first_six_by_default(qna: Qna) -> None:
    assert qna.get("/api/qna/terms") == qna.orders_of_terms()[0][:6]


@pytest.mark.parametrize("top_k", [1, 2, 4, 10, 99, 100])
def test_top_k_gives_that_many_and_ties_are_ordered_by_id(qna: Qna, top_k: int) -> None:
    faqs = qna.get("/api/qna/faq", top_k=top_k)
    assert counted(faqs) in [counted(order[:top_k]) for order in qna.orders_of_faqs()]
    assert qna.get("/api/qna/terms", top_k=top_k) in [order[:top_k] for order in qna.orders_of_terms()]


@pytest.mark.parametrize("path", ["/api/qna/faq", "/api/qna/terms"])
@pytest.mark.parametrize(
    "top_k", ["0", "101", "-1", "abc", "3.0", "1e1", "", "null", "9" * 25, "1_0", "%00", "%ED%95%9C"]
)
def test_a_top_k_that_is_no_integer_from_1_to_100_is_a_422(qna: Qna, path: str, top_k: str) -> None:
    assert_invalid(qna.gateway.http.get(f"{path}?top_k={top_k}"), ("query", "top_k"))


@pytest.mark.parametrize("path", ["/api/qna/faq", "/api/qna/terms"])
@pytest.mark.parametrize("query", ["top_k=1&top_k=2", "top_k=+1", "top_k=%D9%A3", "TOP_K=0", "x=1", "&&"])
def test_an_odd_query_is_no_server_error(qna: Qna, path: str, query: str) -> None:
    assert qna.gateway.http.get(f"{path}?{query}").status_code in (200, 422)


def test_reading_counts_no_view(qna: Qna) -> None:
    before = qna.get("/api/qna/faq", top_k=6)
    for _ in range(5):
        qna.get("/api/qna/faq", top_k=6)
    assert qna.get("/api/qna/faq", top_k=6) == before


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world()


def test_a_change_in_the_database_shows_soon(world: World, new_gateway: NewGateway) -> None:
    gateway = new_gateway(world, QNA_REFRESH_SECONDS="0.2")
    first = gateway.http.get("/api/qna/faq?top_k=1").json()[0]
    world.card_qna.execute(
        f"UPDATE faqs SET answer = '새 대답' WHERE faq_id = {first['faq_id']};"
        "INSERT INTO terms (term_id, term, definition, views) VALUES (900, '새 용어', '새 뜻', 100000);"
        "DELETE FROM terms WHERE term = '현금서비스'"
    )
    eventually(lambda: gateway.http.get("/api/qna/faq?top_k=1").json() == [first | {"answer": "새 대답"}])
    newest = {"term_id": 900, "term": "새 용어", "definition": "새 뜻"}
    eventually(lambda: gateway.http.get("/api/qna/terms?top_k=1").json() == [newest])
    terms = [row["term"] for row in gateway.http.get("/api/qna/terms?top_k=100").json()]
    assert "현금서비스" not in terms


NOT_NULL = "ALTER TABLE faqs ALTER question DROP NOT NULL, ALTER answer DROP NOT NULL;"
BAD_FAQS = {
    # A database of that encoding takes any bytes.
    "SQL_ASCII": "(901, 'x', decode('ff', 'hex')), (902, decode('c0c0', 'hex'), 'x'),"
    " (903, 'x', decode('eda080', 'hex'))",
    # What cannot be converted to UTF-8: a character of the user-defined area.
    "EUC_KR": r"(901, 'x', decode('c9a1', 'hex')), (902, decode('fea1', 'hex'), 'x')",
    "UTF8": "(901, NULL, 'x'), (902, 'x', NULL)",
}


@pytest.mark.parametrize("encoding", BAD_FAQS)
async def test_a_row_that_cannot_be_shown_costs_that_row_and_a_line_says_which(
    postgres: PostgresServer, new_world: NewWorld, new_gateway: NewGateway, encoding: str
) -> None:
    """Texts that are null or badly encoded; the others are listed and answered from memory, backslashes and all."""
    name = f"bad_{encoding.lower()}"
    postgres.admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    faqs = [faq for faq in FAQS if encoding == "UTF8" or "😀" not in faq.answer]
    faqs.append(Faq(r"C:\101 \\ \x41?", r"\000 그대로 \\", 1000))
    database = build_card_qna(Database(postgres, name), "integer", faqs, [])
    rows = BAD_FAQS[encoding].replace("decode(", "convert_from(decode(").replace("'hex')", f"'hex'), '{encoding}')")
    database.execute(f"{NOT_NULL} INSERT INTO faqs (faq_id, question, answer) VALUES {rows}")
    database.execute("UPDATE faqs SET views = 2000 WHERE faq_id > 900")
    gateway = new_gateway(new_world(card_qna=database), ENVIRONMENT="production", QNA_REFRESH_SECONDS="0.1")
    listed = gateway.http.get("/api/qna/faq?top_k=100").json()
    assert [row["question"] for row in listed][:2] == [faqs[-1].question, FAQS[1].question]
    assert len(listed) == len(faqs)
    async with visit(gateway) as visitor:
        for faq in (faqs[-1], FAQS[1]):
            assert (await visitor.ask(faq.question))["message"] == faq.answer
    lines = [json.loads(line) for line in gateway.output().splitlines() if "rows left out" in line]
    assert [(line["table"], line["rows"]) for line in lines] == [("faqs", rows.count("(90"))], (
        "once, not at each reading"
    )
    assert set(lines[0]["first"]) == {"901", "902", "903"} if encoding == "SQL_ASCII" else {"901", "902"}
