"""The handshake of /api/chat/ws."""

import uuid

import pytest

from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio


async def test_the_first_frame_is_the_session_and_nothing_else(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        assert list(visitor.hello) == ["session_id", "key"]
        assert uuid.UUID(visitor.session_id).version == 4
        assert str(uuid.UUID(visitor.session_id)) == visitor.session_id
        await visitor.nothing_pending()


async def test_every_connection_is_a_session_of_its_own(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as one, visit(default_gateway) as other:
        assert one.session_id != other.session_id


async def test_the_session_is_stored_when_its_first_frame_arrives(
    default_gateway: Gateway, default_world: World
) -> None:
    for _ in range(10):
        async with visit(default_gateway) as visitor:
            body = {"session_id": visitor.session_id}
            response = default_gateway.http.post("/api/login/persona_id", json=body)
            assert (response.status_code, response.json()) == (200, {"persona_id": None})
            count = 'SELECT count(*) FROM "ChatSession" WHERE session_id = $1::text::uuid'
            assert default_world.chatdb.value(count, visitor.session_id) == 1


async def test_the_path_may_end_in_a_slash(default_gateway: Gateway) -> None:
    async with visit(default_gateway, path="/") as visitor:
        assert (await visitor.ask(unique("안녕")))["sender"] == "bot"
