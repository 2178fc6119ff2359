"""What the demo's stand-in for the LLM server makes of a question."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from demo import databases, llm_server
from tests.support.postgres import PostgresServer

RECOMMENDATION, FAQ, TERM = "get_card_recommendation", "query_faq_database", "query_term_database"

ANSWERED = {
    # What is asked of a card is no FAQ about cards.
    "카드 혜택 비교해줘": (RECOMMENDATION, "두루 쓰기 좋은"),
    "카드 뭐가 좋아?": (RECOMMENDATION, "두루 쓰기 좋은"),
    "커피와 배달 할인이 되는 카드가 있나요?": (RECOMMENDATION, "**카페"),
    "카드 디자인 바꾸고 싶어요": (None, "죄송해요"),
    "카드 해지할래요": (FAQ, "앱의 **내 카드 > 해지**"),
    "카드 분실했어요": (FAQ, "먼저 분실 신고를"),
    "카드 언제 와요?": (FAQ, "심사가 끝나면"),
    "카드론이 뭐예요?": (TERM, "**카드론**"),
    # Small talk, in both languages of the page.
    "안녕하세요": (None, "안녕하세요!"),
    "hello": (None, "안녕하세요!"),
    "Hi!": (None, "안녕하세요!"),
    "history of cards": (None, "죄송해요"),
    "Thank you": (None, "도움이 되었다니"),
    "오늘 날씨 어때": (None, "죄송해요"),
}


@pytest.mark.anyio
async def test_a_question_is_answered_by_what_it_is_about(postgres: PostgresServer) -> None:
    database, name = postgres.database(prefix="demo"), "demo_answers"
    admin = await asyncpg.connect(database.url)
    await databases.create_database(admin, name)  # of the demo's locale, which knows Korean letters
    connection = await asyncpg.connect(database.url, database=name)
    await databases.fill_card_qna_db(connection)
    await connection.close()
    async with asyncpg.create_pool(database.url, database=name, min_size=1, max_size=1) as pool:
        backends = SimpleNamespace(card_qna_db=pool, mcp=None)
        for query, expected in ANSWERED.items():
            reply: dict[str, Any] = await llm_server.reply_to(query, None, backends)
            tool = reply["tool_response"]
            text = tool["tool_response_content"]["answer"] if tool else reply["answer"]
            assert (tool and tool["tool_name"], text[: len(expected[1])]) == expected, query
    await admin.execute(f"DROP DATABASE {name}")
    await admin.close()
    database.drop()
