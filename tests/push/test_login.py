"""Login, the MCP server's question in between, and the push."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.support.backends import (
    Drip,
    Drop,
    Hang,
    Held,
    Json,
    McpStub,
    Raw,
    Reply,
    login_required_answer,
    recommendation,
)
from tests.support.chat import Visitor, new_id, visit
from tests.support.gateway import Gateway
from tests.support.http import assert_sentence
from tests.support.network import RefusedPort
from tests.support.world import NewGateway, NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio

PUSH = {"sender", "timestamp", "message_id", "login_required", "message", "card_list", "tool_name"}


@pytest.fixture
def persona_id(default_world: World, default_gateway: Gateway) -> int:
    ids = [row["id"] for row in default_world.chatdb.fetch('SELECT id FROM "Persona" ORDER BY id')]
    return int(ids[1])


@pytest.fixture
async def visitor(default_gateway: Gateway) -> AsyncIterator[Visitor]:
    async with visit(default_gateway) as visitor:
        yield visitor


async def login(visitor: Visitor, persona_id: int) -> httpx.Response:
    async with visitor.gateway.async_http() as http:
        body = {"session_id": visitor.session_id, "persona_id": persona_id}
        return await http.post("/api/login", json=body)


def persona_of(visitor: Visitor) -> Any:
    body = {"session_id": visitor.session_id}
    response = visitor.gateway.http.post("/api/login/persona_id", json=body)
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["persona_id"]
    return response.json()["persona_id"]


async def test_login_returns_nothing_and_pushes_the_recommendation(
    visitor: Visitor, mcp: McpStub, persona_id: int
) -> None:
    mcp.on_session(visitor.session_id, recommendation("이 카드가 맞습니다.", ["카드의정석2", "나카드"]))
    response = await login(visitor, persona_id)
    assert (response.status_code, response.content) == (200, b"")
    frame = await visitor.receive()
    assert set(frame) == PUSH
    assert frame["sender"] == "bot"
    assert frame["message"] == "이 카드가 맞습니다."
    assert frame["card_list"] == ["카드의정석2", "나카드"]
    assert frame["tool_name"] == "consumption_recommend"
    assert frame["login_required"] is False
    assert datetime.fromisoformat(frame["timestamp"]).utcoffset() is not None
    await visitor.nothing_pending()


async def test_the_mcp_server_is_asked_exactly_once_with_session_and_persona(
    visitor: Visitor, mcp: McpStub, persona_id: int
) -> None:
    await login(visitor, persona_id)
    (call,) = mcp.calls_with(session_id=visitor.session_id)
    assert (call.method, call.path) == ("POST", "/tools/consumption_recommend")
    assert call.headers["content-type"].split(";")[0] == "application/json"
    assert call.json == {"session_id": visitor.session_id, "persona_id": persona_id}


async def test_the_session_stays_alive_while_the_mcp_server_works(
    visitor: Visitor, mcp: McpStub, persona_id: int
) -> None:
    held = Held(recommendation("늦은 추천"))
    mcp.on_session(visitor.session_id, held)
    async with visitor.gateway.async_http() as http:
        body = {"session_id": visitor.session_id, "persona_id": persona_id}
        logging_in = asyncio.create_task(http.post("/api/login", json=body))
        await mcp.called(session_id=visitor.session_id)
        text = unique("그 사이에")
        assert (await visitor.ask(text))["message"] == f"re: {text}"
        held.release()
        assert (await logging_in).status_code == 200
    assert (await visitor.receive())["message"] == "늦은 추천"


async def test_a_slow_mcp_server_takes_no_connection_from_the_llm_server(
    new_world: NewWorld, new_gateway: NewGateway, mcp: McpStub
) -> None:
    world = new_world()
    gateway = new_gateway(world, MAX_UPSTREAM_CONNECTIONS="1")
    (persona_id,) = add_personas(world.chatdb, unique("느린 사람"))
    async with visit(gateway) as visitor:
        held = Held(recommendation("늦은 추천"))
        mcp.on_session(visitor.session_id, held)
        logging_in = asyncio.create_task(login(visitor, persona_id))
        await mcp.called(session_id=visitor.session_id)
        await visitor.goes_on()
        held.release()
        assert (await logging_in).status_code == 200


async def test_a_push_without_a_prompt_before_it_carries_an_id_of_its_own(visitor: Visitor, persona_id: int) -> None:
    await login(visitor, persona_id)
    pushed = await visitor.receive()
    await login(visitor, persona_id)
    again = await visitor.receive()
    assert len({pushed["message_id"], again["message_id"], visitor.session_id}) == 3


async def test_a_push_stands_in_the_history_with_the_time_that_was_sent(
    visitor: Visitor, mcp: McpStub, persona_id: int
) -> None:
    mcp.on_session(visitor.session_id, recommendation("추천 이력"))
    await login(visitor, persona_id)
    pushed = await visitor.receive()
    (entry,) = visitor.history()
    assert (entry["is_user"], entry["content"]) == (False, "추천 이력")
    assert entry["timestamp"] == pushed["timestamp"]


async def test_an_empty_card_list_is_no_failure(visitor: Visitor, mcp: McpStub, persona_id: int) -> None:
    mcp.on_session(visitor.session_id, recommendation("맞는 카드가 없습니다.", []))
    assert (await login(visitor, persona_id)).status_code == 200
    pushed = await visitor.receive()
    assert pushed["message"] == "맞는 카드가 없습니다."
    assert pushed.get("card_list", []) == []


async def test_another_login_changes_the_persona(visitor: Visitor, default_world: World, persona_id: int) -> None:
    await login(visitor, persona_id)
    await visitor.receive()
    assert (await login(visitor, persona_id + 1)).status_code == 200
    await visitor.receive()
    assert persona_of(visitor) == persona_id + 1
    stored = 'SELECT persona_id FROM "ChatSession" WHERE session_id = $1::text::uuid'
    assert default_world.chatdb.value(stored, visitor.session_id) == persona_id + 1


async def test_a_login_of_one_session_is_no_other_sessions_business(
    visitor: Visitor, default_gateway: Gateway, persona_id: int
) -> None:
    async with visit(default_gateway) as other:
        await login(visitor, persona_id)
        await visitor.receive()
        assert persona_of(other) is None
        await other.nothing_pending()


# Feedback on a push


async def test_feedback_under_a_prompt_with_answer_and_push_goes_to_the_newest(
    visitor: Visitor, default_world: World, persona_id: int
) -> None:
    text = unique("내 소비에 맞는 카드는?")
    default_world.llm.on(text, login_required_answer())
    asked = await visitor.ask(text)
    body = {"message_id": asked["message_id"], "is_helpful": False}
    assert visitor.gateway.http.post("/api/chat/feedback", json=body).status_code == 200
    assert default_world.feedback(visitor.session_id) == [False]
    await login(visitor, persona_id)
    await visitor.receive()
    body["is_helpful"] = True
    assert visitor.gateway.http.post("/api/chat/feedback", json=body).status_code == 200
    assert default_world.feedback(visitor.session_id) == [False, True]


# Refusals


async def test_a_session_that_never_was_is_a_404(default_gateway: Gateway, persona_id: int) -> None:
    body = {"session_id": new_id(), "persona_id": persona_id}
    assert_sentence(default_gateway.http.post("/api/login", json=body), 404)
    assert_sentence(default_gateway.http.post("/api/login/persona_id", json=body), 404)


@pytest.mark.parametrize("offset", [1000, 2**31 - 1000])
async def test_an_unknown_persona_is_a_404_and_ties_nothing(
    visitor: Visitor, mcp: McpStub, persona_id: int, offset: int
) -> None:
    assert_sentence(await login(visitor, persona_id + offset), 404)
    assert persona_of(visitor) is None
    assert mcp.calls_with(session_id=visitor.session_id) == []


@pytest.mark.parametrize("persona", [0, -1, 2**31 - 1, 2**31, 2**63, 2**70, -(2**40)])
async def test_an_impossible_persona_is_a_404(visitor: Visitor, mcp: McpStub, persona: int) -> None:
    assert_sentence(await login(visitor, persona), 404)
    assert persona_of(visitor) is None
    assert mcp.calls_with(session_id=visitor.session_id) == []


# The MCP server fails

FAILURES: dict[str, Reply] = {
    "status 500": Json({"detail": "broken"}, status=500),
    "status 404": Json({"answer": "추천", "login_required": False, "card_list": []}, status=404),
    "status 422": Json({"detail": []}, status=422),
    "reset": Drop(),
    "broken off": Drop(b'{"answer": "x"'),
    "empty": Raw(b""),
    "garbage": Raw(b"<html></html>"),
    "half": Raw(b'{"answer": "'),
    "list": Json([]),
    "null": Json(None),
    "text": Json("추천"),
    "no answer": Json({"login_required": False, "card_list": []}),
    "answer null": Json({"answer": None, "login_required": False, "card_list": []}),
    "answer number": Json({"answer": 5, "login_required": False, "card_list": []}),
    "answer list": Json({"answer": ["추천"], "login_required": False, "card_list": []}),
    "cards text": Json({"answer": "추천", "login_required": False, "card_list": "카드"}),
    "cards object": Json({"answer": "추천", "login_required": False, "card_list": {"a": 1}}),
    "bad utf-8": Raw(b'{"answer": "\xff", "login_required": false, "card_list": []}'),
    "nesting": Raw(b"[" * 100_000),
    "3 MB": recommendation("x" * 3_000_000),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failing_mcp_server_is_a_502_and_trying_again_is_harmless(
    visitor: Visitor, mcp: McpStub, persona_id: int, failure: str
) -> None:
    mcp.on_session(visitor.session_id, FAILURES[failure])
    assert_sentence(await login(visitor, persona_id), 502)
    assert persona_of(visitor) == persona_id
    await visitor.nothing_pending()
    assert visitor.history() == []
    mcp.on_session(visitor.session_id, recommendation("이번에는"))
    assert (await login(visitor, persona_id)).status_code == 200
    assert (await visitor.receive())["message"] == "이번에는"


@pytest.fixture(scope="module")
def impatient_world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def impatient_gateway(impatient_world: World) -> Iterator[Gateway]:
    """A gateway that gives the MCP server two seconds."""
    with Gateway(impatient_world.settings | {"HTTPX_TIMEOUT": "2"}) as gateway:
        yield gateway


@pytest.mark.parametrize("reply", [Hang(), Drip(0.1)], ids=["hang", "drip"])
async def test_an_mcp_server_that_takes_too_long_is_a_502(
    impatient_gateway: Gateway, impatient_world: World, mcp: McpStub, reply: Reply
) -> None:
    (persona_id,) = add_personas(impatient_world.chatdb, unique("느린 사람"))
    async with visit(impatient_gateway) as visitor:
        mcp.on_session(visitor.session_id, reply, recommendation("이번에는"))
        assert_sentence(await login(visitor, persona_id), 502)
        assert persona_of(visitor) == persona_id
        assert (await login(visitor, persona_id)).status_code == 200
        assert (await visitor.receive())["message"] == "이번에는"


async def test_an_mcp_server_that_is_away_is_a_502(new_world: NewWorld, new_gateway: NewGateway) -> None:
    world = new_world()
    with RefusedPort() as refused:
        gateway = new_gateway(world, MCP_SERVER_URL=refused.url)
        (persona_id,) = add_personas(world.chatdb, "혼자")
        async with visit(gateway) as visitor:
            assert_sentence(await login(visitor, persona_id), 502)
            assert persona_of(visitor) == persona_id
            text = unique("계속")
            assert (await visitor.ask(text))["message"] == f"re: {text}"


async def test_a_nul_in_a_recommendation_is_no_server_error(visitor: Visitor, mcp: McpStub, persona_id: int) -> None:
    mcp.on_session(visitor.session_id, recommendation("a\x00b", ["c\x00d"]))
    response = await login(visitor, persona_id)
    assert response.status_code in (200, 502)
    if response.status_code == 200:
        assert "\x00" not in str(await visitor.receive())
