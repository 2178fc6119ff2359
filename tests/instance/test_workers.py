"""`uvicorn gateway:app --workers 2`: each worker is an instance."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from tests.support.backends import CallBack, recommendation
from tests.support.chat import visit
from tests.support.cluster import holder_of, instance_ids
from tests.support.gateway import Gateway
from tests.support.keys import bearer
from tests.support.waiting import eventually
from tests.support.world import NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def workers(world: World) -> Iterator[Gateway]:
    """A gateway of two workers."""
    with Gateway(world.settings, arguments=("--workers", "2")).start() as gateway:
        eventually(lambda: len(instance_ids(world.chatdb)) == 2, what="both workers are instances")
        yield gateway


async def test_logins_work_whichever_worker_they_reach(world: World, workers: Gateway) -> None:
    """Sockets are on both workers, logins and call-backs reach either: all are pushed, once."""
    (persona,) = add_personas(world.chatdb, unique("김하늘"))
    async with AsyncExitStack() as stack:
        visitors = [await stack.enter_async_context(visit(workers)) for _ in range(4)]
        while len({holder_of(world.chatdb, visitor.session_id) for visitor in visitors}) < 2:
            visitors.append(await stack.enter_async_context(visit(workers)))
        asked = CallBack(workers.base_url, recommendation("추천"))
        for visitor in visitors:
            world.mcp.on_session(visitor.session_id, asked)

        async def log_in(session_id: str) -> int:
            async with workers.async_http() as client:  # a connection of its own, for either worker
                body = {"session_id": session_id, "persona_id": persona}
                return (await client.post("/api/login", json=body)).status_code

        for _ in range(3):
            statuses = await asyncio.gather(*(log_in(visitor.session_id) for visitor in visitors))
            assert set(statuses) == {200}
            for visitor in visitors:
                assert (await visitor.receive())["message"] == "추천"
                await visitor.nothing_pending()
        assert len(asked.answers) == 3 * len(visitors)
        assert all(answer == (200, {"persona_id": persona}) for answer in asked.answers)


async def test_a_turn_and_its_history_work_whichever_worker_is_asked(world: World, workers: Gateway) -> None:
    """History and feedback find what either worker has stored."""
    async with visit(workers) as visitor:
        frame = await visitor.ask(unique("일꾼"))
        for _ in range(6):
            async with workers.async_http() as client:
                path, headers = f"/api/chat/history/{visitor.session_id}", bearer(visitor.session_id)
                history = (await client.get(path, headers=headers)).json()["history"]
                assert [entry["message_id"] for entry in history] == [frame["message_id"]] * 2
                body = {"message_id": frame["message_id"], "is_helpful": True}
                assert (await client.post("/api/chat/feedback", json=body)).status_code == 200
