"""A rolling restart of three instances behind a real nginx, as whoever visits and whoever watches sees it."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from tests.deployment.test_proxy import Proxy, nginx_before
from tests.observability.scrape import scrape
from tests.support.backends import Call, Json, Reply, recommendation
from tests.support.chat import Frame, Visitor, new_id, visit
from tests.support.cluster import Cluster, Tally, tally
from tests.support.gateway import Gateway
from tests.support.keys import key_of, protocols
from tests.support.waiting import PATIENCE_SECONDS, become
from tests.support.world import NewWorld, World, add_personas

pytestmark = pytest.mark.anyio

VISITORS = 9
# How long the MCP server takes: logins are in hand on every instance whenever one is told to stop.
MCP_SECONDS = 0.2
THINKING_SECONDS = 0.03


class Slow:
    """A reply that takes its time."""

    def __init__(self, then: Json) -> None:
        self._then = then

    async def serve(self, call: Call, receive: object, send: object) -> None:
        await asyncio.sleep(MCP_SECONDS)
        await self._then.serve(call, receive, send)  # type: ignore[arg-type]


class FrontEnd:
    """Keeps one session: reconnects and sends again what has no answer yet, and logs in while it is connected."""

    def __init__(self, proxy: Proxy, persona: int) -> None:
        self._proxy = proxy
        self._persona = persona
        self._pending: str | None = None
        self._query = ""
        self._protocols: list[Subprotocol] = []
        self.prompts: list[str] = []
        self.logins: Counter[int] = Counter()
        self._is_logged_in = True
        self.pushes: list[str] = []
        self.failed_handshakes: list[str] = []
        self.returns = 0

    async def live(self, done: asyncio.Event) -> None:
        async with self._proxy.async_http() as http:
            while not done.is_set() or self._pending:
                try:
                    with suppress(ConnectionClosed):
                        await self._connected(done, http)
                except (InvalidHandshake, OSError) as error:
                    self.failed_handshakes.append(str(error))

    async def _connected(self, done: asyncio.Event, http: httpx.AsyncClient) -> None:
        async with visit(self._proxy, query=self._query, subprotocols=self._protocols) as visitor:
            if self._query:
                assert visitor.hello["resumed"] is True
                self.returns += 1
            self._query, self._protocols = f"session_id={visitor.session_id}", protocols(key_of(visitor.session_id))
            while not done.is_set() or self._pending:
                await self._ask(visitor)
                if (len(self.prompts) % 3 == 0 or not self._is_logged_in) and not done.is_set():
                    await self._log_in(visitor, http)
                await asyncio.sleep(THINKING_SECONDS)

    async def _ask(self, visitor: Visitor) -> None:
        if self._pending is None:
            self._pending = new_id()
            self.prompts.append(self._pending)
        await visitor.prompt("한도가 얼마인가요?", self._pending)
        while self._pending is not None:
            frame = await visitor.receive()
            if frame.get("error") == "Server is restarting":
                await visitor.socket.wait_closed()
            elif not self._is_push(frame) and frame["message_id"] == self._pending:
                assert frame["sender"] == "bot", frame
                self._pending = None

    def _is_push(self, frame: Frame) -> bool:
        is_push = frame.get("tool_name") == "consumption_recommend"
        if is_push:
            self.pushes.append(frame["timestamp"])
        return is_push

    async def _log_in(self, visitor: Visitor, http: httpx.AsyncClient) -> None:
        body = {"session_id": visitor.session_id, "persona_id": self._persona}
        response = await http.post("/api/login", json=body)
        self._is_logged_in = response.status_code == 200
        if response.status_code == 404:
            # Not connected: then the socket is closed by now, and whoever comes back logs in.
            await asyncio.wait_for(visitor.socket.wait_closed(), PATIENCE_SECONDS)
        else:
            self.logins[response.status_code] += 1


@pytest.fixture
def world(new_world: NewWorld) -> Iterator[World]:
    world = new_world()
    before = world.mcp.default
    slow: Reply = Slow(recommendation("추천", ["카드"]))
    world.mcp.default = slow
    yield world
    world.mcp.default = before


async def ready(gateway: Gateway) -> bool:
    return (await asyncio.to_thread(gateway.http.get, "/api/health/ready")).status_code == 200


async def test_a_rolling_restart_loses_no_prompt_no_login_and_no_visitor(world: World) -> None:
    """0 lost, 0 doubled, 0 failed logins, no handshake refused, with logins in hand on the instance that stops."""
    with Cluster(world, 3, start="python", PROMPTS_PER_MINUTE="100000") as cluster:
        (persona,) = add_personas(world.chatdb, "이바다")
        done = asyncio.Event()
        with nginx_before(list(cluster)) as proxy:
            visitors = [FrontEnd(proxy, persona) for _ in range(VISITORS)]
            async with asyncio.TaskGroup() as group:
                for visitor in visitors:
                    group.create_task(visitor.live(done))
                try:
                    for gateway in cluster:
                        asked = sum(len(visitor.prompts) for visitor in visitors)
                        logins = sum(visitor.logins.total() for visitor in visitors)
                        await become(
                            lambda asked=asked, logins=logins: (  # type: ignore[misc]
                                sum(len(visitor.prompts) for visitor in visitors) > asked + VISITORS
                                and sum(visitor.logins.total() for visitor in visitors) > logins + VISITORS // 2
                            ),
                            what="all are at it",
                        )
                        assert await asyncio.to_thread(gateway.stop) == 0
                        gateway.launch()
                        await asyncio.to_thread(gateway.wait_until_healthy)
                        await become(lambda gateway=gateway: ready(gateway), what="it is ready again")  # type: ignore[misc]
                finally:
                    done.set()
        statuses: Counter[int] = sum((visitor.logins for visitor in visitors), Counter())
        prompts = sum(len(visitor.prompts) for visitor in visitors)
        assert tally(world.chatdb) == Tally(prompts, prompts, 0, 0)
        assert set(statuses) == {200}, statuses
        assert [failed for visitor in visitors for failed in visitor.failed_handshakes] == []
        assert sum(visitor.returns for visitor in visitors) >= VISITORS
        assert all(len(set(visitor.pushes)) == len(visitor.pushes) for visitor in visitors), "a push was sent twice"
        stored = world.chatdb.value('SELECT count(*) FROM "ChatbotResponse" WHERE push_no > 0')
        print(f"{prompts} prompts, {statuses.total()} logins, {stored} pushes stored")
        assert stored >= statuses[200]
        # What was in hand when an instance was told to stop was finished there, so nothing had to be taken over.
        assert sum(scrape(gateway).value("gateway_turns_taken_over_total") for gateway in cluster) == 0
