"""Going on with a session: on any instance, without missing or repeating an answer."""

import asyncio
from datetime import datetime, timedelta
from urllib.parse import quote

import pytest

from tests.support.backends import tool_answer
from tests.support.chat import Frame, visit
from tests.support.cluster import Cluster, holder_of, persona_id, prompts_of, receive_all, resume, until_closed
from tests.support.keys import key_of, protocols
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
    async with visit(three[place], query=query, subprotocols=protocols(key_of(visitor.session_id))) as again:
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
        assert visitor.hello == {"session_id": visitor.session_id, "key": visitor.key, "resumed": False}
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
    asked = {"query": f"session_id={visitor.session_id}", "subprotocols": protocols(key_of(visitor.session_id))}
    async with visit(three[1], **asked) as new:
        assert new.hello == {"session_id": new.session_id, "key": new.key, "resumed": False}
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
    asked = {"query": f"session_id={visitor.session_id}", "subprotocols": protocols(key_of(visitor.session_id))}
    async with visit(gateway, **asked) as new:
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
