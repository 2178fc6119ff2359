"""What the world sees when a database fails, and that nothing of it leaks."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.support.chat import Visitor, visit
from tests.support.gateway import ALLOWED_ORIGIN, Gateway
from tests.support.http import assert_sentence
from tests.support.keys import bearer
from tests.support.network import TcpProxy
from tests.support.postgres import PostgresServer
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    """A world whose tables the tests take away for a while."""
    return new_world()


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    with Gateway(world.settings | {"DB_TIMEOUT": "1"}) as gateway:
        yield gateway


@contextmanager
def without(world: World, table: str) -> Iterator[None]:
    """While it lasts, the table of ChatDB is not there."""
    world.chatdb.execute(f'ALTER TABLE "{table}" RENAME TO "Elsewhere"')
    try:
        yield
    finally:
        world.chatdb.execute(f'ALTER TABLE "Elsewhere" RENAME TO "{table}"')


async def test_a_prompt_that_cannot_be_stored_is_an_error_and_the_connection_goes_on(
    world: World, gateway: Gateway
) -> None:
    async with visit(gateway) as visitor:
        text = unique("저장할 수 없는 질문")
        with without(world, "Chat"):
            message_id = await visitor.prompt(text)
            assert await visitor.receive() == {
                "error": "Internal Server Error: DB operation failed",
                "message_id": message_id,
            }
        assert world.llm.calls_with(query=text) == []
        await visitor.goes_on()


@pytest.mark.parametrize("table", ["Chat", "ChatSession", "ChatbotResponse", "Persona"])
async def test_a_missing_table_is_a_500_with_a_sentence_and_passes(world: World, gateway: Gateway, table: str) -> None:
    (persona_id,) = add_personas(world.chatdb, unique("누구"))
    async with visit(gateway) as visitor:
        frame = await visitor.ask(unique("질문"))
        with without(world, table):
            for response in touching(table, gateway, visitor, frame["message_id"], persona_id):
                assert_sentence(response, 500)
                assert table not in response.text
                assert response.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
            assert gateway.http.get("/api/health").status_code == 200
        for response in touching(table, gateway, visitor, frame["message_id"], persona_id):
            assert response.status_code == 200


def touching(
    table: str, gateway: Gateway, visitor: Visitor, message_id: str, persona_id: int
) -> Iterator[httpx.Response]:
    """The answers of all paths that cannot do without the table."""
    headers = {"origin": ALLOWED_ORIGIN} | bearer(visitor.session_id)
    if table in ("Chat", "ChatSession"):
        yield gateway.http.get(f"/api/chat/history/{visitor.session_id}", headers=headers)
    if table == "ChatbotResponse":
        body = {"message_id": message_id, "is_helpful": True}
        yield gateway.http.post("/api/chat/feedback", json=body, headers=headers)
    if table == "ChatSession":
        login = {"session_id": visitor.session_id, "persona_id": persona_id}
        yield gateway.http.post("/api/login", json=login, headers=headers)
    if table == "Persona":
        yield gateway.http.get("/api/chat/personas", headers=headers)
        yield gateway.http.get("/api/login/personas", headers=headers)


@pytest.fixture
def chatdb_proxy(postgres: PostgresServer) -> Iterator[TcpProxy]:
    with TcpProxy(postgres.port) as proxy:
        yield proxy


async def test_a_failing_card_qna_db_stops_no_conversation(
    new_world: NewWorld, new_gateway: NewGateway, chatdb_proxy: TcpProxy
) -> None:
    world = new_world()
    url = world.card_qna.url_at(chatdb_proxy.port)
    gateway = new_gateway(world, FAQ_DATABASE_URL=url, DB_TIMEOUT="1", QNA_REFRESH_SECONDS="0.2")
    known = gateway.http.get("/api/qna/faq").json()
    chatdb_proxy.cut()
    async with visit(gateway) as visitor:
        await visitor.goes_on()
        assert (await visitor.ask(known[0]["question"]))["message"]
        response = gateway.http.get("/api/qna/faq")
        if response.status_code == 200:
            assert response.json() == known  # from memory
        else:
            assert_sentence(response, 500)
    chatdb_proxy.mend()
    await become(lambda: gateway.http.get("/api/qna/terms").status_code == 200)


async def test_a_missing_faq_table_is_no_leak(new_world: NewWorld, new_gateway: NewGateway) -> None:
    world = new_world()
    gateway = new_gateway(world, QNA_REFRESH_SECONDS="0.2")
    world.card_qna.execute("ALTER TABLE faqs RENAME TO elsewhere")
    world.card_qna.execute("ALTER TABLE terms RENAME TO elsewhere_too")
    for path in ("/api/qna/faq", "/api/qna/terms"):
        response = gateway.http.get(path)
        assert response.status_code in (200, 500)
        if response.status_code == 500:
            assert_sentence(response, 500)
