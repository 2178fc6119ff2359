"""A session is the same on every instance, as long as its socket is open."""

import asyncio

import pytest

from tests.support.backends import Held, answer
from tests.support.chat import visit
from tests.support.cluster import Cluster, holder_of, persona_id
from tests.support.http import assert_sentence
from tests.support.keys import bearer
from tests.support.waiting import become
from tests.support.world import unique

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("way", ["closed", "cut"])
async def test_a_session_is_gone_everywhere_as_soon_as_its_socket_is_closed(three: Cluster, way: str) -> None:
    """However the visitor leaves: when one instance says 404, all do."""
    async with visit(three[0]) as visitor:
        for gateway in three:
            assert persona_id(gateway, visitor.session_id) == (200, None)
        if way == "closed":
            await visitor.leave()
        else:
            visitor.socket.transport.abort()
        await become(lambda: persona_id(three[2], visitor.session_id)[0] == 404)
        assert [persona_id(gateway, visitor.session_id)[0] for gateway in three] == [404] * 3


async def test_the_persona_can_be_asked_for_while_a_left_visitors_turn_is_answered(
    three: Cluster, personas: list[int]
) -> None:
    """The MCP server asks during a turn: it is answered everywhere until that turn is done."""
    message = unique("떠난 뒤의 질문")
    held = Held(answer("끝"))
    three.world.llm.on(message, held)
    async with visit(three[0]) as visitor:
        body = {"session_id": visitor.session_id, "persona_id": personas[0]}
        assert three[1].http.post("/api/login", json=body).status_code == 200
        await visitor.prompt(message)
        await three.world.llm.called(query=message)
    chatdb = three.world.chatdb
    await become(lambda: holder_of(chatdb, visitor.session_id) is None, what="the session has ended")
    for gateway in three:
        assert persona_id(gateway, visitor.session_id) == (200, personas[0])
    held.release()
    for gateway in three:
        await become(lambda gateway=gateway: persona_id(gateway, visitor.session_id)[0] == 404)  # type: ignore[misc]


async def test_a_login_to_a_session_that_left_is_404_on_every_instance(three: Cluster, personas: list[int]) -> None:
    """Nobody can log in to a session without a socket, also not while a turn of it goes on."""
    message = unique("떠난 뒤의 로그인")
    held = Held(answer("끝"))
    three.world.llm.on(message, held)
    async with visit(three[0]) as visitor:
        await visitor.prompt(message)
        await three.world.llm.called(query=message)
    chatdb = three.world.chatdb
    await become(lambda: holder_of(chatdb, visitor.session_id) is None, what="the session has ended")
    for gateway in three:
        body = {"session_id": visitor.session_id, "persona_id": personas[0]}
        assert_sentence(gateway.http.post("/api/login", json=body), 404)
    assert three.world.mcp.calls_with(session_id=visitor.session_id) == []
    held.release()


async def test_history_is_the_same_on_every_instance(three: Cluster) -> None:
    """What one instance has answered stands in the history of all, at once."""
    async with visit(three[0]) as visitor:
        for _ in range(3):
            await visitor.ask(unique("기록"))
            path, headers = f"/api/chat/history/{visitor.session_id}", bearer(visitor.session_id)
            histories = [gateway.http.get(path, headers=headers).json() for gateway in three]
            assert histories[0] == histories[1] == histories[2]
        assert len(histories[0]["history"]) == 6


async def test_feedback_the_moment_an_answer_is_seen_is_found_on_another_instance(
    three: Cluster, personas: list[int]
) -> None:
    """Feedback to an answer, and to a push, reaches it on an instance that did not make it."""
    async with visit(three[0]) as visitor:
        for n in range(5):
            frame = await visitor.ask(unique("좋았나요"))
            body = {"message_id": frame["message_id"], "is_helpful": n % 2 == 0}
            response = three[1 + n % 2].http.post("/api/chat/feedback", json=body)
            assert response.json() == {
                "status": "success",
                "message_id": frame["message_id"],
                "feedback_received": n % 2 == 0,
            }
        login = {"session_id": visitor.session_id, "persona_id": personas[0]}
        assert three[1].http.post("/api/login", json=login).status_code == 200
        push = await visitor.receive()
        body = {"message_id": push["message_id"], "is_helpful": True}
        assert three[2].http.post("/api/chat/feedback", json=body).json()["message_id"] == push["message_id"]
        history = await asyncio.to_thread(visitor.history)
        assert history[-1]["is_helpful"] is True


async def test_personas_added_to_the_database_are_seen_by_every_instance(three: Cluster, personas: list[int]) -> None:
    """All instances list the same personas."""
    lists = [gateway.http.get("/api/chat/personas").json() for gateway in three]
    assert lists[0] == lists[1] == lists[2]
    assert [persona["id"] for persona in lists[0]["personas"]] == personas
