"""Clocks that are wrong or step back: a conversation is in one order for good, and its times never run backwards."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Held, answer
from tests.support.card_qna import FAQS
from tests.support.chat import Visitor, visit
from tests.support.cluster import resume
from tests.support.gateway import Gateway
from tests.support.network import TcpProxy
from tests.support.postgres import Database
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

HOUR_AHEAD = """
import datetime, time
real = time.time
time.time = lambda: real() + 3600
class Ahead(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)
datetime.datetime = Ahead
"""


def step_back(chatdb: Database, session_id: str, seconds: int = 40) -> None:
    """ChatDB's clock, while the visitor is away: all that the session has was said by a clock that was ahead."""
    interval = f"interval '{seconds} seconds' WHERE session_id = '{session_id}'"
    chatdb.execute(
        f'UPDATE "Chat" SET created_at = created_at + {interval};'
        f'UPDATE "ChatSession" SET last_answer_at = last_answer_at + {interval}'
    )


def in_order(visitor: Visitor, *turns: str) -> list[datetime]:
    """The times of a history that has these prompts, each with its answer behind it; they grow."""
    history: list[dict[str, Any]] = visitor.history()
    assert [(entry["message_id"], entry["is_user"]) for entry in history] == [
        (id, is_user) for id in turns for is_user in (True, False)
    ]
    times = [datetime.fromisoformat(entry["timestamp"]) for entry in history]
    assert times == sorted(set(times)), times
    return times


async def test_chatdbs_clock_steps_back_between_a_prompt_and_its_answer(
    default_gateway: Gateway, default_world: World
) -> None:
    llm, text, held = default_world.llm, unique("시계"), Held(answer("늦은 답"))
    llm.on(text, held)
    async with visit(default_gateway) as visitor:
        first = (await visitor.ask(unique("먼저")))["message_id"]
        second = await visitor.prompt(text)
        await llm.called(query=text)
    step_back(default_world.chatdb, visitor.session_id)
    async with resume(default_gateway, visitor.session_id) as visitor:
        held.release()
        frame = await visitor.receive()
        third = (await visitor.ask(unique("다음")))["message_id"]
        fourth = (await visitor.ask(FAQS[0].question))["message_id"]  # stored together with its answer
        times = in_order(visitor, first, second, third, fourth)
        assert times[3] == datetime.fromisoformat(frame["timestamp"])
    async with resume(default_gateway, visitor.session_id, frame["timestamp"]) as again:
        assert [(await again.receive())["message_id"] for _ in range(2)] == [third, fourth]
        await again.nothing_pending()


async def test_prompts_that_wait_keep_their_order_when_chatdbs_clock_has_stepped_back(
    default_gateway: Gateway, default_world: World
) -> None:
    async with visit(default_gateway) as visitor:
        first = (await visitor.ask(unique("먼저")))["message_id"]
    step_back(default_world.chatdb, visitor.session_id)
    async with resume(default_gateway, visitor.session_id) as visitor:
        others = [await visitor.prompt(unique("줄지어")) for _ in range(4)]
        assert [(await visitor.receive())["message_id"] for _ in others] == others
        history = visitor.history()
        for is_user in (True, False):
            assert [entry["message_id"] for entry in history if entry["is_user"] is is_user] == [first, *others]
        for id in others:
            assert [entry["is_user"] for entry in history if entry["message_id"] == id] == [True, False]


@pytest.fixture(scope="module")
def ahead(new_world: NewWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, World, TcpProxy]]:
    """A gateway whose machine's clock is an hour ahead, and whose way to ChatDB can be cut."""
    folder: Path = tmp_path_factory.mktemp("clock")
    (folder / "sitecustomize.py").write_text(HOUR_AHEAD)
    world = new_world()
    with TcpProxy(world.chatdb.server.port) as proxy:
        settings = {"DATABASE_URL": world.chatdb.url_at(proxy.port), "DB_TIMEOUT": "1", "PYTHONPATH": str(folder)}
        with Gateway(world.settings | settings) as gateway:
            yield gateway, world, proxy


@pytest.mark.parametrize("steps_back", [0, 40])
async def test_an_answer_that_is_shown_while_chatdb_is_away_has_chatdbs_time(
    ahead: tuple[Gateway, World, TcpProxy], steps_back: int
) -> None:
    """Although the gateway's own clock is an hour off, and whether or not ChatDB's has stepped back."""
    gateway, world, proxy = ahead
    text, held = unique("그동안"), Held(answer("보이는 답"))
    world.llm.on(text, held)
    async with visit(gateway) as visitor:
        first = await visitor.ask(unique("먼저"))
    step_back(world.chatdb, visitor.session_id, steps_back)
    async with resume(gateway, visitor.session_id) as visitor:
        second = await visitor.prompt(text)
        await world.llm.called(query=text)
        proxy.cut()
        held.release()
        frame = await visitor.receive()
        assert frame["message"] == "보이는 답"
        shown_at = datetime.fromisoformat(frame["timestamp"])
        assert abs(shown_at - datetime.now(UTC)) < timedelta(minutes=2)
        proxy.mend()
        third = await visitor.ask(unique("다음"))
        while "error" in third:
            third = await visitor.ask(unique("다음"))
        times = in_order(visitor, first["message_id"], second, third["message_id"])
        assert times[3] == shown_at
