"""The schema is brought up to date at start, by one of several instances, and only ours."""

import uuid
from typing import Any

import pytest

from tests.support.card_qna import build_card_qna
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.postgres import PostgresServer
from tests.support.world import NewGateway, NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio

COLUMNS = {
    "Persona": {"id", "name", "description", "created_at"},
    "ChatSession": {"session_id", "persona_id", "created_at"},
    "Chat": {"id", "session_id", "persona_id", "is_user", "content", "created_at"},
    "ChatbotResponse": {"chat_id", "prompt_chat_id", "is_helpful", "source_tool", "response_payload"},
}


def columns(schema: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, str]]:
    """The type of each column of each table."""
    tables: dict[str, dict[str, str]] = {}
    for column in schema["columns"]:
        tables.setdefault(column["table_name"], {})[column["column_name"]] = column["data_type"]
    return tables


async def test_an_empty_database_gets_the_tables_that_reports_read_and_a_second_start_changes_nothing(
    new_world: NewWorld, new_gateway: NewGateway
) -> None:
    world = new_world()
    assert world.chatdb.schema()["columns"] == []
    first = new_gateway(world)
    schema = world.chatdb.schema()
    tables = columns(schema)
    for table, names in COLUMNS.items():
        assert names <= set(tables[table])
    assert tables["Chat"]["id"] == tables["ChatSession"]["session_id"] == "uuid"
    assert tables["ChatbotResponse"]["response_payload"] == "jsonb"
    assert tables["Chat"]["created_at"] == "timestamp with time zone"
    # Statistics of empty tables would have them scanned for as long as they are not analysed again.
    assert world.chatdb.value("SELECT max(reltuples) FROM pg_class WHERE relname IN ('Chat', 'ChatSession')") == -1
    async with visit(first) as visitor:
        await visitor.goes_on()
        first.stop()
    second = new_gateway(world)
    assert world.chatdb.schema() == schema
    visitor.gateway = second
    assert len(visitor.history()) == 2


async def test_several_instances_that_start_at_once_bring_it_up_to_date_once(new_world: NewWorld) -> None:
    world = new_world()
    gateways = [Gateway(world.settings).launch() for _ in range(4)]
    try:
        for gateway in gateways:
            gateway.wait_until_healthy()
        (persona_id,) = add_personas(world.chatdb, "모두의 사람")
        for gateway in gateways:
            assert [persona["id"] for persona in gateway.http.get("/api/chat/personas").json()["personas"]] == [
                persona_id
            ]
            async with visit(gateway) as visitor:
                await visitor.goes_on()
        migrations = world.chatdb.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
        )
        assert len(migrations) == len({row["table_name"] for row in migrations})
    finally:
        for gateway in gateways:
            gateway.close()


async def test_ids_of_new_rows_are_the_clients_and_fresh_ones(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as visitor:
        frame = await visitor.ask(unique("질문"))
        prompt, answer = default_world.chatdb.fetch(
            'SELECT id, is_user FROM "Chat" WHERE session_id = $1::text::uuid ORDER BY created_at', visitor.session_id
        )
    assert (str(prompt["id"]), prompt["is_user"]) == (frame["message_id"], True)
    assert answer["is_user"] is False
    assert answer["id"] not in (prompt["id"], uuid.UUID(visitor.session_id))


@pytest.mark.parametrize("ids", ["integer", "string"])
async def test_card_qna_db_is_read_and_counted_in_and_otherwise_untouched(
    new_world: NewWorld, new_gateway: NewGateway, postgres: PostgresServer, ids: Any
) -> None:
    world = new_world(card_qna=build_card_qna(postgres.database(), ids))
    schema = world.card_qna.schema()
    rows = "SELECT to_jsonb(faqs) - 'views' AS row FROM faqs UNION ALL SELECT to_jsonb(terms) - 'views' FROM terms"
    before = world.card_qna.fetch(rows + " ORDER BY row")
    gateway = new_gateway(world)
    question = gateway.http.get("/api/qna/faq").json()[0]["question"]
    async with visit(gateway) as visitor:
        await visitor.ask(question)
    gateway.stop()
    assert world.card_qna.schema() == schema
    assert world.card_qna.fetch(rows + " ORDER BY row") == before
