"""A ChatDB made by the FastAPI version is taken over in place, with its data."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.support import old_chatdb as old
from tests.support.backends import login_required_answer
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.keys import bearer, give_key
from tests.support.postgres import PostgresServer
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

SESSIONS = (old.SESSION, old.OTHER_SESSION, old.EMPTY_SESSION)


@pytest.fixture(scope="module", params=[False, True], ids=["as made", "with further columns"])
def world(request: pytest.FixtureRequest, postgres: PostgresServer, new_world: NewWorld) -> World:
    database = old.build_old_chatdb(postgres.database(prefix="old"), with_further_columns=request.param)
    return new_world(chatdb=database)


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    with Gateway(world.settings) as gateway:
        yield gateway


def history(world: World, gateway: Gateway, session_id: str) -> list[dict[str, Any]]:
    """What an operator would see who gave the old session a key."""
    give_key(world.chatdb, session_id)
    response = gateway.http.get(f"/api/chat/history/{session_id}", headers=bearer(session_id))
    assert response.status_code == 200, response.text
    entries: list[dict[str, Any]] = response.json()["history"]
    return entries


def said(world: World, gateway: Gateway, session_id: str) -> list[tuple[bool, str]]:
    return [(entry["is_user"], entry["content"]) for entry in history(world, gateway, session_id)]


@pytest.mark.parametrize("session_id", SESSIONS)
async def test_the_old_history_is_read_as_it_was(world: World, gateway: Gateway, session_id: str) -> None:
    assert said(world, gateway, session_id) == old.conversation(session_id)


async def test_a_takeover_leaves_statistics_and_says_how_far_it_is(gateway: Gateway, world: World) -> None:
    """Otherwise the first logins would read whole tables: autovacuum does not notice that a table was rewritten."""
    analysed = (
        "SELECT count(DISTINCT tablename) FROM pg_stats WHERE tablename = ANY ('{ChatSession,Chat,ChatbotResponse}')"
    )
    assert world.chatdb.value(analysed) == 3
    never = "SELECT count(*) FROM pg_class WHERE relname = ANY ('{ChatSession,Chat,ChatbotResponse}') AND reltuples < 1"
    assert world.chatdb.value(never) == 0
    steps = [line for line in gateway.output().splitlines() if "migration goes on" in line]
    assert len(steps) >= 6, "a line for each step that takes long with many rows"


async def test_old_ids_and_times_are_kept_to_the_microsecond(world: World, gateway: Gateway) -> None:
    prompt, answer, *_ = history(world, gateway, old.SESSION)
    assert prompt["message_id"] == old.PROMPT
    assert datetime.fromisoformat(prompt["timestamp"]) == datetime.fromisoformat("2025-03-01T10:00:01.000001+09:00")
    assert datetime.fromisoformat(answer["timestamp"]) == datetime.fromisoformat("2025-03-01T10:00:02.000002+09:00")


async def test_old_personas_keep_their_ids(gateway: Gateway) -> None:
    assert gateway.http.get("/api/chat/personas").json() == {
        "personas": [
            {"id": 1, "name": "옛 사람", "description": "카페와 편의점"},
            {"id": 3, "name": "다른 사람", "description": ""},
        ]
    }


async def test_ids_are_uuids_and_payloads_jsonb(gateway: Gateway, world: World) -> None:
    types = {
        (column["table_name"], column["column_name"]): column["data_type"]
        for column in world.chatdb.schema()["columns"]
    }
    for column in ("id", "session_id"):
        assert types["Chat", column] == "uuid"
    for column in ("chat_id", "prompt_chat_id"):
        assert types["ChatbotResponse", column] == "uuid"
    assert types["ChatSession", "session_id"] == "uuid"
    assert types["ChatbotResponse", "response_payload"] == "jsonb"
    assert types["Persona", "id"] == "integer"


async def test_old_payloads_are_kept(gateway: Gateway, world: World) -> None:
    rows = world.chatdb.fetch('SELECT chat_id::text, response_payload FROM "ChatbotResponse"')
    payloads = {row["chat_id"]: row["response_payload"] for row in rows}
    assert payloads[old.ANSWER] is None
    assert payloads[old.FIRST_OF_TWO] == {"login_required": True}
    assert payloads[old.SECOND_OF_TWO] == {"login_required": False, "card_list": ["카드의정석2", "나카드"]}


async def give_feedback(gateway: Gateway, message_id: str, is_helpful: bool) -> int:
    body = {"message_id": message_id, "is_helpful": is_helpful}
    return gateway.http.post("/api/chat/feedback", json=body).status_code


async def test_feedback_on_an_old_answer_finds_it(gateway: Gateway, world: World) -> None:
    assert await give_feedback(gateway, old.PROMPT, False) == 200
    helpful = 'SELECT is_helpful FROM "ChatbotResponse" WHERE chat_id = $1::text::uuid'
    assert world.chatdb.value(helpful, old.ANSWER) is False


async def test_feedback_on_an_old_prompt_with_two_answers_goes_to_the_newest(gateway: Gateway, world: World) -> None:
    assert await give_feedback(gateway, old.PROMPT_WITH_TWO_ANSWERS, True) == 200
    helpful = 'SELECT is_helpful FROM "ChatbotResponse" WHERE chat_id = $1::text::uuid'
    assert world.chatdb.value(helpful, old.FIRST_OF_TWO) is None
    assert world.chatdb.value(helpful, old.SECOND_OF_TWO) is True


async def test_feedback_on_an_old_prompt_without_an_answer_is_a_404(gateway: Gateway) -> None:
    assert await give_feedback(gateway, old.UNANSWERED, True) == 404


async def test_an_old_session_is_not_connected(gateway: Gateway) -> None:
    for session_id in SESSIONS:
        body = {"session_id": session_id, "persona_id": 1}
        assert gateway.http.post("/api/login/persona_id", json=body).status_code == 404
        assert gateway.http.post("/api/login", json=body).status_code == 404


async def test_new_turns_logins_and_feedback_work_in_the_same_database(gateway: Gateway, world: World) -> None:
    async with visit(gateway) as visitor:
        text = unique("내 소비에 맞는 카드는?")
        world.llm.on(text, login_required_answer())
        asked = await visitor.ask(text)
        body = {"session_id": visitor.session_id, "persona_id": 3}
        async with gateway.async_http() as http:
            assert (await http.post("/api/login", json=body)).status_code == 200
        pushed = await visitor.receive()
        assert pushed["message_id"] == asked["message_id"]
        await visitor.goes_on()
        assert await give_feedback(gateway, asked["message_id"], True) == 200
        assert world.feedback(visitor.session_id) == [None, True, None]
        assert len(visitor.history()) == 5


async def test_new_personas_get_new_ids(gateway: Gateway, world: World) -> None:
    row = world.chatdb.fetchrow('INSERT INTO "Persona" (name) VALUES ($1) RETURNING id, created_at', unique("새 사람"))
    assert row["id"] > 3
    assert row["created_at"] is not None
    world.chatdb.fetch('DELETE FROM "Persona" WHERE id = $1', row["id"])


async def test_the_foreign_keys_still_mean_the_same(new_world: NewWorld, postgres: PostgresServer) -> None:
    world = new_world(chatdb=old.build_old_chatdb(postgres.database(prefix="old")))
    with Gateway(world.settings) as gateway:
        world.chatdb.execute('DELETE FROM "Persona" WHERE id = 1')
        assert said(world, gateway, old.SESSION) == old.conversation(old.SESSION)
        of_session = 'SELECT persona_id FROM "ChatSession" WHERE session_id = $1::text::uuid'
        assert world.chatdb.value(of_session, old.SESSION) is None
        world.chatdb.execute(f"DELETE FROM \"ChatSession\" WHERE session_id = '{old.SESSION}'")
        assert world.chatdb.value('SELECT count(*) FROM "Chat"') == len(old.conversation(old.OTHER_SESSION))
        assert world.chatdb.value('SELECT count(*) FROM "ChatbotResponse"') == 0
        assert gateway.http.get(f"/api/chat/history/{old.SESSION}", headers=bearer(old.SESSION)).status_code == 404


async def test_several_instances_that_start_at_once_take_it_over_once(
    new_world: NewWorld, postgres: PostgresServer
) -> None:
    world = new_world(chatdb=old.build_old_chatdb(postgres.database(prefix="old")))
    gateways = [Gateway(world.settings).launch() for _ in range(3)]
    try:
        for gateway in gateways:
            gateway.wait_until_healthy()
            assert said(world, gateway, old.SESSION) == old.conversation(old.SESSION)
    finally:
        for gateway in gateways:
            gateway.close()


async def test_a_second_start_changes_nothing(new_world: NewWorld, postgres: PostgresServer) -> None:
    world = new_world(chatdb=old.build_old_chatdb(postgres.database(prefix="old"), with_further_columns=True))
    content = 'SELECT to_jsonb(c) AS row FROM "Chat" c ORDER BY id'
    with Gateway(world.settings):
        schema, rows = world.chatdb.schema(), world.chatdb.fetch(content)
    with Gateway(world.settings):
        assert world.chatdb.schema() == schema
        assert world.chatdb.fetch(content) == rows


async def test_reports_on_the_old_tables_go_on_with_their_owners_and_grants(
    new_world: NewWorld, postgres: PostgresServer
) -> None:
    """Other teams' views, also views on views, are there after the takeover and say the same."""
    world = new_world(chatdb=old.build_old_chatdb(postgres.database(prefix="old")))
    world.chatdb.execute("""
        DO $$ BEGIN CREATE ROLE report_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        CREATE VIEW said AS SELECT session_id, count(*) AS chats FROM "Chat" GROUP BY session_id;
        CREATE VIEW talkative WITH (security_barrier = true) AS SELECT * FROM said WHERE chats > 1;
        ALTER VIEW talkative OWNER TO report_reader;
        GRANT SELECT ON said TO report_reader WITH GRANT OPTION;
        GRANT SELECT ON said TO PUBLIC;
    """)
    count = "SELECT session_id::text, chats FROM talkative ORDER BY 1"
    about = (
        "SELECT relname, pg_get_userbyid(relowner) AS owner, reloptions, (SELECT array_agg(a::text ORDER BY a::text)"
        " FROM unnest(relacl) AS a) AS acl FROM pg_class WHERE relname IN ('said', 'talkative') ORDER BY 1"
    )
    before = world.chatdb.fetch(about)
    world.chatdb.execute("GRANT SELECT ON said TO report_reader")
    counted = world.chatdb.fetch(count)
    assert counted
    with Gateway(world.settings).start():
        assert world.chatdb.fetch(count) == counted
        assert world.chatdb.fetch(about) == before
