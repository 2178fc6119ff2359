"""FAQs and terms, whatever type their ids have."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.card_qna import FAQS, TERMS, Faq, IdKind, Term, build_card_qna, faq_id, term_id
from tests.support.gateway import Gateway
from tests.support.http import assert_invalid
from tests.support.postgres import PostgresServer
from tests.support.world import NewWorld

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
