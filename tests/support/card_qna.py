"""card_qna_db as its owners build it: integer ids in some deployments, string ids in others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.support.postgres import Database

IdKind = Literal["integer", "string", "padded"]  # padded: char(n), filled up with blanks


@dataclass(frozen=True)
class Faq:
    """One row of `faqs`; its id is its place in the list, or `FAQ001` and so on."""

    question: str
    answer: str
    views: int | None = 0


@dataclass(frozen=True)
class Term:
    """One row of `terms`; its id is its place in the list, or `TERM001` and so on."""

    term: str
    definition: str
    views: int | None = 0


FAQS = (
    Faq("카드를 잃어버렸어요", "분실 신고는 고객센터에서 24시간 받습니다.", 40),
    Faq("결제일을 바꾸고 싶어요", "앱의 '카드 관리'에서 바꿀 수 있습니다.", 90),
    Faq("연회비는 언제 청구되나요?", "발급 다음 달에 청구됩니다.", 40),
    Faq("포인트는 어떻게 쓰나요?", "1포인트를 1원처럼 쓰실 수 있습니다. 😀", 7),
    Faq("한도를 올리고 싶어요", "앱에서 심사를 신청해 주세요.", None),
    Faq("해외에서 쓸 수 있나요?", "국제 브랜드가 있는 카드는 쓸 수 있습니다.", 0),
)
TERMS = (
    Term("리볼빙", "결제 금액의 일부만 내고 나머지를 다음 달로 넘기는 방식입니다.", 3),
    Term("현금서비스", "카드로 단기 대출을 받는 일입니다.", 80),
    Term("연회비", "카드를 유지하는 데 해마다 내는 비용입니다.", 3),
    Term("신용점수", "신용도를 숫자로 나타낸 것입니다.", 55),
    Term("가맹점", "카드를 받는 가게입니다.", None),
    Term("할부", "대금을 여러 달에 나누어 내는 일입니다.", 0),
    Term("체크카드", "계좌에서 바로 빠져나가는 카드입니다.", 12),
    Term("청구할인", "청구할 때 깎아 주는 혜택입니다.", 12),
)


def faq_id(position: int, ids: IdKind) -> int | str:
    """The id of the row at a position, counted from 0."""
    return position + 1 if ids == "integer" else f"FAQ{position + 1:03}"


def term_id(position: int, ids: IdKind) -> int | str:
    """The id of the row at a position, counted from 0."""
    return position + 1 if ids == "integer" else f"TERM{position + 1:03}"


def build_card_qna(
    database: Database, ids: IdKind = "integer", faqs: Sequence[Faq] = FAQS, terms: Sequence[Term] = TERMS
) -> Database:
    """Create `faqs` and `terms`, with more columns than the gateway knows, and fill them; returns `database`."""
    id_type = {"integer": "integer", "string": "varchar(20)", "padded": "char(20)"}[ids]
    database.execute(
        f"""
        CREATE TABLE faqs (
            category varchar(50) NOT NULL DEFAULT '일반',
            faq_id {id_type} PRIMARY KEY,
            question text NOT NULL,
            answer text NOT NULL,
            views integer DEFAULT 0,
            keywords text[],
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE terms (
            term_id {id_type} PRIMARY KEY,
            term varchar(200) NOT NULL,
            definition text NOT NULL,
            source varchar(200),
            views integer DEFAULT 0,
            updated_at timestamp
        );
        """
    )
    database.fetch(
        f"INSERT INTO faqs (faq_id, question, answer, views)"
        f" SELECT * FROM unnest($1::{id_type}[], $2::text[], $3::text[], $4::integer[])",
        [faq_id(position, ids) for position in range(len(faqs))],
        [faq.question for faq in faqs],
        [faq.answer for faq in faqs],
        [faq.views for faq in faqs],
    )
    database.fetch(
        f"INSERT INTO terms (term_id, term, definition, views)"
        f" SELECT * FROM unnest($1::{id_type}[], $2::text[], $3::text[], $4::integer[])",
        [term_id(position, ids) for position in range(len(terms))],
        [term.term for term in terms],
        [term.definition for term in terms],
        [term.views for term in terms],
    )
    return database
