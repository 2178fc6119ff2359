"""The nginx configuration of compose.yaml, with a real nginx and two real gateways behind it."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.backends import answer
from tests.support.chat import visit
from tests.support.cluster import resume
from tests.support.gateway import Gateway
from tests.support.processes import ROOT, Process, free_port, temporary_directory
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
TEMPORARY = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]


class Proxy(Gateway):
    """nginx in place of a gateway: the same addresses and clients."""

    def __init__(self, gateways: list[Gateway]) -> None:
        super().__init__({})
        self.inner_port = free_port()
        self.folder = temporary_directory("gateway-nginx-")
        text = (ROOT / "docker-scripts" / "nginx.conf").read_text()
        for number, gateway in enumerate(gateways, 1):
            text = text.replace(f"gateway-{number}:8001", f"127.0.0.1:{gateway.port}")
        for gateway in gateways[2:]:
            text = text.replace("keepalive 32;", f"server 127.0.0.1:{gateway.port};\nkeepalive 32;")
        text = text.replace("listen 8080", f"listen 127.0.0.1:{self.port}")
        text = text.replace("listen 8081", f"listen 127.0.0.1:{self.inner_port}")
        places = "".join(f"{name}_temp_path {self.folder / name};\n" for name in TEMPORARY)
        self.file = self.folder / "nginx.conf"
        self.file.write_text(text.replace("http {\n", f"http {{\n{places}", 1))

    def launch(self) -> "Proxy":
        assert NGINX
        directives = f"daemon off; pid {self.folder / 'pid'};"
        command = [NGINX, "-p", str(self.folder), "-e", "stderr", "-c", str(self.file), "-g", directives]
        self._process = Process(command, environment={"PATH": "/usr/bin:/bin"}, directory=self.folder)
        return self


@contextmanager
def nginx_before(gateways: list[Gateway]) -> Iterator[Proxy]:
    """A running proxy. Without nginx the test is skipped, unless CI=true, where that is a failure."""
    if NGINX is None:
        sentence = "nginx is not installed (on Debian and Ubuntu: apt install nginx-light)"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    with Proxy(gateways) as proxy:
        yield proxy
    shutil.rmtree(proxy.folder, ignore_errors=True)


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture
def gateways(new_gateway: NewGateway, world: World) -> list[Gateway]:
    return [new_gateway(world, start="python") for _ in range(2)]


@pytest.fixture
def proxy(gateways: list[Gateway]) -> Iterator[Proxy]:
    with nginx_before(gateways) as proxy:
        yield proxy


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


@pytest.mark.parametrize("path", ["/metrics", "/api/health/ready", "/api/login/persona_id"])
async def test_what_is_not_for_visitors_stays_inside(proxy: Proxy, gateways: list[Gateway], path: str) -> None:
    """However it is written: what nginx lets pass as another path is another path to a gateway, too."""
    method, body = ("POST", b"{}") if "login" in path else ("GET", b"")
    assert gateways[0].http.request(method, path, content=body).status_code != 404
    for start in ("", "/", "/.", "/x/..", "/%2e"):
        for end in (
            "",
            "/",
            "//",
            "%2f",
            "%0a",
            "%0a/",
            "/%0a",
            "%0d%0a",
            "%20",
            "%09",
            "%00",
            "%23",
            "%3f",
            ";",
            "?x=1",
        ):
            for name in (path, path.replace("/m", "/%6d").replace("/r", "/%72").replace("/p", "/%70")):
                url = proxy.base_url + start + name + end
                assert proxy.http.request(method, url, content=body).status_code in (400, 404), url
    assert "server" not in gateways[0].http.get("/api/health").headers


async def test_the_mcp_server_has_a_port_that_is_not_published(proxy: Proxy) -> None:
    inside = f"http://127.0.0.1:{proxy.inner_port}"
    async with visit(proxy) as visitor:
        asked = proxy.http.post(f"{inside}/api/login/persona_id", json={"session_id": visitor.session_id})
        assert (asked.status_code, asked.json()) == (200, {"persona_id": None})
    assert proxy.http.get(f"{inside}/api/health").status_code == 404


async def test_an_instance_that_stops_is_not_noticed(proxy: Proxy, gateways: list[Gateway], world: World) -> None:
    """While an instance stops and is gone, every request and every new handshake succeeds at the other."""
    (persona,) = add_personas(world.chatdb, "김하늘")
    statuses: list[int] = []
    done = asyncio.Event()

    async def keep_asking() -> None:
        async with proxy.async_http() as http:
            while not done.is_set():
                with suppress(ConnectionClosed):  # by an instance that was told to stop in this moment
                    async with visit(proxy) as visitor:
                        body = {"session_id": visitor.session_id, "persona_id": persona}
                        statuses.append((await http.post("/api/login", json=body)).status_code)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(keep_asking())
        await become(lambda: len(statuses) > 10, what="all are at it")
        assert await asyncio.to_thread(gateways[0].stop) == 0
        before = len(statuses)
        await become(lambda: len(statuses) > before + 10, what="they go on at the other")
        done.set()
    # Whose socket was closed before the login arrived is not connected; every other answer is a failure.
    assert set(statuses) <= {200, 404}
    assert statuses.count(200) > 10


async def test_a_session_goes_on_at_the_other_instance(proxy: Proxy, gateways: list[Gateway]) -> None:
    async with visit(proxy) as first, visit(proxy) as second:
        await asyncio.to_thread(gateways[0].stop)
        await become(lambda: first.socket.close_code or second.socket.close_code, what="one is closed")
        ended, other = (first, second) if first.socket.close_code else (second, first)
        assert ended.socket.close_code == 1012
        await other.goes_on()
        async with resume(proxy, ended.session_id):
            pass
