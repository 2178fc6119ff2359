"""Going on with a session: on any instance, without missing or repeating an answer."""

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from urllib.parse import quote

import pytest

from tests.support.backends import Held, answer, tool_answer
from tests.support.chat import Frame, visit
from tests.support.cluster import (
    Cluster,
    answers_of,
    holder_of,
    persona_id,
    prompts_of,
    receive_all,
    resume,
    until_closed,
)
from tests.support.waiting import become
from tests.support.world import NewGateway, unique

pytestmark = pytest.mark.anyio

TAKEN_OVER = 4001


def moved(timestamp: str, **by: int) -> str:
    return (datetime.fromisoformat(timestamp) + timedelta(**by)).isoformat()


# since


@pytest.mark.parametrize("bare_plus", [False, True], ids=["escaped", "bare plus"])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["same instance", "second instance", "third instance"])
async def test_what_came_after_since_is_replayed_in_order_as_it_was(
    three: Cluster, place: int, bare_plus: bool
) -> None:
    """The answers after `since`, and only they, come again with every field, its plus sign escaped or not."""
    message = unique("도구")
    content = {"answer": "두 장", "card_list": ["가", {"이름": "나"}], "relatedQuestions": ["왜?"]}
    three.world.llm.on(message, tool_answer(content))
    async with visit(three[0]) as visitor:
        frames = [await visitor.ask(text) for text in (unique("하나"), unique("둘"), message, unique("넷"))]
    since = frames[1]["timestamp"]
    query = f"session_id={visitor.session_id}&since={since if bare_plus else quote(since, safe='')}"
    async with visit(three[place], query=query) as again:
        assert again.hello == {"session_id": visitor.session_id, "resumed": True}
        assert await receive_all(again, 2) == frames[2:]
        await again.nothing_pending()
        await again.ask(unique("다섯"))


async def test_without_since_nothing_is_replayed(three: Cluster) -> None:
    """Who does not say what they have seen gets what is new only."""
    async with visit(three[0]) as visitor:
        await visitor.ask(unique("하나"))
    async with resume(three[1], visitor.session_id) as again:
        await again.nothing_pending()
        await again.ask(unique("둘"))
        await again.nothing_pending()


async def test_with_the_last_timestamp_nothing_is_replayed(three: Cluster) -> None:
    """To the microsecond: the last frame itself does not come again."""
    async with visit(three[0]) as visitor:
        last = await visitor.ask(unique("하나"))
    async with resume(three[1], visitor.session_id, last["timestamp"]) as again:
        await again.nothing_pending()
    async with resume(three[1], visitor.session_id, moved(last["timestamp"], microseconds=-1)) as again:
        assert await again.receive() == last
        await again.nothing_pending()


@pytest.mark.parametrize(
    "since",
    ["2999-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999-14:00", "morning", "", "0", "\U0001f600", "' OR 1=1 --"],
)
async def test_a_since_in_the_future_or_without_sense_replays_nothing_and_hides_nothing(
    three: Cluster, since: str
) -> None:
    """The session goes on, and the next answers come."""
    async with visit(three[0]) as visitor:
        await visitor.ask(unique("하나"))
    async with resume(three[1], visitor.session_id, since) as again:
        await again.nothing_pending()
        await again.ask(unique("둘"))
        await again.ask(unique("셋"))
        await again.nothing_pending()


@pytest.mark.parametrize(
    "since",
    ["1970-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00Z", "2020-02-30", "1970-01-01"],
)
async def test_a_since_before_the_session_replays_all_of_it(three: Cluster, since: str) -> None:
    """However long ago; what is no date is as good as none."""
    async with visit(three[0]) as visitor:
        frames = [await visitor.ask(unique("질문")) for _ in range(3)]
    async with resume(three[1], visitor.session_id, since) as again:
        if since not in ("2020-02-30", "0001-01-01T00:00:00+14:00"):
            assert await receive_all(again, 3) == frames
        frame = await again.ask(unique("계속")) if since != "0001-01-01T00:00:00+14:00" else None
        assert frame is None or frame["timestamp"] > frames[-1]["timestamp"]


async def test_a_since_without_an_offset_is_utc(three: Cluster) -> None:
    """A naive time is read as UTC, whatever the machine's zone."""
    async with visit(three[0]) as visitor:
        first = await visitor.ask(unique("하나"))
        second = await visitor.ask(unique("둘"))
    utc = datetime.fromisoformat(first["timestamp"]).astimezone(tz=None).utctimetuple()
    micro = datetime.fromisoformat(first["timestamp"]).microsecond
    naive = datetime(*utc[:6], micro).isoformat()
    async with resume(three[1], visitor.session_id, naive) as again:
        assert await again.receive() == second
        await again.nothing_pending()


async def test_more_than_a_page_of_answers_is_replayed(three: Cluster) -> None:
    """Several hundred answers come in order, none missing at the seams of the pages."""
    async with visit(three[0]) as visitor:
        first = await visitor.ask(unique("하나"))
        await visitor.ask(unique("둘"))
    session = visitor.session_id
    three.world.chatdb.fetch(
        'INSERT INTO "Chat" (id, session_id, is_user, content, created_at)'
        " SELECT gen_random_uuid(), $1::text::uuid, false, n::text, s.last_answer_at + n * interval '1 microsecond'"
        ' FROM generate_series(1, 450) AS n, "ChatSession" s WHERE s.session_id = $1::text::uuid',
        session,
    )
    three.world.chatdb.fetch(
        'UPDATE "ChatSession" s SET last_answer_at ='
        ' (SELECT max(created_at) FROM "Chat" c WHERE c.session_id = s.session_id) WHERE session_id = $1::text::uuid',
        session,
    )
    async with resume(three[1], session, first["timestamp"], max_queue=None) as again:
        frames = await receive_all(again, 451)
        assert [frame["message"] for frame in frames[1:]] == [str(n) for n in range(1, 451)]
        await again.ask(unique("계속"))


# Which sessions can be resumed


@pytest.mark.parametrize(
    "session_id",
    [
        "3f1c2f0e-5d7b-4a8e-9c55-0d1a6b2e7f90",
        "garbage",
        "0",
        "' OR 1=1 --",
        "%00",
        "00000000-0000-0000-0000-000000000000",
        "가" * 100,
    ],
)
async def test_an_unknown_session_gives_a_new_one(three: Cluster, session_id: str) -> None:
    """The first frame says that the session was not resumed, and the new one works."""
    query = f"session_id={session_id if session_id == '%00' else quote(session_id)}&since=2020-01-01T00:00:00Z"
    async with visit(three[0], query=query) as visitor:
        assert visitor.hello == {"session_id": visitor.session_id, "resumed": False}
        assert visitor.session_id != session_id
        await visitor.ask(unique("새로"))


async def test_an_empty_session_id_is_as_good_as_none(three: Cluster) -> None:
    """A page that has no session yet and says so gets a new one."""
    async with visit(three[0], query="session_id=&since=") as visitor:
        assert visitor.hello["session_id"] == visitor.session_id
        assert visitor.hello.get("resumed", False) is False


async def test_a_session_that_ended_longer_ago_than_the_window_gives_a_new_one(three: Cluster) -> None:
    """Just inside the 24 hours it goes on, just outside it does not."""
    async with visit(three[0]) as visitor:
        await visitor.ask(unique("어제"))
    chatdb = three.world.chatdb
    await become(lambda: holder_of(chatdb, visitor.session_id) is None)
    ended = 'UPDATE "ChatSession" SET ended_at = now() - $2::text::interval WHERE session_id = $1::text::uuid'
    chatdb.fetch(ended, visitor.session_id, "24 hours 1 second")
    async with visit(three[1], query=f"session_id={visitor.session_id}") as new:
        assert new.hello == {"session_id": new.session_id, "resumed": False}
        assert new.session_id != visitor.session_id
    chatdb.fetch(ended, visitor.session_id, "23 hours 59 minutes")
    async with resume(three[1], visitor.session_id) as again:
        await again.ask(unique("오늘"))


async def test_a_session_that_is_open_for_longer_than_the_window_can_be_resumed(three: Cluster) -> None:
    """The window counts from the end, not from the beginning."""
    async with visit(three[0]) as visitor:
        three.world.chatdb.fetch(
            "UPDATE \"ChatSession\" SET created_at = now() - interval '3 days' WHERE session_id = $1::text::uuid",
            visitor.session_id,
        )
        async with resume(three[1], visitor.session_id) as again:
            await again.ask(unique("아직"))


async def test_with_no_window_an_ended_session_is_gone(three: Cluster, new_gateway: NewGateway) -> None:
    """RESUME_HOURS=0: only a session whose older socket is still open goes on."""
    gateway = new_gateway(three.world, RESUME_HOURS="0")
    async with visit(gateway) as visitor:
        await visitor.ask(unique("하나"))
    await become(lambda: holder_of(three.world.chatdb, visitor.session_id) is None)
    async with visit(gateway, query=f"session_id={visitor.session_id}") as new:
        assert new.hello["resumed"] is False
        async with resume(gateway, new.session_id) as again:
            await again.ask(unique("둘"))


# Taking over an older socket


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same instance", "another instance"])
async def test_the_older_socket_is_closed_with_4001(three: Cluster, elsewhere: bool) -> None:
    """The newer socket has the session; the older one is told, and its leaving does not end the session."""
    async with visit(three[0]) as older:
        await older.ask(unique("하나"))
        async with resume(three[1] if elsewhere else three[0], older.session_id) as newer:
            frames, code, reason = await until_closed(older.socket)
            assert (frames, code) == ([], TAKEN_OVER)
            assert reason
            await newer.ask(unique("둘"))
            for gateway in three:
                assert persona_id(gateway, older.session_id)[0] == 200
        await become(lambda: persona_id(three[2], older.session_id)[0] == 404)


async def test_two_tabs_that_fight_do_not_loop(three: Cluster) -> None:
    """A chain of ten sockets on three instances: each is closed once by the next one, the last one stays."""
    async with visit(three[0]) as first:
        chain = [first]
        opened = []
        for n in range(1, 10):
            socket = resume(three[n % 3], first.session_id)
            chain.append(await socket.__aenter__())
            opened.append(socket)
        for older in chain[:-1]:
            frames, code, _ = await until_closed(older.socket)
            assert (frames, code) == ([], TAKEN_OVER)
        await chain[-1].ask(unique("남은 하나"))
        await chain[-1].nothing_pending()
        for socket in opened:
            await socket.__aexit__(None, None, None)


async def test_of_sockets_that_resume_at_the_same_moment_one_stays(three: Cluster) -> None:
    """Twelve at once on three instances: eleven are closed with 4001, and the one that stays gets the answers."""
    for _ in range(3):
        async with visit(three[0]) as first:
            session = first.session_id
        sockets = [resume(three[n % 3], session) for n in range(12)]
        visitors = await asyncio.gather(*(socket.__aenter__() for socket in sockets))
        closing = [asyncio.create_task(until_closed(visitor.socket)) for visitor in visitors]
        await become(lambda closing=closing: sum(task.done() for task in closing) >= 11, what="eleven are closed")  # type: ignore[misc]
        assert [task.result()[1] for task in closing if task.done()] == [TAKEN_OVER] * 11
        (survivor,) = [visitor for visitor, task in zip(visitors, closing, strict=True) if not task.done()]
        message_id = await survivor.prompt(unique("누구"))
        await survivor.leave()
        index = visitors.index(survivor)
        frames: list[Frame] = []
        try:
            frames, _, _ = await closing[index]
        finally:
            await become(lambda session=session, sent=message_id: sent in prompts_of(three.world.chatdb, session))  # type: ignore[misc]
        assert all(frame["message_id"] == message_id for frame in frames)
        for socket in sockets:
            await socket.__aexit__(None, None, None)


# Answers on their way


async def test_a_running_answer_is_delivered_where_the_session_is(three: Cluster) -> None:
    """Left in mid-turn, resumed on every instance in turn: the answer comes to the last one, once."""
    message = unique("오래 걸리는 질문")
    held = Held(answer("드디어"))
    three.world.llm.on(message, held)
    async with visit(three[0]) as visitor:
        before = await visitor.ask(unique("먼저"))
        message_id = await visitor.prompt(message)
        await three.world.llm.called(query=message)
    async with resume(three[1], visitor.session_id, before["timestamp"]) as second:
        await second.nothing_pending()
        async with resume(three[2], visitor.session_id, before["timestamp"]) as third:
            await third.nothing_pending()
            held.release()
            frame = await third.receive()
            assert (frame["message_id"], frame["message"]) == (message_id, "드디어")
            await third.nothing_pending()
        assert (await until_closed(second.socket))[:2] == ([], TAKEN_OVER)


async def test_a_turn_goes_on_when_its_visitor_leaves(three: Cluster) -> None:
    """All prompts that were taken are answered and stored, and replayed in order to who comes back."""
    messages = [unique("떠나며") for _ in range(4)]
    held = Held(answer("나중에"))
    three.world.llm.on(messages[0], held)
    async with visit(three[0]) as visitor:
        before = await visitor.ask(unique("먼저"))
        ids = [await visitor.prompt(message) for message in messages]
        await three.world.llm.called(query=messages[0])
        await become(lambda: len(prompts_of(three.world.chatdb, visitor.session_id)) == 5)
    held.release()
    await become(lambda: len(answers_of(three.world.chatdb, visitor.session_id)) == 5)
    async with resume(three[1], visitor.session_id, before["timestamp"]) as again:
        frames = await receive_all(again, 4)
        assert [frame["message_id"] for frame in frames] == ids
        await again.nothing_pending()


async def test_prompts_after_a_resume_wait_for_the_answers_made_elsewhere(three: Cluster) -> None:
    """Answers come in the order of the prompts, also when two instances make them."""
    slow, quick = unique("느린 질문"), unique("빠른 질문")
    held = Held(answer("느린 답"))
    three.world.llm.on(slow, held)
    async with visit(three[0]) as visitor:
        first = await visitor.prompt(slow)
        await three.world.llm.called(query=slow)
    async with resume(three[1], visitor.session_id) as again:
        second = await again.prompt(quick)
        await become(lambda: prompts_of(three.world.chatdb, visitor.session_id) == [first, second])
        await again.nothing_pending()
        assert not three.world.llm.calls_with(query=quick)
        held.release()
        frames = await receive_all(again, 2)
        assert [frame["message_id"] for frame in frames] == [first, second]
        assert frames[0]["timestamp"] < frames[1]["timestamp"]


async def test_prompts_after_a_resume_wait_also_when_their_visitor_leaves_again(three: Cluster) -> None:
    """Answers are stored in the order of the prompts, whoever is there to see them."""
    slow, quick = unique("느린 질문"), unique("빠른 질문")
    held = Held(answer("느린 답"))
    three.world.llm.on(slow, held)
    async with visit(three[0]) as visitor:
        first = await visitor.prompt(slow)
        await three.world.llm.called(query=slow)
    async with resume(three[1], visitor.session_id) as again:
        second = await again.prompt(quick)
        await become(lambda: prompts_of(three.world.chatdb, visitor.session_id) == [first, second])
    await become(lambda: holder_of(three.world.chatdb, visitor.session_id) is None)
    async with resume(three[2], visitor.session_id) as last:
        third = await last.prompt(unique("셋째 질문"))
        await become(lambda: prompts_of(three.world.chatdb, visitor.session_id) == [first, second, third])
        await last.nothing_pending()
        assert not three.world.llm.calls_with(query=quick)
        held.release()
        frames = await receive_all(last, 3)
        assert [frame["message_id"] for frame in frames] == [first, second, third]
    stored = [row["message_id"] for row in answers_of(three.world.chatdb, visitor.session_id)]
    assert stored == [first, second, third]


async def test_prompts_wait_when_the_session_goes_back_to_where_it_was(three: Cluster) -> None:
    """Three slow turns on two instances, the visitor going to and fro: the order of the prompts is kept."""
    messages = [unique("왔다 갔다") for _ in range(4)]
    held = [Held(answer(f"답 {n}")) for n in range(4)]
    for message, reply in zip(messages, held, strict=True):
        three.world.llm.on(message, reply)
    async with visit(three[0]) as visitor:
        ids = [await visitor.prompt(messages[0])]
        await three.world.llm.called(query=messages[0])
    for n in (1, 2):
        async with resume(three[n % 2], visitor.session_id) as again:
            ids.append(await again.prompt(messages[n]))
            await become(lambda: len(prompts_of(three.world.chatdb, visitor.session_id)) == len(ids))
    for reply in reversed(held):
        reply.release()
    async with resume(three[1], visitor.session_id, "1970-01-01T00:00:00+00:00") as again:
        ids.append(await again.prompt(messages[3]))
        frames = await receive_all(again, 4)
        assert [frame["message_id"] for frame in frames] == ids
        assert [frame["message"] for frame in frames] == [f"답 {n}" for n in range(4)]


# Order


async def test_timestamps_grow_strictly_when_pushes_and_answers_cross(three: Cluster) -> None:
    """Answers made here and pushes made on two other instances at the same moments come in the order of their times.

    Nothing is missing, nothing comes twice, and what came is what the database has.
    """
    session_turns = 30
    personas = three[0].http.get("/api/chat/personas").json()["personas"]
    async with visit(three[0], max_queue=None) as visitor:

        async def log_in(n: int) -> int:
            async with three[1 + n % 2].async_http() as client:
                body = {"session_id": visitor.session_id, "persona_id": personas[n % 3]["id"]}
                return (await client.post("/api/login", json=body)).status_code

        logins = [asyncio.create_task(log_in(n)) for n in range(20)]
        frames = [await visitor.receive()]
        for _ in range(session_turns):
            message_id = await visitor.prompt(unique("엇갈림"))
            while frames[-1]["message_id"] != message_id:
                frames.append(await visitor.receive())
        assert {await login for login in logins} == {200}
        while len(frames) < session_turns + 20:
            frames.append(await visitor.receive())
        await visitor.nothing_pending()
    assert all(one["timestamp"] < two["timestamp"] for one, two in pairwise(frames))
    stored = answers_of(three.world.chatdb, visitor.session_id)
    assert [row["created_at"].isoformat(timespec="microseconds") for row in stored] == [
        frame["timestamp"] for frame in frames
    ]
    assert [row["message_id"] for row in stored] == [frame["message_id"] for frame in frames]


async def test_since_never_skips_an_answer_while_pushes_and_answers_cross(three: Cluster) -> None:
    """A visitor who is thrown from instance to instance in the middle of it all sees each answer once, in order."""
    personas = three[0].http.get("/api/chat/personas").json()["personas"]
    async with visit(three[0]) as visitor:
        frames = [await visitor.ask(unique("시작"))]
    session = visitor.session_id
    stopped = asyncio.Event()
    logins: list[int] = []

    async def log_in(n: int) -> None:
        async with three[n].async_http() as client:
            while not stopped.is_set():
                body = {"session_id": session, "persona_id": personas[n]["id"]}
                if (await client.post("/api/login", json=body)).status_code == 200:  # not 404: between two sockets
                    logins.append(n)

    working = [asyncio.create_task(log_in(n)) for n in range(3)]
    prompts = 0
    for n in range(12):
        async with resume(three[n % 3], session, frames[-1]["timestamp"], max_queue=None) as again:
            await again.prompt(unique("던져짐"))
            prompts += 1
            frames.extend([await again.receive() for _ in range(4)])
            if n == 11:
                stopped.set()
                await asyncio.gather(*working)
                while len(frames) < 1 + prompts + len(logins):
                    frames.append(await again.receive())
                await again.nothing_pending()
    assert all(one["timestamp"] < two["timestamp"] for one, two in pairwise(frames))
    stored = answers_of(three.world.chatdb, session)
    assert [row["message_id"] for row in stored] == [frame["message_id"] for frame in frames]
