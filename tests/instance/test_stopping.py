"""SIGTERM: nothing new, what is in hand is finished, then the end, however the gateway was started."""

import asyncio
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.http11 import Response

from tests.support.backends import Held, answer
from tests.support.card_qna import FAQS
from tests.support.chat import visit
from tests.support.cluster import (
    Cluster,
    SignsOfLife,
    Tally,
    instance_ids,
    locked,
    prompts_of,
    resume,
    tally,
    until_closed,
    waiting_for_locks,
)
from tests.support.gateway import Gateway
from tests.support.raw import RawSocket
from tests.support.waiting import PATIENCE_SECONDS, become
from tests.support.world import NewGateway, NewWorld, World, unique

pytestmark = pytest.mark.anyio

RESTART = 1012
RESTARTING = "Server is restarting"
WAYS: dict[str, dict[str, Any]] = {
    "python gateway.py": {"start": "python"},
    "uvicorn": {},
    "uvicorn --workers 2": {"arguments": ("--workers", "2")},
}
_UPGRADE = b"GET /api/chat/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
_KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UNFINISHED_HEADS = (
    _UPGRADE,
    _UPGRADE + _KEY + b"x: y\r\n" * 200 + b"\r\n",
    _UPGRADE + _KEY + b"Cookie: " + b"x" * 10_000 + b"\r\n\r\n",
)
# Far less than what an end could wait for in vain: 15 s for the rest of a head, 25 s for a turn in hand.
SOON_SECONDS = 10.0
AT_ONCE_SIGNS = 2  # of life, of the other instance: it takes turns up when it shows one


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


async def ended(gateway: Gateway, seconds: float = PATIENCE_SECONDS) -> int:
    return await asyncio.to_thread(gateway.wait, seconds)


async def started(gateway: Gateway, way: str) -> None:
    """All its workers have: one that is told to stop before just ends."""
    workers = 2 if "workers" in way else 1
    await become(lambda: gateway.output().count("INFO    started") == workers, what="all workers have started")


async def not_ready(gateway: Gateway) -> bool:
    try:
        async with gateway.async_http() as client:
            response = await client.get("/api/health/ready")
    except httpx.TransportError:  # from a worker with nothing in hand, which has ended already
        return False
    return response.status_code == 503 and response.json()["status"] == "not ready"


def has_taken_its_signals(gateway: Gateway) -> bool:
    """None is pending, and it sleeps again: two that are sent at the same moment are one to the kernel."""
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    return int(status["ShdPnd"], 16) == 0 and status["State"].startswith("S")


async def refusal(gateway: Gateway) -> Response:
    """How it answers a handshake."""
    while True:
        try:
            async with gateway.connect():
                raise AssertionError("a handshake was taken")
        except InvalidStatus as refused:
            return refused.response
        except InvalidMessage:
            assert gateway.arguments, "no answer"  # cut by a worker with nothing in hand, which has just ended


@pytest.mark.parametrize("way", WAYS)
async def test_a_turn_in_hand_is_finished_and_nothing_new_is_taken(
    world: World, new_gateway: NewGateway, way: str
) -> None:
    """Not ready, no handshake, no prompt; the answers in hand are sent; then 1012 with a reason, and exit status 0."""
    gateway = new_gateway(world, **WAYS[way])
    await started(gateway, way)
    messages = [unique("마지막 질문") for _ in range(3)]
    held = Held(answer("마지막 답"))
    world.llm.on(messages[0], held)
    async with visit(gateway) as visitor:
        ids = [await visitor.prompt(message) for message in messages]
        await world.llm.called(query=messages[0])
        await become(lambda: prompts_of(world.chatdb, visitor.session_id) == ids)
        gateway.process.send_signal(signal.SIGTERM)
        await become(lambda: not_ready(gateway), what="the instance says that it is not ready")
        refused = await refusal(gateway)
        assert refused.status_code == 503
        assert list(json.loads(refused.body or b"")) == ["detail"]
        late = unique("너무 늦은 질문")
        late_id = await visitor.prompt(late)
        assert await visitor.receive() == {"error": RESTARTING, "message_id": late_id}
        assert gateway.http.get("/api/health").status_code == 200
        assert gateway.process.running()
        held.release()
        frames, code, reason = await until_closed(visitor.socket)
        assert [frame["message_id"] for frame in frames] == ids
        assert (code, bool(reason)) == (RESTART, True)
    assert await ended(gateway) == 0
    assert tally(world.chatdb, visitor.session_id) == Tally(3, 3, 0, 0)
    assert not world.llm.calls_with(query=late)
    assert late_id not in prompts_of(world.chatdb, visitor.session_id)
    assert instance_ids(world.chatdb) == []
    gateway.close()


@pytest.mark.parametrize(("way", "number"), [*zip(WAYS, [signal.SIGINT, signal.SIGTERM, signal.SIGTERM], strict=True)])
async def test_with_nothing_in_hand_it_ends_without_waiting(
    world: World, new_gateway: NewGateway, way: str, number: signal.Signals
) -> None:
    """Held up neither by idle sessions, which are closed with 1012, nor by a client that does not even read that,

    nor by a handshake that stays half sent or that the server's parser does not take.
    """
    gateway = new_gateway(world, **WAYS[way])
    await started(gateway, way)
    with ExitStack() as stack:
        stack.enter_context(RawSocket(gateway)).handshake()
        for head in UNFINISHED_HEADS:
            stack.enter_context(RawSocket(gateway)).socket.sendall(head)
        async with visit(gateway) as one, visit(gateway) as other:
            await one.ask(unique("질문"))
            gateway.process.send_signal(number)
            for visitor in (one, other):
                frames, code, reason = await until_closed(visitor.socket)
                assert (frames, code, bool(reason)) == ([], RESTART, True)
            assert await ended(gateway, SOON_SECONDS) == 0
    assert instance_ids(world.chatdb) == []


async def test_requests_in_hand_are_answered(world: World, new_gateway: NewGateway) -> None:
    """A login that is waiting for the MCP server is finished: its push is sent, and it returns 200."""
    gateway = new_gateway(world)
    persona = world.chatdb.value("INSERT INTO \"Persona\" (name) VALUES ('막차') RETURNING id")
    async with visit(gateway) as visitor, gateway.async_http() as client:
        held = Held(answer("추천"))
        held.then.value = {"answer": "추천", "login_required": False, "card_list": []}  # type: ignore[attr-defined]
        world.mcp.on_session(visitor.session_id, held)
        body = {"session_id": visitor.session_id, "persona_id": persona}
        login = asyncio.create_task(client.post("/api/login", json=body))
        await world.mcp.called(session_id=visitor.session_id)
        gateway.process.send_signal(signal.SIGTERM)
        await become(lambda: not_ready(gateway))
        held.release()
        frames, code, _ = await until_closed(visitor.socket)
        assert [frame["message"] for frame in frames] == ["추천"]
        assert code == RESTART
        assert (await login).status_code == 200
    assert await ended(gateway) == 0


async def test_what_takes_too_long_is_handed_over_at_once(new_world: NewWorld) -> None:
    """After DRAIN_SECONDS the socket is closed, another instance asks again and answers whoever has come back."""
    world = new_world()
    with Cluster(world, 2, DRAIN_SECONDS="0.5") as cluster:
        stopping, other = cluster
        message = unique("아주 긴 질문")
        second = Held(answer("다른 곳에서"))
        world.llm.on(message, Held(answer("결코")), second)
        async with visit(stopping) as visitor:
            message_id = await visitor.prompt(message)
            await world.llm.called(query=message)
            stopping.process.send_signal(signal.SIGTERM)
            assert (await until_closed(visitor.socket))[1] == RESTART
        async with resume(other, visitor.session_id) as again:
            assert await ended(stopping) == 0
            signs = SignsOfLife(world.chatdb)
            calls = await world.llm.called(query=message, times=2)
            assert signs.shown <= AT_ONCE_SIGNS
            assert calls[0].abandoned
            second.release()
            frame = await again.receive()
            assert (frame["message_id"], frame["message"]) == (message_id, "다른 곳에서")
            await again.nothing_pending()
        assert len(world.llm.calls_with(query=message)) == 2
        assert tally(world.chatdb) == Tally(1, 1, 0, 0)


@pytest.mark.parametrize(("way", "number"), [("python gateway.py", signal.SIGINT), ("uvicorn", signal.SIGTERM)])
async def test_a_second_signal_ends_it_at_once(
    world: World, new_gateway: NewGateway, way: str, number: signal.Signals
) -> None:
    """Who signals twice does not want to wait; what was in hand is not lost: another instance answers it."""
    gateway, other = new_gateway(world, **WAYS[way]), new_gateway(world)
    message = unique("끊긴 질문")
    world.llm.on(message, Held(answer("결코")), answer("다른 곳에서"))
    async with visit(gateway) as visitor:
        await visitor.prompt(message)
        await world.llm.called(query=message)
        gateway.process.send_signal(signal.SIGTERM)
        await become(lambda: not_ready(gateway))
        gateway.process.send_signal(number)
        await ended(gateway, SOON_SECONDS)
    await become(lambda: tally(world.chatdb, visitor.session_id) == Tally(1, 1, 0, 0))
    assert await asyncio.to_thread(other.stop) == 0


@pytest.mark.parametrize("drains", [True, False], ids=["while they drain", "right after the first"])
async def test_a_second_signal_to_the_supervisor_ends_all_workers_at_once(
    world: World, new_gateway: NewGateway, drains: bool
) -> None:
    """With WEB_CONCURRENCY the gateway's own supervisor passes it on."""
    gateway, other = new_gateway(world, start="python", WEB_CONCURRENCY="2"), new_gateway(world)
    message = unique("두 번 끊긴 질문")
    world.llm.on(message, Held(answer("결코")), answer("다른 곳에서"))
    async with visit(gateway) as visitor:
        await visitor.prompt(message)
        await world.llm.called(query=message)
        children = psutil.Process(gateway.process.pid).children()
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        gateway.process.send_signal(signal.SIGTERM)
        if drains:
            await become(lambda: gateway.output().count("stopping") == 2, what="both workers drain")
        else:
            await become(lambda: has_taken_its_signals(gateway), what="the first signal has been taken")
        gateway.process.send_signal(signal.SIGTERM)
        await ended(gateway, SOON_SECONDS)
        assert not any(worker.is_running() for worker in workers)
    await become(lambda: tally(world.chatdb, visitor.session_id) == Tally(1, 1, 0, 0))
    assert await asyncio.to_thread(other.stop) == 0


async def test_a_second_signal_to_the_group_ends_all_workers_at_once(world: World, new_gateway: NewGateway) -> None:
    """Ctrl-C twice at a terminal, which signals the workers too."""
    gateway = new_gateway(world, **WAYS["uvicorn --workers 2"])
    message = unique("끊긴 질문")
    world.llm.on(message, Held(answer("결코")), answer("다음에"))
    async with visit(gateway) as visitor:
        await visitor.prompt(message)
        await world.llm.called(query=message)
        workers = psutil.Process(gateway.process.pid).children(recursive=True)
        for worker in [psutil.Process(gateway.process.pid), *workers]:
            worker.send_signal(signal.SIGINT)
        await become(lambda: not_ready(gateway))
        for worker in workers:
            if worker.is_running():
                worker.send_signal(signal.SIGINT)
        await ended(gateway, SOON_SECONDS)


async def test_view_counts_are_not_lost_when_the_signal_comes_while_they_are_written(
    world: World, new_gateway: NewGateway
) -> None:
    """A flush that waits for the database when the gateway is told to stop is not forgotten."""
    gateway = new_gateway(world)
    question = FAQS[0].question
    views = "SELECT views FROM faqs WHERE question = $1"
    before = world.card_qna.value(views, question)
    async with visit(gateway) as visitor:
        with locked(world.card_qna, "faqs"):
            for _ in range(10):
                await visitor.ask(question)
            await become(lambda: waiting_for_locks(world.card_qna) > 0, what="the flush waits")
            gateway.process.send_signal(signal.SIGTERM)
            assert (await until_closed(visitor.socket))[1] == RESTART
        assert await ended(gateway) == 0
    await become(lambda: waiting_for_locks(world.card_qna) == 0)
    assert world.card_qna.value(views, question) >= before + 10


def test_told_to_stop_before_it_has_started_it_ends(world: World) -> None:
    """A signal during the start is not lost."""
    gateway = Gateway(world.settings).launch()
    try:
        gateway.process.send_signal(signal.SIGTERM)
        gateway.wait()
    finally:
        gateway.close()
