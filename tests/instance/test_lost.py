"""Who is alive: an instance that was killed stops counting, one that was slow does not."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.backends import Held, answer
from tests.support.chat import visit
from tests.support.cluster import NOTICED_SIGNS, Cluster, SignsOfLife, holder_of, instance_ids, persona_id, resume
from tests.support.waiting import become
from tests.support.world import NewWorld, add_personas, unique

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster(new_world: NewWorld) -> Iterator[Cluster]:
    """Instances that may be harmed: a test that ends one starts another."""
    with Cluster(new_world()) as cluster:
        add_personas(cluster.world.chatdb, "김하늘")
        yield cluster


async def test_a_frozen_instance_is_not_given_up_and_its_sessions_stay(cluster: Cluster) -> None:
    """While an instance stands still for some seconds its sessions count as connected, and it goes on afterwards."""
    frozen, *others = cluster
    chatdb = cluster.world.chatdb
    async with visit(frozen) as visitor:
        holder = holder_of(chatdb, visitor.session_id)
        assert holder is not None
        os.kill(frozen.process.pid, signal.SIGSTOP)
        try:
            signs = SignsOfLife(chatdb)
            await become(lambda: signs.all_showed(4, but=holder), what="four signs of life of each other instance")
            assert holder in instance_ids(chatdb)
            for gateway in others:
                assert persona_id(gateway, visitor.session_id) == (200, None)
        finally:
            os.kill(frozen.process.pid, signal.SIGCONT)
        await visitor.ask(unique("녹았다"))
        assert holder_of(chatdb, visitor.session_id) == holder


async def test_an_instance_that_was_given_up_comes_back_with_its_open_sockets(cluster: Cluster) -> None:
    """Its sessions are its own again, logins reach them, and a turn in hand is stored and sent once."""
    here, there, _ = cluster
    world = cluster.world
    message = unique("버려진 동안")
    held = Held(answer("다녀왔습니다."))
    world.llm.on(message, held)
    async with visit(here) as visitor, visit(here) as left:
        holder = holder_of(world.chatdb, visitor.session_id)
        message_id = await visitor.prompt(message)
        await world.llm.called(query=message)
        await left.leave()
        await become(lambda: holder_of(world.chatdb, left.session_id) is None)
        # As the others do it with an instance that shows no sign of life.
        world.chatdb.fetch('DELETE FROM "Instance" WHERE id = $1', holder)
        world.chatdb.fetch(
            'UPDATE "ChatSession" SET instance_id = NULL, ended_at = now() WHERE instance_id = $1', holder
        )
        await become(lambda: holder_of(world.chatdb, visitor.session_id) == holder, what="the session is back")
        assert holder_of(world.chatdb, left.session_id) is None
        held.release()
        frame = await visitor.receive()
        assert (frame["message_id"], frame["message"]) == (message_id, "다녀왔습니다.")
        await visitor.nothing_pending()
        personas = there.http.get("/api/chat/personas").json()["personas"]
        login = {"session_id": visitor.session_id, "persona_id": personas[0]["id"]}
        assert there.http.post("/api/login", json=login).status_code == 200
        assert (await visitor.receive())["tool_name"] == "consumption_recommend"
        await visitor.nothing_pending()


async def test_a_session_that_moved_while_its_instance_was_given_up_is_not_taken_back(cluster: Cluster) -> None:
    """The older socket on an instance that comes back is closed with 4001; the newer one keeps the session."""
    here, there, _ = cluster
    chatdb = cluster.world.chatdb
    async with visit(here) as visitor:
        holder = holder_of(chatdb, visitor.session_id)
        os.kill(here.process.pid, signal.SIGSTOP)
        try:
            chatdb.fetch('DELETE FROM "Instance" WHERE id = $1', holder)
            chatdb.fetch('UPDATE "ChatSession" SET instance_id = NULL, ended_at = now() WHERE instance_id = $1', holder)
            moved = resume(there, visitor.session_id)
            newer = await moved.__aenter__()
        finally:
            os.kill(here.process.pid, signal.SIGCONT)
        await visitor.socket.wait_closed()
        assert visitor.socket.close_code == 4001
        await newer.ask(unique("여기 있어요"))
        assert holder_of(chatdb, visitor.session_id) not in (None, holder)
        await moved.__aexit__(None, None, None)


async def test_the_sessions_of_a_killed_instance_stop_counting_within_five_seconds(cluster: Cluster) -> None:
    """After kill -9 the others say 404 in time, and the visitor can go on with the session on one of them."""
    killed = cluster[0]
    survivors = [gateway for gateway in cluster if gateway is not killed]
    async with visit(killed) as visitor:
        assert persona_id(survivors[0], visitor.session_id) == (200, None)
        killed.kill()
        signs = SignsOfLife(cluster.world.chatdb)
        for gateway in survivors:
            await become(lambda gateway=gateway: persona_id(gateway, visitor.session_id)[0] == 404)  # type: ignore[misc]
        assert signs.shown <= NOTICED_SIGNS
        async with resume(survivors[1], visitor.session_id) as again:
            await again.ask(unique("다시"))
            assert persona_id(survivors[0], visitor.session_id) == (200, None)
