"""Servers made with the official SDK: of both versions, stateful and stateless, replying in JSON and in events."""

import asyncio
import subprocess
import sys

import aiohttp
import pytest

from tests.mcp.conftest import NewClient, SdkServer
from tests.mcp.sdk_modes import MODES
from tests.support.chat import visit
from tests.support.gateway import environment
from tests.support.network import TcpProxy
from tests.support.processes import ROOT
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, add_personas
from upstream.call import Call
from upstream.mcp_native import NativeMcpServer
from upstream.replies import ReplyUnusable

pytestmark = pytest.mark.anyio

Served = tuple[SdkServer, str, str]


async def ask(client: NativeMcpServer, word: str) -> dict[str, object]:
    return await client.ask({"session_id": word, "persona_id": 7}, "test", Call())


async def nothing_is_left_open(server: SdkServer) -> None:
    await become(lambda: not server.open_sessions(), what="no session is left open on the server")


async def test_the_tool_is_called_in_the_revision_of_the_server(served: Served, new_client: NewClient) -> None:
    """Its result is read from structuredContent or from text, also amidst notifications."""
    server, url, revision = served
    client = new_client(url)
    for _ in range(2):
        assert await ask(client, "plain") == {"answer": "추천 7", "login_required": False, "card_list": ["카드의정석2"]}
    assert (await ask(client, "notify"))["answer"] == "추천 7"
    assert await ask(client, "text") == {"answer": "글로 된 추천", "card_list": []}
    assert client.revision == revision
    await nothing_is_left_open(server)


async def test_what_fails_is_no_result_and_what_the_tool_says_of_it_is_not_told(
    served: Served, new_client: NewClient
) -> None:
    server, url, _ = served
    client = new_client(url)
    for word in ("fail", "isError", "misfit"):
        with pytest.raises(ReplyUnusable) as failure:
            await ask(client, word)
        assert "비밀" not in str(failure.value)
    assert (await ask(client, "plain"))["answer"] == "추천 7"
    await nothing_is_left_open(server)


async def test_slow_calls_are_cancelled_at_the_server(sdk: dict[int, SdkServer], new_client: NewClient) -> None:
    """Except where the SDK notices nothing: it replies in JSON, and no session tells it."""
    before = {version: server.count("cancelled") for version, server in sdk.items()}
    clients = [new_client(server.url(mode), httpx_timeout=2.0) for server in sdk.values() for mode in MODES]
    failures = await asyncio.gather(*(ask(client, "slow") for client in clients), return_exceptions=True)
    assert [type(failure) for failure in failures] == [TimeoutError] * len(clients)
    expected = {1: before[1] + 3, 2: before[2] + 2}
    await become(lambda: {version: server.count("cancelled") for version, server in sdk.items()} == expected)
    for server in sdk.values():
        await nothing_is_left_open(server)


async def test_a_caller_that_is_cancelled_cancels_the_call(sdk: dict[int, SdkServer], new_client: NewClient) -> None:
    for server in sdk.values():
        called, cancelled = server.count("called slow 7"), server.count("cancelled")
        asking = asyncio.create_task(ask(new_client(server.url("stateful-events")), "slow"))
        await become(lambda server=server, called=called: server.count("called slow 7") == called + 1)  # type: ignore[misc]
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await become(lambda server=server, cancelled=cancelled: server.count("cancelled") == cancelled + 1)  # type: ignore[misc]
        await nothing_is_left_open(server)


async def test_what_a_tool_asks_of_the_caller_is_declined(sdk: dict[int, SdkServer], new_client: NewClient) -> None:
    client = new_client(sdk[1].url("stateful-events"))
    assert (await ask(client, "ask"))["answer"] == "추천 7"
    assert sdk[1].count("asked: Method not found") == 1


async def test_a_server_that_is_replaced_by_an_older_one_is_found_out_within_the_same_call(
    sdk: dict[int, SdkServer], new_client: NewClient
) -> None:
    proxy = TcpProxy(sdk[2].port)
    client = new_client(f"http://127.0.0.1:{proxy.port}/stateful-events/mcp")
    for version, revision in ((2, "2026-07-28"), (1, "2025-11-25")):
        proxy.cut()
        proxy.target = sdk[version].port
        proxy.mend()
        assert (await ask(client, "plain"))["answer"] == "추천 7"
        assert client.revision == revision
    await nothing_is_left_open(sdk[1])
    proxy.close()


async def test_a_server_that_dies_in_the_middle_fails_the_call_and_works_again_when_it_is_back(
    new_client: NewClient,
) -> None:
    server = SdkServer(1).wait()
    client = new_client(server.url("stateful-events"))
    assert (await ask(client, "plain"))["answer"] == "추천 7"
    for _ in range(2):  # it breaks off, and then it is not there
        with pytest.raises((aiohttp.ClientError, ReplyUnusable)):
            await ask(client, "leave")
    assert server.process.wait(10) == 1
    server.start()
    server.wait()
    assert (await ask(client, "plain"))["answer"] == "추천 7"
    await nothing_is_left_open(server)
    server.process.kill()


async def test_many_calls_at_once(sdk: dict[int, SdkServer], new_client: NewClient) -> None:
    for server in sdk.values():
        client = new_client(server.url("stateful-events"))
        answers = await asyncio.gather(*(ask(client, "plain") for _ in range(30)))
        assert [answer["answer"] for answer in answers] == ["추천 7"] * 30
        await nothing_is_left_open(server)


async def test_a_login_pushes_what_the_tool_recommends_after_asking_back_who_is_logged_in(
    sdk: dict[int, SdkServer], new_world: NewWorld, new_gateway: NewGateway, gateway_port: int
) -> None:
    """And readiness says the revision, as soon as a login has found it out."""
    proxy = TcpProxy(sdk[2].port)
    world = new_world()
    url = f"http://127.0.0.1:{proxy.port}/stateful-events/mcp"
    gateway = new_gateway(world, port=gateway_port, MCP_PROTOCOL="mcp", MCP_SERVER_URL=url)
    (persona_id,) = add_personas(world.chatdb, "김하늘")
    assert gateway.http.get("/api/health/ready").json()["mcp_revision"] is None
    async with visit(gateway) as visitor, gateway.async_http() as http:
        body = {"session_id": visitor.session_id, "persona_id": persona_id}
        for version, revision in ((2, "2026-07-28"), (1, "2025-11-25")):
            proxy.cut()
            proxy.target = sdk[version].port
            proxy.mend()
            response = await http.post("/api/login", json=body)
            assert (response.status_code, response.content) == (200, b"")
            frame = await visitor.receive()
            assert (frame["message"], frame["card_list"]) == (f"추천 {persona_id}", ["카드의정석2"])
            assert (frame["tool_name"], frame["login_required"]) == ("consumption_recommend", False)
            assert gateway.http.get("/api/health/ready").json()["mcp_revision"] == revision
        await nothing_is_left_open(sdk[1])
        proxy.cut()
        response = await http.post("/api/login", json=body)
        assert response.status_code == 502
        assert list(response.json()) == ["detail"]
    proxy.close()


def test_check_says_the_revision_or_that_there_is_none(sdk: dict[int, SdkServer], new_world: NewWorld) -> None:
    settings = new_world().settings | {"FRONTEND_HOST": "https://chat.example", "MCP_PROTOCOL": "mcp"}
    said = {}
    for url in (sdk[1].url("stateful-json"), sdk[2].url("stateless-events"), f"http://127.0.0.1:{sdk[1].port}/none"):
        command = [sys.executable, "gateway.py", "--check"]
        values = environment(settings | {"MCP_SERVER_URL": url})
        done = subprocess.run(command, env=values, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        said[url] = (done.returncode, done.stdout.splitlines()[0], done.stderr)
    assert list(said.values()) == [
        (0, "The MCP server speaks revision 2025-11-25.", ""),
        (0, "The MCP server speaks revision 2026-07-28.", ""),
        (1, "MCP_SERVER_URL: no MCP server answers there in a revision that is known here", ""),
    ]
