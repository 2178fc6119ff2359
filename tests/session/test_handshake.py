"""The handshake of /api/chat/ws."""

import uuid

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.chat import visit
from tests.support.gateway import ALLOWED_ORIGIN, Gateway
from tests.support.world import NewGateway, NewWorld, World, unique

pytestmark = pytest.mark.anyio


async def test_the_first_frame_is_the_session_and_nothing_else(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        assert list(visitor.hello) == ["session_id"]
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


@pytest.mark.parametrize("origin", [None, ALLOWED_ORIGIN, "own"])
async def test_allowed_own_and_absent_origins_are_accepted(default_gateway: Gateway, origin: str | None) -> None:
    origin = default_gateway.base_url if origin == "own" else origin
    async with visit(default_gateway, origin=origin) as visitor:
        assert (await visitor.ask(unique("안녕")))["sender"] == "bot"


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.com",
        "https://127.0.0.1:4173",
        "http://127.0.0.1:4174",
        "http://127.0.0.1",
        "http://localhost:4173",
        "http://127.0.0.1:41730",
        "http://127.0.0.1:4173.example.com",
        "http://example.com/http://127.0.0.1:4173",
        "http://127.0.0.1:4173@example.com",
        "null",
        "file://",
        "",
        "chrome-extension://abcdefgh",
    ],
)
async def test_a_foreign_origin_is_refused_with_403(default_gateway: Gateway, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with default_gateway.connect(additional_headers={"Origin": origin}):
            pass
    assert refusal.value.response.status_code == 403


async def test_the_own_host_with_another_scheme_or_port_is_foreign(default_gateway: Gateway) -> None:
    port = default_gateway.port
    for origin in (f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", "http://127.0.0.1"):
        with pytest.raises(InvalidStatus) as refusal:
            async with default_gateway.connect(origin=origin):
                pass
        assert refusal.value.response.status_code == 403


async def test_of_several_allowed_origins_each_is_accepted(new_world: NewWorld, new_gateway: NewGateway) -> None:
    allowed = ["http://127.0.0.1:4173", "https://chat.example.com"]
    gateway = new_gateway(new_world(), FRONTEND_HOST=",".join(allowed))
    for origin in allowed:
        async with visit(gateway, origin=origin) as visitor:
            assert visitor.session_id
        headers = {"origin": origin}
        response = gateway.http.get("/api/chat/personas", headers=headers)
        assert response.headers["access-control-allow-origin"] == origin
    with pytest.raises(InvalidStatus):
        async with gateway.connect(origin=",".join(allowed)):
            pass
