"""The history of a session."""

import uuid
from datetime import datetime

import pytest

from tests.support.chat import new_id, visit
from tests.support.gateway import Gateway
from tests.support.http import assert_invalid, assert_sentence
from tests.support.keys import bearer
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio


async def test_it_tells_the_conversation_oldest_first(default_gateway: Gateway) -> None:
    texts = [unique("첫 질문"), unique("둘째 질문"), unique("셋째 질문")]
    async with visit(default_gateway) as visitor:
        frames = [await visitor.ask(text) for text in texts]
        history = visitor.history()
    assert [(entry["is_user"], entry["content"]) for entry in history] == [
        turn for text in texts for turn in ((True, text), (False, f"re: {text}"))
    ]
    prompts, answers = history[::2], history[1::2]
    assert [prompt["message_id"] for prompt in prompts] == [frame["message_id"] for frame in frames]
    assert [answer["timestamp"] for answer in answers] == [frame["timestamp"] for frame in frames]
    for entry in history:
        assert {"is_user", "content", "message_id", "timestamp"} <= set(entry)
        uuid.UUID(entry["message_id"])
        assert datetime.fromisoformat(entry["timestamp"]).utcoffset() is not None
    times = [datetime.fromisoformat(entry["timestamp"]) for entry in history]
    assert times == sorted(times)


async def test_a_session_without_a_prompt_has_an_empty_history(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        assert visitor.history() == []


async def test_it_outlives_the_connection(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.ask(unique("질문"))
    assert len(visitor.history()) == 2


async def test_sessions_do_not_mix(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as one, visit(default_gateway) as other:
        await one.ask(unique("하나"))
        await other.ask(unique("다른 하나"))
        assert [entry["content"] for entry in one.history()] != [entry["content"] for entry in other.history()]
        assert len(one.history()) == len(other.history()) == 2


async def test_limit_gives_the_newest_still_oldest_first(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        for number in range(3):
            await visitor.ask(unique(f"질문 {number}"))
        whole = visitor.history()
        for limit in (1, 2, 3, 5, 6, 7, 500):
            assert visitor.history(limit=limit) == whole[-limit:]


async def test_without_a_limit_the_newest_hundred_are_given(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as visitor:
        default_world.chatdb.fetch(
            'INSERT INTO "Chat" (id, session_id, is_user, content, created_at)'
            " SELECT gen_random_uuid(), $1::text::uuid, true, number::text, now() + number * interval '1 ms'"
            " FROM generate_series(1, 520) AS number",
            visitor.session_id,
        )
        contents = [str(number) for number in range(1, 521)]
        assert [entry["content"] for entry in visitor.history()] == contents[-100:]
        assert [entry["content"] for entry in visitor.history(limit=500)] == contents[-500:]


@pytest.mark.parametrize(
    "limit", ["0", "501", "-1", "abc", "1.5", "1e2", "", "true", "9" * 30, "-" + "9" * 30, "1_0", "0x10", "%00", "1;2"]
)
async def test_a_limit_that_is_no_integer_from_1_to_500_is_a_422(default_gateway: Gateway, limit: str) -> None:
    async with visit(default_gateway) as visitor:
        address = f"/api/chat/history/{visitor.session_id}"
        assert_invalid(default_gateway.http.get(f"{address}?limit={limit}"), ("query", "limit"))


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=+1", "limit=%D9%A3", "LIMIT=0", "other=1", "="])
async def test_an_odd_query_is_no_server_error(default_gateway: Gateway, query: str) -> None:
    async with visit(default_gateway) as visitor:
        path, headers = f"/api/chat/history/{visitor.session_id}?{query}", bearer(visitor.session_id)
        response = default_gateway.http.get(path, headers=headers)
        assert response.status_code in (200, 422)


async def test_an_unknown_session_is_a_404(default_gateway: Gateway) -> None:
    assert_sentence(default_gateway.http.get(f"/api/chat/history/{new_id()}"), 404)


@pytest.mark.parametrize("session_id", ["nonsense", "1", "0" * 31, "%00", "null", "%ED%95%9C", "x" * 2000])
async def test_a_session_id_that_is_no_uuid_is_a_422(default_gateway: Gateway, session_id: str) -> None:
    response = default_gateway.http.get(f"/api/chat/history/{session_id}")
    assert_invalid(response, ("path", "session_id"))


async def test_wrong_path_and_query_are_reported_together(default_gateway: Gateway) -> None:
    response = default_gateway.http.get("/api/chat/history/nonsense?limit=0")
    assert_invalid(response, ("path", "session_id"))
