"""Feedback on an answer."""

from typing import Any

import pytest

from tests.support.chat import new_id, visit
from tests.support.gateway import Gateway
from tests.support.http import assert_sentence
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio


def give(gateway: Gateway, message_id: str, is_helpful: bool | None, **more: Any) -> None:
    body = {"message_id": message_id, "is_helpful": is_helpful} | more
    response = gateway.http.post("/api/chat/feedback", json=body)
    assert response.status_code == 200, response.text
    expected = {"status": "success", "message_id": message_id, "feedback_received": is_helpful}
    assert response.json() == expected


@pytest.mark.parametrize("is_helpful", [True, False, None])
async def test_feedback_is_stored_and_echoed(
    default_gateway: Gateway, default_world: World, is_helpful: bool | None
) -> None:
    async with visit(default_gateway) as visitor:
        frame = await visitor.ask(unique("피드백"))
        give(default_gateway, frame["message_id"], is_helpful)
        assert default_world.feedback(visitor.session_id) == [is_helpful]


async def test_feedback_may_be_changed_and_taken_back(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as visitor:
        frame = await visitor.ask(unique("피드백"))
        for is_helpful in (True, False, False, None, True):
            give(default_gateway, frame["message_id"], is_helpful)
            assert default_world.feedback(visitor.session_id) == [is_helpful]


async def test_the_front_ends_further_fields_are_ignored(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        frame = await visitor.ask(unique("피드백"))
        give(default_gateway, frame["message_id"], False, prompt_message_id=new_id(), sender="user")


async def test_feedback_outlives_the_connection(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as visitor:
        frame = await visitor.ask(unique("피드백"))
    give(default_gateway, frame["message_id"], True)
    assert default_world.feedback(visitor.session_id) == [True]


async def test_feedback_on_an_answer_touches_no_other(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.ask(unique("하나"))
        second = await visitor.ask(unique("둘"))
        await visitor.ask(unique("셋"))
        give(default_gateway, second["message_id"], False)
        assert default_world.feedback(visitor.session_id) == [None, False, None]


def test_feedback_on_nothing_is_a_404(default_gateway: Gateway) -> None:
    body = {"message_id": new_id(), "is_helpful": True}
    assert_sentence(default_gateway.http.post("/api/chat/feedback", json=body), 404)


async def test_a_session_id_is_no_message_id(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.ask(unique("피드백"))
        body = {"message_id": visitor.session_id, "is_helpful": True}
        assert_sentence(default_gateway.http.post("/api/chat/feedback", json=body), 404)


async def test_an_answer_from_the_cache_takes_feedback_like_any_other(
    default_gateway: Gateway, default_world: World
) -> None:
    question = default_gateway.http.get("/api/qna/faq").json()[0]["question"]
    async with visit(default_gateway) as visitor:
        frame = await visitor.ask(question)
        give(default_gateway, frame["message_id"], True)
        assert default_world.feedback(visitor.session_id) == [True]
