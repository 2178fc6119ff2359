"""A ChatDB in another encoding than UTF-8 does not have every character."""

import pytest

from tests.support.backends import answer
from tests.support.chat import visit
from tests.support.postgres import Database, PostgresServer
from tests.support.world import NewGateway, NewWorld, unique

pytestmark = pytest.mark.anyio


async def test_an_answer_that_cannot_be_stored_is_shown_and_not_asked_for_again(
    new_world: NewWorld, new_gateway: NewGateway, postgres: PostgresServer
) -> None:
    """Whoever sends the prompt again is told that the answer is not to be had; the next answers follow in order."""
    postgres.admin.execute("CREATE DATABASE euc_kr ENCODING 'EUC_KR' LOCALE 'C' TEMPLATE template0")
    world = new_world(chatdb=Database(postgres, "euc_kr"))
    gateway = new_gateway(world)
    text = unique("질문")
    world.llm.on(text, answer("카드 😀"))
    async with visit(gateway) as visitor:
        frame = await visitor.ask(text)
        assert frame["message"] == "카드 😀"
        await visitor.goes_on()
        await visitor.prompt(text, frame["message_id"])
        again = await visitor.receive()
        assert again["message"] == "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."
        assert again["message_id"] == frame["message_id"]
        await visitor.goes_on()
        assert len(world.llm.calls_with(query=text)) == 1
        assert [entry["is_user"] for entry in visitor.history()] == [True, False] * 3
