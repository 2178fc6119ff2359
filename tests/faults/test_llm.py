"""An LLM server that is killed, or does anything but answer: the visitor is told, and that is the stored answer."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil
import pytest

from tests.faults.conftest import think
from tests.faults.ledger import record
from tests.faults.scale import LONG, SCALE
from tests.faults.visitors import Crowd
from tests.support.backends import DISPATCH_PATH, Call, Drip, Drop, Hang, Json, Raw, Receive, Reply, Send
from tests.support.cluster import Cluster
from tests.support.gateway import environment
from tests.support.network import NO_TLS
from tests.support.processes import Process
from tests.support.waiting import eventually
from tests.support.world import World, unique

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SCALE.seconds)]

TIMEOUT = "LLM 서버 통신 오류: 응답 시간이 초과되었습니다."
UNREACHABLE = "LLM 서버 통신 오류: 서버에 연결할 수 없습니다."
FORMAT = "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."


@dataclass
class Endless:
    """Reply with so many megabytes of JSON, until the caller has had enough."""

    megabytes: int

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Send them piece by piece."""
        gone = asyncio.create_task(self._gone(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"answer": "', "more_body": True})
        for _ in range(16 * self.megabytes):
            if gone.done():
                call.abandoned = True
                return
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
        gone.cancel()
        await send({"type": "http.response.body", "body": b'"}'})

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


MISBEHAVIOURS: dict[str, tuple[Reply, str]] = {
    "LLM server answers 503": (Json({"detail": "overloaded"}, 503), "LLM 서버 오류 (HTTP 503)"),
    "LLM server hangs beyond HTTPX_TIMEOUT": (Hang(), TIMEOUT),
    "LLM server drips a byte at a time": (Drip(0.05), TIMEOUT),
    "LLM server resets the connection": (Drop(), UNREACHABLE),
    "LLM server breaks off in its reply": (Drop(b'{"answer": "'), UNREACHABLE),
    "LLM server sends garbage": (Raw(b"<html>\xff\xfe" * 100, content_type="text/html"), FORMAT),
    "LLM server sends 50 MB": (Endless(50), FORMAT),
}


@pytest.mark.parametrize("fault", MISBEHAVIOURS)
async def test_the_llm_server_misbehaves(cluster: Cluster, world: World, fault: str) -> None:
    """Every prompt is answered with the sentence that belongs to the fault, and the memory stays as it was."""
    reply, sentence = MISBEHAVIOURS[fault]
    before = [_megabytes(gateway.process.pid) for gateway in cluster]
    async with Crowd(list(cluster), SCALE.misbehaving) as crowd:
        world.llm.default = lambda call: reply
        try:
            await asyncio.gather(*(visitor.ask(unique("이상한 서버")) for visitor in crowd.visitors))
            await crowd.finish()
        finally:
            world.llm.default = think
        assert {frame["message"] for visitor in crowd.visitors for frame in visitor.answers} == {sentence}
        await record(fault, cluster, crowd.visitors)
    for gateway, megabytes in zip(cluster, before, strict=True):
        assert _megabytes(gateway.process.pid) < megabytes + 3 * SCALE.misbehaving


def _megabytes(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20


class LlmProcess:
    """An LLM server in a process, in the place of the stub."""

    def __init__(self, world: World) -> None:
        self._url = world.llm.url + DISPATCH_PATH
        self._port = world.llm.port
        self._process: Process | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "tests.faults.llm_process:app", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--log-level", "warning"]
        self._process = Process(command, environment=environment({"FAULTS": "long" if LONG else "short"}))
        eventually(self._serves, what="the LLM server answers")

    def _serves(self) -> bool:
        try:
            return httpx.post(self._url, json={"query": "?"}, trust_env=False, verify=NO_TLS).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()


@contextmanager
def in_place_of_the_stub(world: World) -> Iterator[LlmProcess]:
    process = LlmProcess(world)
    world.llm.stop()
    try:
        process.start()
        yield process
    finally:
        process.kill()
        world.llm.start()


async def test_the_llm_server_is_killed_and_started_under_load(cluster: Cluster, world: World) -> None:
    """What it had in hand, and what is asked while it is away, gets the sentence; then it answers again."""
    with in_place_of_the_stub(world) as llm:
        async with Crowd(list(cluster), SCALE.talking) as crowd:
            crowd.talk()
            for _ in range(max(1, SCALE.rounds // 4)):
                await crowd.more_answers()
                await asyncio.to_thread(llm.kill)
                await crowd.more_answers()
                await asyncio.to_thread(llm.start)
            before = len(crowd.visitors[0].answers)
            await crowd.finish()
            await crowd.visitors[0].ask(last := unique("마지막"))
            await crowd.visitors[0].until_answered()
            assert len(crowd.visitors[0].answers) > before
            assert crowd.visitors[0].answers[-1]["message"] == f"re: {last}"
            await record("LLM server killed and started", cluster, crowd.visitors)
            messages = [frame["message"] for visitor in crowd.visitors for frame in visitor.answers]
            assert UNREACHABLE in messages
