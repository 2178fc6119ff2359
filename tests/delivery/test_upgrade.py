"""From the version before to this one and back again, instance by instance, under load and behind a real nginx."""

import asyncio
import io
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.deployment.test_proxy import nginx_before
from tests.support.chat import new_id
from tests.support.cluster import Cluster, Tally, tally
from tests.support.gateway import Gateway
from tests.support.keys import protocols
from tests.support.processes import ROOT
from tests.support.waiting import PATIENCE_SECONDS, become
from tests.support.world import NewWorld, World, add_personas

pytestmark = pytest.mark.anyio

# The last commit before streaming, stops and keys: its schema, its notices, its sessions without a key.
BEFORE = "3970487"
VISITORS = 9
THINKING_SECONDS = 0.05


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The source of the version before."""
    found = subprocess.run(["git", "-C", str(ROOT), "archive", BEFORE], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"the version before cannot be tried: this checkout has no commit {BEFORE}")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(tmp_path / "before", filter="data")
    return tmp_path / "before"


class FrontEnd:
    """Keeps one session as long as it can: comes back, with its key if it has one, and repeats what has no answer."""

    def __init__(self, proxy: Gateway) -> None:
        self._proxy = proxy
        self._session = ""
        self._key: str | None = None
        self.pending: str | None = None
        self.answered = 0
        self.lost_sessions = {"with a key": 0, "without": 0}
        self.unexpected: list[dict[str, Any]] = []

    async def live(self, done: asyncio.Event) -> None:
        while not done.is_set() or self.pending:
            with suppress(ConnectionClosed):
                await self._connected(done)

    async def _connected(self, done: asyncio.Event) -> None:
        query = f"session_id={self._session}" if self._session else ""
        offered = protocols(self._key) if self._key else None
        async with self._proxy.connect(query=query, subprotocols=offered) as socket:
            hello = await self._frame(socket)
            if self._session and hello["session_id"] != self._session:
                assert hello["resumed"] is False
                self.lost_sessions["with a key" if self._key else "without"] += 1
                self.pending = None  # its answer is stored in the session that was left
            self._session, self._key = hello["session_id"], hello.get("key", self._key if query else None)
            if hello.get("resumed") is False:
                self._key = hello.get("key")
            while not done.is_set() or self.pending:
                self.pending = self.pending or new_id()
                await socket.send(json.dumps({"message_id": self.pending, "message": "한도가 얼마인가요?"}))
                while self.pending:
                    frame = await self._frame(socket)
                    if frame.get("error") == "Server is restarting":
                        await asyncio.wait_for(socket.wait_closed(), PATIENCE_SECONDS)
                    elif frame.get("message_id") == self.pending and frame.get("sender") == "bot":
                        self.pending, self.answered = None, self.answered + 1
                    else:
                        self.unexpected.append(frame)
                await asyncio.sleep(THINKING_SECONDS)

    async def _frame(self, socket: Any) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_SECONDS))
        return frame


async def ready(gateway: Gateway) -> bool:
    return (await asyncio.to_thread(gateway.http.get, "/api/health/ready")).status_code == 200


async def exchange(cluster: Cluster, source: Path, visitors: list[FrontEnd]) -> AsyncIterator[str]:
    """One instance after the other, with everybody at it before each and after the last."""
    for gateway in cluster:
        answered = sum(visitor.answered for visitor in visitors)
        await become(
            lambda answered=answered: sum(visitor.answered for visitor in visitors) > answered + 2 * VISITORS,  # type: ignore[misc]
            what="all are at it",
        )
        assert await asyncio.to_thread(gateway.stop) == 0
        gateway.directory = source
        gateway.launch()
        await asyncio.to_thread(gateway.wait_until_healthy)
        await become(lambda gateway=gateway: ready(gateway), what="it is ready again")  # type: ignore[misc]
        yield gateway.output()


async def test_no_prompt_is_lost_on_the_way_to_this_version_and_back(before: Path, new_world: NewWorld) -> None:
    """0 lost, 0 doubled, no unexpected word to a visitor, and only a session without a key is begun anew, once."""
    world: World = new_world()
    with Cluster(world, 2, start="python", directory=before, PROMPTS_PER_MINUTE="100000") as cluster:
        add_personas(world.chatdb, "이바다")
        done = asyncio.Event()
        with nginx_before(list(cluster)) as proxy:
            visitors = [FrontEnd(proxy) for _ in range(VISITORS)]
            async with asyncio.TaskGroup() as group:
                for visitor in visitors:
                    group.create_task(visitor.live(done))
                try:
                    for source in (ROOT, before, ROOT):
                        async for output in exchange(cluster, source, visitors):
                            assert "Traceback" not in output, output
                finally:
                    done.set()
        outputs = [gateway.output() for gateway in cluster]
    stored = world.chatdb.value('SELECT count(*) FROM "Chat" WHERE is_user')
    assert tally(world.chatdb) == Tally(stored, stored, 0, 0)
    assert stored >= sum(visitor.answered for visitor in visitors)
    assert [frame for visitor in visitors for frame in visitor.unexpected] == []
    assert sum(visitor.lost_sessions["with a key"] for visitor in visitors) == 0
    # A session of the version before has no key: once on the way here, and once for one that was begun on the way back.
    assert all(visitor.lost_sessions["without"] <= 2 for visitor in visitors)
    assert sum(visitor.lost_sessions["without"] for visitor in visitors) > 0
    assert not any("Traceback" in output for output in outputs), outputs
    print(f"{stored} prompts, {[visitor.lost_sessions for visitor in visitors]}")
