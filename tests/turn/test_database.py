"""A database that is cut, stopped, frozen or read-only: errors and no silence, recovery by itself, nothing lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.observability.scrape import scrape
from tests.support.backends import Held, answer
from tests.support.card_qna import FAQS
from tests.support.chat import Visitor, visit
from tests.support.cluster import (
    Cluster,
    SignsOfLife,
    Tally,
    answers_of,
    connections,
    kill_backends,
    locked,
    prompts_of,
    receive_all,
    resume,
    tally,
    waiting_for_locks,
)
from tests.support.http import assert_sentence
from tests.support.keys import bearer
from tests.support.postgres import Database, PostgresServer
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

DB_TIMEOUT = 1.0
POOL, INSTANCES = 4, 2
DB_FAILED = "Internal Server Error: DB operation failed"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of its own: it is stopped and frozen here."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def world(server: PostgresServer, new_world: NewWorld) -> World:
    chatdb = server.database()
    # The server is fast, and forgets its last commits in a crash, unless told not to.
    server.admin.execute(f'ALTER DATABASE "{chatdb.name}" SET synchronous_commit = on')
    return new_world(chatdb=chatdb)


@pytest.fixture(scope="module")
def cluster(world: World) -> Iterator[Cluster]:
    """Two instances with short time limits."""
    with Cluster(
        world, INSTANCES, DB_TIMEOUT=str(DB_TIMEOUT), DB_POOL_SIZE=str(POOL), PROMPTS_PER_MINUTE="100000"
    ) as cluster:
        yield cluster


class Fault:
    """Something that befalls the database, and its end."""

    def __init__(self, begin: Callable[[Database], None], end: Callable[[Database], None]) -> None:
        self.begin = begin
        self.end = end


def _read_only(database: Database, on: str) -> None:
    database.server.admin.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = {on}')


def _begin_read_only(database: Database) -> None:
    _read_only(database, "on")
    kill_backends(database)


FAULTS = {
    "stopped": Fault(lambda database: database.server.stop(), lambda database: database.server.start()),
    "crashed": Fault(lambda database: database.server.stop(immediately=True), lambda database: database.server.start()),
    "frozen": Fault(lambda database: database.server.freeze(), lambda database: database.server.thaw()),
    "read-only": Fault(_begin_read_only, lambda database: _read_only(database, "off")),
}


@contextlib.asynccontextmanager
async def suffering(database: Database, name: str) -> AsyncIterator[None]:
    await asyncio.to_thread(FAULTS[name].begin, database)
    try:
        yield
    finally:
        await asyncio.to_thread(FAULTS[name].end, database)


async def works(visitor: Visitor) -> bool:
    message_id = await visitor.prompt(unique("살아났나요"))
    frame = await visitor.receive()
    while frame["message_id"] != message_id:  # a refused prompt that had been stored after all is answered as well
        frame = await visitor.receive()
    return "error" not in frame


async def until_it_works(visitor: Visitor) -> None:
    await become(lambda: works(visitor), what="prompts are answered again")


@pytest.mark.parametrize("fault", FAULTS)
async def test_errors_come_and_it_recovers_by_itself(cluster: Cluster, fault: str) -> None:
    """REST says 500, a prompt gets the error frame, the socket goes on, and afterwards everything works again."""
    chatdb = cluster.world.chatdb
    asked = unique("저장되지 못한 질문")
    async with visit(cluster[0]) as visitor, visit(cluster[1]) as other:
        first = await visitor.ask(unique("전"))
        async with suffering(chatdb, fault):
            message_id = await visitor.prompt(asked)
            assert await visitor.receive() == {"error": DB_FAILED, "message_id": message_id}
            async with cluster[1].async_http() as client:
                body = {"message_id": first["message_id"], "is_helpful": True}
                responses = await asyncio.gather(
                    client.post("/api/chat/feedback", json=body),
                    client.post("/api/login", json={"session_id": visitor.session_id, "persona_id": 1}),
                    client.get("/api/health"),
                    client.get("/api/health/ready"),
                    client.get(f"/api/chat/history/{visitor.session_id}", headers=bearer(visitor.session_id)),
                )
            assert_sentence(responses[0], 500)
            assert_sentence(responses[1], 500)
            assert responses[2].json() == {"status": "ok"}
            if fault != "read-only":
                assert responses[3].status_code == 503
                assert_sentence(responses[4], 500)
            await visitor.nothing_pending()
        await until_it_works(visitor)
        await until_it_works(other)
        # Not stored, or stored after all and then answered as well: nothing in between.
        if asked in [call.field("query") for call in cluster.world.llm.calls]:
            await become(lambda: tally(chatdb).lost == 0, what="all that was stored is answered")
        for gateway in cluster:
            await become(lambda gateway=gateway: gateway.http.get("/api/health/ready").status_code == 200)  # type: ignore[misc]
    await become(lambda: tally(chatdb).lost == 0)
    assert tally(chatdb).doubled == 0
    assert connections(chatdb) <= INSTANCES * (POOL + 1)


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_answer_that_cannot_be_stored_is_shown_and_stored_later(cluster: Cluster, fault: str) -> None:
    """The visitor gets it at once and once; it is stored when the database is back, exactly once."""
    chatdb, llm = cluster.world.chatdb, cluster.world.llm
    message = unique("길고 긴 질문")
    held = Held(answer("늦지 않은 답"))
    llm.on(message, held)
    async with visit(cluster[0]) as visitor:
        message_id = await visitor.prompt(message)
        await llm.called(query=message)
        async with suffering(chatdb, fault):
            held.release()
            frame = await visitor.receive()
            assert (frame["message_id"], frame["message"]) == (message_id, "늦지 않은 답")
        await become(lambda: len(answers_of(chatdb, visitor.session_id)) == 1, what="the answer is stored")
        (stored,) = answers_of(chatdb, visitor.session_id)
        assert (stored["message_id"], stored["content"]) == (message_id, "늦지 않은 답")
        # Done late, after it had seemed to fail, it may have another time for a moment.
        await become(
            lambda: (
                answers_of(chatdb, visitor.session_id)[0]["created_at"].isoformat(timespec="microseconds")
                == frame["timestamp"]
            ),
            what="it is stored with the time that was shown",
        )
        await until_it_works(visitor)
        await visitor.nothing_pending()
        assert len(llm.calls_with(query=message)) == 1
    later = [row for row in answers_of(chatdb, visitor.session_id) if row["message_id"] != message_id]
    async with resume(cluster[1], visitor.session_id, frame["timestamp"]) as again:
        frames = await receive_all(again, len(later))
        assert [frame["message_id"] for frame in frames] == [row["message_id"] for row in later]
        await again.nothing_pending()
    assert tally(chatdb, visitor.session_id).lost == tally(chatdb, visitor.session_id).doubled == 0


async def test_turns_in_hand_survive_the_loss_of_every_connection(cluster: Cluster) -> None:
    """All connections are killed again and again while prompts are sent: each is answered once, some after a retry."""
    chatdb = cluster.world.chatdb
    async with visit(cluster[0]) as one, visit(cluster[1]) as other:
        stopped = asyncio.Event()
        sent: dict[str, int] = {one.session_id: 0, other.session_id: 0}

        async def talk(visitor: Visitor) -> None:
            while not stopped.is_set() or sent[visitor.session_id] < 5:
                message = unique("끊겨도")
                frame = await visitor.ask(message)
                while frame.get("error") == DB_FAILED:
                    frame = await visitor.ask(message, message_id=frame["message_id"])
                assert frame.get("sender") == "bot", frame
                sent[visitor.session_id] += 1

        talking = [asyncio.create_task(talk(visitor)) for visitor in (one, other)]
        for _ in range(5):
            await asyncio.to_thread(kill_backends, chatdb)
            before = dict(sent)
            await become(lambda before=before: all(sent[id] > before[id] + 3 for id in sent), what="both go on")  # type: ignore[misc]
        stopped.set()
        await asyncio.gather(*talking)
        for visitor in (one, other):
            n = sent[visitor.session_id]
            assert tally(chatdb, visitor.session_id) == Tally(n, n, 0, 0)
    assert connections(chatdb) <= INSTANCES * (POOL + 1)


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
async def test_nobody_asks_again_for_an_instance_that_lives(cluster: Cluster, fault: str) -> None:
    """After a fault of the database no instance takes another's turns: each prompt is asked once."""
    chatdb, llm = cluster.world.chatdb, cluster.world.llm
    messages = [unique("참을성") for _ in range(4)]
    held = Held(answer("한 번만"))
    for message in messages:
        llm.on(message, held)
    async with contextlib.AsyncExitStack() as stack:
        visitors = [await stack.enter_async_context(visit(cluster[n % 2])) for n in range(4)]
        for visitor, message in zip(visitors, messages, strict=True):
            await visitor.prompt(message)
            await llm.called(query=message)
        before = [gateway.output().count("instance lost") for gateway in cluster]
        async with suffering(chatdb, fault):
            for gateway in cluster:
                await become(lambda gateway=gateway: gateway.http.get("/api/health/ready").status_code == 503)  # type: ignore[misc]
        signs = SignsOfLife(chatdb)
        await become(lambda: signs.all_showed(4), what="four signs of life of each instance")
        assert [gateway.output().count("instance lost") for gateway in cluster] == before
        held.release()
        for visitor in visitors:
            assert (await visitor.receive())["message"] == "한 번만"
        assert [len(llm.calls_with(query=message)) for message in messages] == [1] * 4
        for visitor in visitors:
            await visitor.nothing_pending()


async def test_an_answer_that_nobody_saw_is_sent_to_who_comes_back_before_it_is_stored(cluster: Cluster) -> None:
    """The visitor left, the answer could not be stored, the visitor came back, then it was stored: it is sent."""
    chatdb, llm = cluster.world.chatdb, cluster.world.llm
    message = unique("아무도 못 본 답")
    held = Held(answer("이제 보입니다."))
    llm.on(message, held)
    async with visit(cluster[0]) as visitor:
        message_id = await visitor.prompt(message)
        await llm.called(query=message)
    with locked(chatdb, "ChatbotResponse"):
        held.release()
        await become(lambda: scrape(cluster[0]).value("gateway_unstored_answers") > 0, what="it could not be stored")
        async with resume(cluster[0], visitor.session_id) as again:
            await again.nothing_pending()
            # What waits for the lock, also in the name of attempts that were given up, must not store it after all.
            while waiting_for_locks(chatdb):
                kill_backends(chatdb, "wait_event_type = 'Lock'")
            kill_backends(chatdb, "query LIKE 'LOCK TABLE%'")
            frame = await again.receive()
            assert (frame["message_id"], frame["message"]) == (message_id, "이제 보입니다.")
            assert message_id in prompts_of(chatdb, visitor.session_id)


async def test_a_known_answer_is_stored_with_its_prompt_and_no_prompt_overtakes_it(cluster: Cluster) -> None:
    """While both wait for the database the visitor asks on; what was asked first stands first."""
    chatdb, known = cluster.world.chatdb, FAQS[0]
    async with visit(cluster[0]) as visitor, visit(cluster[0]) as other:
        with locked(chatdb, "ChatbotResponse"):
            first = await visitor.prompt(known.question)
            await become(lambda: waiting_for_locks(chatdb) == 1, what="the prompt waits with its answer")
            assert prompts_of(chatdb, visitor.session_id) == []
            others = [await visitor.prompt(text) for text in (unique("다음"), known.question, unique("그다음"))]
            await other.prompt(unique("그사이"))
            await become(lambda: prompts_of(chatdb, other.session_id) != [], what="a later prompt has been stored")
        frames = await receive_all(visitor, 4)
        assert [frame["message_id"] for frame in frames] == [first, *others]
        assert frames[0]["message"] == frames[2]["message"] == known.answer
        assert prompts_of(chatdb, visitor.session_id) == [first, *others]
        assert tally(chatdb, visitor.session_id) == Tally(4, 4, 0, 0)


async def test_a_known_answer_that_cannot_be_stored_leaves_its_prompt_stored_and_is_shown(cluster: Cluster) -> None:
    """And is stored once when it can be, and counted as one view."""
    chatdb, known = cluster.world.chatdb, FAQS[1]
    views = "SELECT views FROM faqs WHERE question = $1"
    before = cluster.world.card_qna.value(views, known.question)
    async with visit(cluster[0]) as visitor:
        with locked(chatdb, "ChatbotResponse"):
            message_id = await visitor.prompt(known.question)
            await become(lambda: prompts_of(chatdb, visitor.session_id) == [message_id], what="the prompt is stored")
            frame = await visitor.receive()
            assert (frame["message_id"], frame["message"]) == (message_id, known.answer)
        await become(lambda: tally(chatdb, visitor.session_id) == Tally(1, 1, 0, 0), what="the answer is stored")
        await visitor.nothing_pending()
    await become(lambda: cluster.world.card_qna.value(views, known.question) == before + 1)


async def test_a_known_answer_that_is_asked_for_again_is_the_stored_one(cluster: Cluster) -> None:
    """The same message_id again, here and on another instance: one prompt, one answer, one view."""
    chatdb, known = cluster.world.chatdb, FAQS[2]
    views = "SELECT views FROM faqs WHERE question = $1"
    before = cluster.world.card_qna.value(views, known.question)
    async with visit(cluster[0]) as visitor:
        first = await visitor.ask(known.question)
        await visitor.prompt(known.question, first["message_id"])
        assert await visitor.receive() == first
    async with resume(cluster[1], visitor.session_id) as again:
        await again.prompt(known.question, first["message_id"])
        assert await again.receive() == first
        await again.ask(known.question)  # of which the view is counted after those before
        await again.nothing_pending()
    assert tally(chatdb, visitor.session_id) == Tally(2, 2, 0, 0)
    await become(lambda: cluster.world.card_qna.value(views, known.question) == before + 2)
