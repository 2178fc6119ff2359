"""The key of a session: what its form is, where it is kept, and that nothing of the session is had without it."""

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.support.chat import Visitor, new_id, visit
from tests.support.cluster import Cluster, holder_of, resume, until_closed
from tests.support.gateway import ALLOWED_ORIGIN, Gateway
from tests.support.http import assert_invalid
from tests.support.keys import bearer, protocols
from tests.support.waiting import become
from tests.support.world import NewGateway, World, unique

pytestmark = pytest.mark.anyio

FORM = re.compile(r"[A-Za-z0-9_-]{43}")
EPOCH = "1970-01-01T00:00:00%2B00:00"
NO_KEYS = {
    "another": "A" * 43,
    "empty": "",
    "too long": "A" * 5000,
    "too short": "A" * 42,
    "garbage": "!#$%&'*+.^_`|~",
    "blank": " ",
    "json": "null",
}


def authorization(value: str) -> dict[str, Any]:
    """Options of a connection with this header."""
    return {"additional_headers": {"Authorization": value}}


def offering(value: str) -> dict[str, Any]:
    """Options of a connection with this header, which need not be one that could be parsed."""
    return {"additional_headers": {"Sec-WebSocket-Protocol": value}}


def key_hash(world: World, session_id: str) -> bytes | None:
    stored: bytes | None = world.chatdb.value(
        'SELECT key_hash FROM "ChatSession" WHERE session_id = $1::text::uuid', session_id
    )
    return stored


def forget_key(world: World, session_id: str) -> None:
    """What an instance of the version before, or the time before there were keys, leaves behind."""
    world.chatdb.fetch('UPDATE "ChatSession" SET key_hash = NULL WHERE session_id = $1::text::uuid', session_id)


def key_of(visitor: Visitor) -> str:
    assert visitor.key is not None
    return visitor.key


@asynccontextmanager
async def asking_for(gateway: Gateway, session_id: str, **options: Any) -> AsyncIterator[Visitor]:
    """A socket that asks for a session and everything that was said in it."""
    async with visit(gateway, query=f"session_id={session_id}&since={EPOCH}", **options) as visitor:
        yield visitor


async def assert_new(gateway: Gateway, session_id: str, **options: Any) -> Visitor:
    """Who asks so gets another session, a key of its own and nothing of what was said."""
    async with asking_for(gateway, session_id, **options) as visitor:
        assert visitor.hello == {"session_id": visitor.session_id, "key": visitor.key, "resumed": False}
        assert visitor.session_id != session_id
        await visitor.nothing_pending()
        await visitor.goes_on()
    return visitor


async def assert_resumed(gateway: Gateway, session_id: str, **options: Any) -> None:
    async with asking_for(gateway, session_id, **options) as visitor:
        assert visitor.hello == {"session_id": session_id, "resumed": True}


# What it is, and where it is


async def test_a_key_is_43_characters_of_base64url_and_each_session_has_its_own(three: Cluster) -> None:
    keys = set()
    for n in range(30):
        async with visit(three[n % 3], query="stream=true" if n % 2 else "") as visitor:
            assert FORM.fullmatch(key_of(visitor))
            keys.add(visitor.key)
    assert len(keys) == 30


async def test_the_database_holds_its_sha_256_and_nothing_else_of_it(
    default_gateway: Gateway, default_world: World
) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.goes_on()
        key = key_of(visitor)
        assert key_hash(default_world, visitor.session_id) == hashlib.sha256(key.encode()).digest()
        for table in ("ChatSession", "Chat", "ChatbotResponse", "Persona", "Turn", "Instance"):
            for row in default_world.chatdb.fetch(f'SELECT t::text AS row FROM "{table}" AS t'):
                assert key not in row["row"]
                assert key.encode().hex() not in row["row"]


@pytest.mark.parametrize("start", ["uvicorn", "python"])
async def test_no_log_holds_a_key_however_it_was_shown(
    new_gateway: NewGateway, default_world: World, start: str
) -> None:
    """At debug level: a new session, good and bad resumes, histories, and handshakes and requests that are refused."""
    gateway = new_gateway(default_world, start=start, LOG_LEVEL="debug")
    async with visit(gateway) as visitor:
        await visitor.goes_on()
    key, session = key_of(visitor), visitor.session_id
    await assert_resumed(gateway, session, subprotocols=protocols(key))
    await assert_resumed(gateway, session, **authorization(f"Bearer {key}"))
    await assert_new(gateway, new_id(), subprotocols=protocols(key))
    for value in (f"key.{key}\u00e9", f"key.{key} {key}", f'"key.{key}"', f"key.{key}/"):
        await assert_new(gateway, session, **offering(value))
    with pytest.raises(InvalidStatus):
        async with gateway.connect(origin="http://example.org", subprotocols=protocols(key)):
            pass
    for path in (session, new_id(), "nonsense", f"{session}?limit=0"):
        gateway.http.get(f"/api/chat/history/{path}", headers=bearer(session))
    await become(lambda: gateway.output().count("disconnected") >= 4, what="the log is written")
    assert gateway.stop() == 0
    assert key not in gateway.output()


async def test_no_metric_holds_a_key(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.goes_on()
        assert key_of(visitor) not in default_gateway.http.get("/metrics").text


# Going on with a session


@pytest.mark.parametrize("place", [0, 1], ids=["same instance", "another instance"])
async def test_a_browser_shows_it_in_the_subprotocols_and_chat_is_chosen(three: Cluster, place: int) -> None:
    async with visit(three[0]) as visitor:
        frame = await visitor.ask(unique("하나"))
    options = {"subprotocols": protocols(key_of(visitor)), "origin": ALLOWED_ORIGIN}
    async with asking_for(three[place], visitor.session_id, **options) as again:
        assert again.hello == {"session_id": visitor.session_id, "resumed": True}
        assert again.socket.subprotocol == "chat"
        assert await again.receive() == frame
        await again.goes_on()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_another_client_shows_it_as_authorization_and_nothing_is_chosen(three: Cluster, scheme: str) -> None:
    async with visit(three[0]) as visitor:
        pass
    async with asking_for(three[1], visitor.session_id, **authorization(f"{scheme} {visitor.key}")) as again:
        assert again.hello["resumed"] is True
        assert again.socket.subprotocol is None


async def test_chat_is_chosen_only_where_it_was_offered(three: Cluster) -> None:
    """Also for a new session; the key alone is read, and nothing is chosen."""
    async with visit(three[0], subprotocols=[Subprotocol("chat")]) as visitor:
        assert visitor.socket.subprotocol == "chat"
    async with visit(three[0], subprotocols=[Subprotocol("other")]) as other:
        assert other.socket.subprotocol is None
    async with asking_for(three[0], visitor.session_id, subprotocols=[Subprotocol(f"key.{visitor.key}")]) as again:
        assert again.hello["resumed"] is True
        assert again.socket.subprotocol is None


async def test_where_both_show_a_key_the_subprotocol_counts(three: Cluster) -> None:
    async with visit(three[0]) as visitor:
        pass
    key, session = key_of(visitor), visitor.session_id
    good, bad = authorization(f"Bearer {key}"), authorization(f"Bearer {'A' * 43}")
    await assert_resumed(three[1], session, subprotocols=protocols(key), **bad)
    await assert_new(three[1], session, subprotocols=protocols("A" * 43), **good)
    await assert_new(three[1], session, subprotocols=protocols(""), **good)
    await assert_resumed(three[1], session, subprotocols=[Subprotocol("chat")], **good)


async def test_a_key_in_the_url_is_none(three: Cluster) -> None:
    async with visit(three[0]) as visitor:
        await assert_new(three[1], f"{visitor.session_id}&key={visitor.key}")
        await visitor.goes_on()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same instance", "another instance"])
@pytest.mark.parametrize("wrong", NO_KEYS)
async def test_a_wrong_key_gives_a_new_session_and_leaves_the_real_one_alone(
    three: Cluster, wrong: str, elsewhere: bool
) -> None:
    """Its socket stays open and goes on, as if nobody had asked."""
    key, gateway = NO_KEYS[wrong], three[1 if elsewhere else 0]
    async with visit(three[0]) as visitor:
        await visitor.ask(unique("비밀"))
        held_by = holder_of(three.world.chatdb, visitor.session_id)
        await assert_new(gateway, visitor.session_id, **authorization(f"Bearer {key}"))
        if " " not in key:
            await assert_new(gateway, visitor.session_id, subprotocols=protocols(key))
        assert holder_of(three.world.chatdb, visitor.session_id) == held_by
        await visitor.nothing_pending()
        await visitor.goes_on()
        assert len(visitor.history()) == 4


async def test_no_key_and_anothers_key_and_a_part_of_the_key_give_a_new_session(three: Cluster) -> None:
    """And so does what looks nearly like a header with the key."""
    async with visit(three[0]) as visitor, visit(three[1]) as other:
        key, session = key_of(visitor), visitor.session_id
        await assert_new(three[2], session)
        await assert_new(three[2], session, subprotocols=[Subprotocol("chat")])
        for shown in (key_of(other), key[:-1], key + "A", key.swapcase()):
            await assert_new(three[2], session, subprotocols=protocols(shown))
        for value in (key, f"Basic {key}", f"Bearer{key}", f"Bearer {key} {key}", "Bearer"):
            await assert_new(three[2], session, **authorization(value))
        stored = key_hash(three.world, session)
        assert stored is not None
        await assert_new(three[2], session, subprotocols=protocols(stored.hex()))
        for one in (visitor, other):
            await one.nothing_pending()
            await one.goes_on()


async def test_subprotocols_that_cannot_be_parsed_are_not_quoted_to_their_sender(three: Cluster) -> None:
    """What can be read of them counts: a key, or none."""
    async with visit(three[0]) as visitor:
        pass
    key, session = key_of(visitor), visitor.session_id
    for value in (f"key.{key}, \u00e9", f",key.{key},,", f'"x y" , key.{key}'):
        await assert_resumed(three[1], session, **offering(value))
    for value in (",", "\u00e9", "key.\u00e9", '"', f"x.{key}", f"KEY.{key}", "key.", f"key.{key[:-1]}\u00e9"):
        await assert_new(three[1], session, **offering(value))


async def test_a_session_keeps_its_key_however_often_it_is_gone_on_with(three: Cluster) -> None:
    async with visit(three[0]) as visitor:
        stored = key_hash(three.world, visitor.session_id)
    for n in range(4):
        async with resume(three[n % 3], visitor.session_id) as again:
            await again.goes_on()
    assert key_hash(three.world, visitor.session_id) == stored


async def test_only_who_has_the_key_takes_the_socket_over(three: Cluster) -> None:
    async with visit(three[0]) as visitor:
        await assert_new(three[1], visitor.session_id)
        await visitor.goes_on()
        async with resume(three[1], visitor.session_id):
            assert (await until_closed(visitor.socket))[1] == 4001


# Sessions without one


async def test_a_session_of_the_version_before_gets_a_new_one_once(three: Cluster) -> None:
    """Whatever is shown for it; the one it gets has a key and is resumed."""
    async with visit(three[0]) as visitor:
        await visitor.ask(unique("옛날"))
    forget_key(three.world, visitor.session_id)
    new = await assert_new(three[1], visitor.session_id)
    await assert_resumed(three[2], new.session_id, subprotocols=protocols(key_of(new)))
    for key in (key_of(visitor), "", "None", "null"):
        await assert_new(three[1], visitor.session_id, subprotocols=protocols(key))
        headers = {"authorization": f"Bearer {key}".strip()}
        assert three[1].http.get(f"/api/chat/history/{visitor.session_id}", headers=headers).status_code == 404


async def test_the_version_before_can_open_sessions_beside_this_one(three: Cluster) -> None:
    """Its statement names no key, and works; the session goes on there, and here becomes a new one."""
    session_id = new_id()
    three.world.chatdb.fetch(
        'INSERT INTO "ChatSession" (session_id, instance_id) SELECT $1::text::uuid, min(id) FROM "Instance"', session_id
    )
    assert key_hash(three.world, session_id) is None
    assert three[0].http.post("/api/login/persona_id", json={"session_id": session_id}).status_code == 200
    await assert_new(three[1], session_id)
    assert holder_of(three.world.chatdb, session_id) is not None
    three.world.chatdb.fetch('DELETE FROM "ChatSession" WHERE session_id = $1::text::uuid', session_id)


# The history


async def test_the_history_takes_the_key_on_every_instance(three: Cluster) -> None:
    async with visit(three[0]) as visitor:
        await visitor.goes_on()
        for gateway in three:
            visitor.gateway = gateway
            assert len(visitor.history()) == 2


async def test_a_history_that_is_not_ones_own_is_one_that_there_is_not(three: Cluster) -> None:
    """The same status, headers and body, byte for byte."""
    async with visit(three[0]) as visitor, visit(three[0]) as other, visit(three[0]) as old:
        await visitor.goes_on()
        forget_key(three.world, old.session_id)
        key, request_id = key_of(visitor), {"x-request-id": "same"}

        def answer(session_id: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
            response = three[1].http.get(f"/api/chat/history/{session_id}", headers=request_id | headers)
            named = {name: value for name, value in response.headers.items() if name != "date"}
            return response.status_code, response.content, named

        unknown = answer(new_id())
        assert unknown[0] == 404
        assert unknown[2]["cache-control"] == "no-store"
        shown = [
            f"Bearer {wrong}".strip()
            for wrong in (*NO_KEYS.values(), key_of(other), key[:-1], key + "A", f"{key} {key}")
        ]
        shown += ["", "Bearer", "bearer", key, f"Basic {key}", f"Bearer{key}", f"key.{key}"]
        for value in shown:
            assert answer(visitor.session_id, authorization=value) == unknown, value
        no_text = [(b"authorization", b"Bearer \xff\xed\x95"), (b"x-request-id", b"same")]
        response = three[1].http.get(f"/api/chat/history/{visitor.session_id}", headers=no_text)
        assert (response.status_code, response.content) == unknown[:2]
        assert answer(visitor.session_id) == unknown
        assert answer(new_id(), authorization=f"Bearer {key}") == unknown
        assert answer(old.session_id, authorization=f"Bearer {old.key}") == unknown
        assert answer(visitor.session_id, **{"sec-websocket-protocol": f"chat, key.{key}"}) == unknown
        assert answer(f"{visitor.session_id}?key={key}") == unknown
        assert answer(visitor.session_id, authorization=f"bearer  {key}")[0] == 200


async def test_no_reply_of_the_history_is_stored_by_a_cache(default_gateway: Gateway) -> None:
    """200, 404, 405 and 422, with and without a slash; other paths stay as they are."""
    async with visit(default_gateway) as visitor:
        session, headers = visitor.session_id, bearer(visitor.session_id)
        for slash in ("", "/"):
            for path, status in ((session, 200), (new_id(), 404), ("nonsense", 422)):
                response = default_gateway.http.get(f"/api/chat/history/{path}{slash}", headers=headers)
                assert (response.status_code, response.headers.get_list("cache-control")) == (status, ["no-store"])
        response = default_gateway.http.post(f"/api/chat/history/{session}", headers=headers)
        assert (response.status_code, response.headers["cache-control"]) == (405, "no-store")
        response = default_gateway.http.get(f"/api/chat/history/{session}?limit=0")
        assert_invalid(response, ("query", "limit"))
        assert response.headers["cache-control"] == "no-store"
    assert "cache-control" not in default_gateway.http.get("/api/chat/personas").headers


async def test_a_page_of_the_front_end_may_send_the_header(default_gateway: Gateway) -> None:
    """Its browser asks first, and is then let read the answer; another page's is not."""
    async with visit(default_gateway) as visitor:
        path = f"/api/chat/history/{visitor.session_id}"
        asked = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
        allowed = default_gateway.http.options(path, headers=asked | {"origin": ALLOWED_ORIGIN})
        assert allowed.status_code == 200
        assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
        foreign = default_gateway.http.options(path, headers=asked | {"origin": "https://example.org"})
        assert "access-control-allow-origin" not in foreign.headers
        headers = bearer(visitor.session_id) | {"origin": ALLOWED_ORIGIN}
        response = default_gateway.http.get(path, headers=headers)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, ALLOWED_ORIGIN)
