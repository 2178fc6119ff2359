"""Logins have limits, of a session on all instances and of an instance; and who hangs up is not asked for."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import psutil
import pytest

from tests.support.backends import Held, recommendation
from tests.support.chat import Visitor, visit
from tests.support.cluster import Cluster, session_locked, waiting_for_locks
from tests.support.gateway import Gateway
from tests.support.http import assert_sentence
from tests.support.waiting import become
from tests.support.world import NewWorld, add_personas

pytestmark = pytest.mark.anyio

PER_MINUTE, AT_ONCE = 3, 2


@pytest.fixture(scope="module")
def two(new_world: NewWorld) -> Iterator[Cluster]:
    limits = {"LOGINS_PER_MINUTE": str(PER_MINUTE), "MAX_LOGINS": str(AT_ONCE)}
    with Cluster(new_world(), 2, **limits) as cluster:
        add_personas(cluster.world.chatdb, "김하늘", "이바다")
        yield cluster


@pytest.fixture
async def visitor(two: Cluster) -> AsyncIterator[Visitor]:
    async with visit(two[0]) as visitor:
        yield visitor


async def log_in(gateway: Gateway, visitor: Visitor, persona: int = 1) -> httpx.Response:
    async with gateway.async_http() as http:
        return await http.post("/api/login", json={"session_id": visitor.session_id, "persona_id": persona})


async def test_one_login_too_many_in_a_minute_is_429_on_every_instance_and_changes_nothing(
    two: Cluster, visitor: Visitor
) -> None:
    """A failed one counts; another session is not concerned; a minute later it may go on."""
    statuses = [(await log_in(two[n % 2], visitor, persona)).status_code for n, persona in enumerate([1, 999, 2])]
    assert statuses == [200, 404, 200]
    for gateway in (two[0], two[1]):
        refused = await log_in(gateway, visitor, 1)
        assert_sentence(refused, 429)
        assert int(refused.headers["retry-after"]) > 0
    stored = 'SELECT persona_id FROM "ChatSession" WHERE session_id = $1::text::uuid'
    assert two.world.chatdb.value(stored, visitor.session_id) == 2
    assert len(two.world.mcp.calls_with(session_id=visitor.session_id)) == 2
    async with visit(two[1]) as other:
        assert (await log_in(two[0], other)).status_code == 200
    pass_minute = "UPDATE \"ChatSession\" SET logins_until = logins_until - interval '1 minute'"
    two.world.chatdb.fetch(pass_minute)
    assert (await log_in(two[1], visitor)).status_code == 200


async def test_of_logins_that_come_at_once_no_more_are_let_through(two: Cluster, visitor: Visitor) -> None:
    """On two instances, whose statements meet at the session's row."""
    with session_locked(two.world.chatdb, visitor.session_id):
        logins = [asyncio.create_task(log_in(two[n % 2], visitor)) for n in range(2 * AT_ONCE)]
        await become(lambda: waiting_for_locks(two.world.chatdb) == 2, what="both wait for the row")
    assert sorted([(await login).status_code for login in logins]) == [200] * PER_MINUTE + [429]


async def test_more_logins_than_an_instance_takes_at_once_are_503_and_answers_go_on(
    two: Cluster, visitor: Visitor
) -> None:
    held = Held(recommendation("늦은 추천"))
    two.world.mcp.on_session(visitor.session_id, held, held)
    waiting = [asyncio.create_task(log_in(two[0], visitor)) for _ in range(AT_ONCE)]
    await two.world.mcp.called(times=AT_ONCE, session_id=visitor.session_id)
    async with visit(two[0]) as other:
        refused = await log_in(two[0], other)
        assert_sentence(refused, 503)
        assert "retry-after" in refused.headers
        await other.goes_on()
        assert (await log_in(two[1], other)).status_code == 200
    held.release()
    assert [(await login).status_code for login in waiting] == [200] * AT_ONCE


async def test_who_hangs_up_while_a_login_waits_in_line_is_not_asked_for(two: Cluster, visitor: Visitor) -> None:
    body = json.dumps({"session_id": visitor.session_id, "persona_id": 1}).encode()
    head = b"POST /api/login HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
    gateway, process = two[0], psutil.Process(two[0].process.pid)
    with session_locked(two.world.chatdb, visitor.session_id):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        port = writer.get_extra_info("sockname")[1]
        writer.write(head + body)
        await become(lambda: waiting_for_locks(two.world.chatdb), what="the login waits for the row")
        writer.close()
        await become(
            lambda: port not in {one.raddr.port for one in process.net_connections("tcp") if one.raddr},
            what="the gateway knows that he has hung up",
        )
    assert (await log_in(gateway, visitor)).status_code == 200  # and whatever was before it is done
    assert len(two.world.mcp.calls_with(session_id=visitor.session_id)) == 1
