"""The nginx configuration of compose.yaml, with a real nginx and two real gateways behind it."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
import websockets

from tests.support.backends import answer
from tests.support.chat import Visitor, new_id, visit
from tests.support.gateway import Gateway
from tests.support.processes import ROOT, Process, temporary_directory
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
TEMPORARY = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]


class Proxy(Gateway):
    """nginx in place of a gateway: the same addresses and clients."""

    def __init__(self, gateways: list[Gateway]) -> None:
        super().__init__({})
        self.folder = temporary_directory("gateway-nginx-")
        text = (ROOT / "docker-scripts" / "nginx.conf").read_text()
        for number, gateway in enumerate(gateways, 1):
            # Debian's nginx is older than `resolve`, and there are no names to be resolved here.
            text = text.replace(f"gateway-{number}:8001 resolve", f"127.0.0.1:{gateway.port}")
        for gateway in gateways[2:]:
            text = text.replace("keepalive 32;", f"server 127.0.0.1:{gateway.port};\nkeepalive 32;")
        text = re.sub(r"^\s*resolver .*$", "", text, flags=re.MULTILINE)
        text = text.replace("listen 8080", f"listen 127.0.0.1:{self.port}")
        places = "".join(f"{name}_temp_path {self.folder / name};\n" for name in TEMPORARY)
        self.file = self.folder / "nginx.conf"
        self.file.write_text(text.replace("http {\n", f"http {{\n{places}", 1))

    def launch(self) -> "Proxy":
        assert NGINX
        directives = f"daemon off; pid {self.folder / 'pid'};"
        command = [NGINX, "-p", str(self.folder), "-e", "stderr", "-c", str(self.file), "-g", directives]
        self._process = Process(command, environment={"PATH": "/usr/bin:/bin"}, directory=self.folder)
        return self


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture
def gateways(new_gateway: NewGateway, world: World) -> list[Gateway]:
    return [new_gateway(world, start="python") for _ in range(2)]


@pytest.fixture
def proxy(gateways: list[Gateway]) -> Iterator[Proxy]:
    if NGINX is None:
        pytest.skip("nginx is not installed (on Debian and Ubuntu: apt install nginx-light)")
    proxy = Proxy(gateways)
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.close()
        shutil.rmtree(proxy.folder, ignore_errors=True)


async def test_a_conversation_goes_through(proxy: Proxy, gateways: list[Gateway], world: World) -> None:
    """Sessions are spread over both gateways, and each path answers for every session, whichever gateway gets it."""
    (persona,) = add_personas(world.chatdb, "김하늘")
    question, reply = unique("안녕하세요"), unique("반갑습니다")
    world.llm.on(question, answer(reply))
    async with visit(proxy, origin=proxy.base_url) as first, visit(proxy) as second:
        holders = world.chatdb.fetch('SELECT DISTINCT instance_id FROM "ChatSession"')
        assert len(holders) == 2
        for visitor in (first, second):
            assert (await visitor.ask(question))["message"] == reply
            for _ in range(2):
                login = proxy.http.post("/api/login", json={"session_id": visitor.session_id, "persona_id": persona})
                assert login.status_code == 200, login.text
                assert (await visitor.receive())["tool_name"] == "consumption_recommend"
            assert len(visitor.history()) == 4


async def test_operators_paths_stay_inside(proxy: Proxy, gateways: list[Gateway]) -> None:
    assert gateways[0].http.get("/metrics").status_code == 200
    for path in ("/metrics", "/metrics/", "//metrics"):
        assert proxy.http.get(proxy.base_url + path).status_code == 404
    assert "server" not in gateways[0].http.get("/api/health").headers


async def test_an_instance_that_stops_is_not_noticed(proxy: Proxy, gateways: list[Gateway]) -> None:
    """While an instance stops and is gone, every request and every new handshake succeeds at the other."""
    failures: list[object] = []
    done = asyncio.Event()

    async def keep_asking() -> int:
        count = 0
        async with proxy.async_http() as http:
            while not done.is_set():
                async with visit(proxy) as visitor:
                    response = await http.post("/api/login/persona_id", json={"session_id": visitor.session_id})
                    if response.status_code not in (200, 404):
                        failures.append((response.status_code, response.text))
                count += 1
        return count

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(keep_asking()) for _ in range(4)]
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(gateways[0].stop) == 0
        await asyncio.sleep(0.5)
        done.set()
    assert not failures
    assert sum(task.result() for task in asking) > 20


async def test_a_session_goes_on_at_the_other_instance(proxy: Proxy, gateways: list[Gateway]) -> None:
    async with visit(proxy) as first, visit(proxy) as second:
        await asyncio.to_thread(gateways[0].stop)
        ended = [visitor for visitor in (first, second) if await closed(visitor.socket.wait_closed())]
        assert len(ended) == 1
        assert ended[0].socket.close_code == 1012
        async with visit(proxy, query=f"session_id={ended[0].session_id}") as again:
            assert again.hello == {"session_id": ended[0].session_id, "resumed": True}


async def closed(waiting: object) -> bool:
    """Whether a socket is closed within a second."""
    try:
        async with asyncio.timeout(1):
            await waiting  # type: ignore[misc]
    except TimeoutError:
        return False
    return True


class Customer:
    """Talks and logs in through the proxy for as long as it is told to, and comes back when its socket is closed."""

    def __init__(self, proxy: Proxy, persona_id: int) -> None:
        self._proxy = proxy
        self._persona_id = persona_id
        self._query = ""
        self.prompts: list[str] = []
        self.logins = 0
        self.comebacks = 0

    async def live(self, done: asyncio.Event) -> None:
        waiting: str | None = None
        async with self._proxy.async_http() as http:
            while not done.is_set() or waiting:
                with suppress(websockets.ConnectionClosed):
                    async with visit(self._proxy, query=self._query) as visitor:
                        if self._query:
                            assert visitor.hello == {"session_id": visitor.session_id, "resumed": True}
                            self.comebacks += 1
                        self._query = f"session_id={visitor.session_id}"
                        while waiting or not done.is_set():
                            if waiting is None:
                                self.prompts.append(new_id())
                            waiting = self.prompts[-1]
                            await visitor.prompt("한도가 얼마인가요?", waiting)
                            while (frame := await visitor.receive())["message_id"] != waiting or "error" in frame:
                                # Refused, not stored; it is sent again when the socket has been closed.
                                assert frame.get("error") in (None, "Server is restarting"), frame
                            waiting = None
                            if len(self.prompts) % 5 == 0:
                                await self._log_in(visitor, http)

    async def _log_in(self, visitor: Visitor, http: httpx.AsyncClient) -> None:
        body = {"session_id": visitor.session_id, "persona_id": self._persona_id}
        response = await http.post("/api/login", json=body)
        # Who is not connected at this moment cannot log in; every other answer is a failure.
        if response.status_code == 404 and visitor.socket.state is not websockets.State.OPEN:
            return
        assert response.status_code == 200, f"{response.status_code} {response.text}"
        self.logins += 1


async def test_a_rolling_restart_of_three_loses_nothing(new_gateway: NewGateway, world: World) -> None:
    """Under load each instance is stopped and started again: every prompt gets its one answer, every login succeeds."""
    if NGINX is None:
        pytest.skip("nginx is not installed (on Debian and Ubuntu: apt install nginx-light)")
    gateways = [new_gateway(world, start="python", PROMPTS_PER_MINUTE="100000") for _ in range(3)]
    (persona,) = add_personas(world.chatdb, "이바다")
    done = asyncio.Event()
    with Proxy(gateways).start() as proxy:
        customers = [Customer(proxy, persona) for _ in range(15)]
        async with asyncio.TaskGroup() as group:
            for customer in customers:
                group.create_task(customer.live(done))
            for gateway in gateways:
                await asyncio.sleep(0.3)
                assert await asyncio.to_thread(gateway.stop) == 0
                await asyncio.to_thread(gateway.start)
                await become(lambda http=gateway.http: http.get("/api/health/ready").status_code == 200)  # type: ignore[misc]
            await asyncio.sleep(0.3)
            done.set()
    shutil.rmtree(proxy.folder, ignore_errors=True)
    prompts = sorted(prompt for customer in customers for prompt in customer.prompts)
    stored = world.chatdb.fetch(
        "SELECT p.id::text AS id, count(r.chat_id) AS answers"
        ' FROM "Chat" p LEFT JOIN "ChatbotResponse" r ON r.prompt_chat_id = p.id AND r.push_no = 0'
        " WHERE p.is_user GROUP BY p.id ORDER BY p.id::text"
    )
    assert stored == [{"id": prompt, "answers": 1} for prompt in prompts]
    assert len(prompts) > 100
    assert sum(customer.logins for customer in customers) > 10
    assert sum(customer.comebacks for customer in customers) >= len(customers)
