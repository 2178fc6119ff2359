"""A stop ends a turn, and what had been made is its answer."""

import asyncio
import time
from collections.abc import Iterator
from statistics import median

import pytest

from tests.support.backends import Drip, Held, Reply, Stream, answer
from tests.support.card_qna import FAQS
from tests.support.chat import PLAIN_ANSWER, new_id, visit
from tests.support.cluster import Cluster, answers_of, prompts_of, resume
from tests.support.gateway import Gateway
from tests.support.network import TcpProxy
from tests.support.streams import STOPPED, Reader, Tap, delta, pieces, watching
from tests.support.waiting import become
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio

CLOSED_SECONDS = 0.5  # it takes some milliseconds


async def ask(world: World, reader: Reader, reply: Reply) -> tuple[str, str]:
    """A prompt that has reached the LLM server: its id and its text."""
    text = unique("질문")
    world.llm.on(text, reply)
    message_id = await reader.visitor.prompt(text)
    await world.llm.called(query=text)
    return message_id, text


async def stop(reader: Reader, message_id: str) -> None:
    """Stop a prompt."""
    await reader.visitor.send({"type": "stop", "message_id": message_id})


async def test_what_was_shown_is_kept_and_marked_everywhere(world: World, three: Cluster, reader: Reader) -> None:
    """In the frame, in the history, in the database, and when it is sent again."""
    tap = Tap()
    tap.send(delta("  반쯤 "), delta("된 답 "))
    message_id, _ = await ask(world, reader, tap)
    shown = await reader.until_text("  반쯤 된 답 ")
    await stop(reader, message_id)
    frame = await reader.until_answer()
    assert (frame["message"], frame["stopped"], frame["login_required"]) == (shown, True, False)
    assert frame.keys() == {*PLAIN_ANSWER, "stopped"}
    await tap.abandoned()
    (row,) = world.turns(reader.visitor.session_id)
    assert (row["answer"], row["source_tool"]) == (shown, None)
    assert row["response_payload"] == {"login_required": False, "stopped": True}
    assert reader.visitor.history()[-1]["stopped"] is True
    async with resume(three[1], reader.visitor.session_id, since="1970-01-01T00:00:00+00:00") as again:
        assert await again.receive() == frame


async def test_the_connection_to_the_llm_server_is_closed_soon(world: World, reader: Reader) -> None:
    """A stream's, and that of a call that has not been answered yet."""
    took = []
    for n in range(10):
        tap = Tap()
        if n % 2:
            tap.send(delta("가"))
        message_id, _ = await ask(world, reader, tap)
        if n % 2:
            await reader.until_text("가", message_id)
        since = time.monotonic()
        await stop(reader, message_id)
        await tap.abandoned()
        took.append(tap.seen[0].abandoned_at - since)
        await reader.until_answer()
    print(f"closed after {1000 * median(took):.1f} ms, {1000 * max(took):.1f} ms at most")
    assert max(took) < CLOSED_SECONDS


@pytest.mark.parametrize("made", ["", "  \n\t", "\u3000 "])
async def test_where_nothing_had_been_made_it_says_so(world: World, reader: Reader, made: str) -> None:
    """Nothing but white space is nothing."""
    tap = Tap()
    tap.send(delta(made))
    message_id, _ = await ask(world, reader, tap)
    if made:
        await reader.until_text(made)
    await stop(reader, message_id)
    frame = await reader.until_answer()
    assert (frame["message"], frame["stopped"]) == (STOPPED, True)


@pytest.mark.parametrize("reply", [Held(answer("늦은 답")), Drip()])
async def test_a_reply_that_is_no_stream_is_cut_too(world: World, reader: Reader, reply: Reply) -> None:
    """Whether it has begun or not."""
    message_id, text = await ask(world, reader, reply)
    await stop(reader, message_id)
    assert (await reader.until_answer())["message"] == STOPPED
    await become(lambda: world.llm.calls_with(query=text)[0].abandoned)


async def test_waiting_prompts_are_answered_in_their_turn_without_asking(world: World, reader: Reader) -> None:
    """The prompts behind go on, and one that would be answered from memory is stopped too."""
    tap = Tap()
    first, _ = await ask(world, reader, tap)
    waiting = unique("둘째")
    second = await reader.visitor.prompt(waiting)
    third = await reader.visitor.prompt(FAQS[0].question)
    fourth = await reader.visitor.prompt(unique("넷째"))
    await stop(reader, third)
    await stop(reader, second)
    await reader.visitor.send("no JSON")
    await reader.until(lambda: reader.frames[-1:] == [{"error": "Invalid JSON format"}])
    assert not reader.answers
    await stop(reader, first)
    for _ in range(4):
        await reader.until_answer()
    assert list(reader.answers) == [first, second, third, fourth]
    assert [frame["message"] for frame in reader.answers.values()][:3] == [STOPPED] * 3
    assert [frame.get("stopped") for frame in reader.answers.values()] == [True, True, True, None]
    assert not world.llm.calls_with(query=waiting)
    assert [frame["message_id"] for frame in reader.of_type("start")] == [first, fourth]


async def test_a_stop_may_come_with_its_prompt(world: World, reader: Reader) -> None:
    """At once behind it, before it is stored: it is stopped, and stored as every prompt."""
    for _ in range(30):
        text, message_id = unique("질문"), new_id()
        world.llm.on(text, Stream([delta("가"), 0.02, *pieces("나다")]))
        sending = reader.visitor.prompt(text, message_id), stop(reader, message_id)
        await asyncio.gather(*sending)
        frame = await reader.until_answer()
        assert (frame["message_id"], frame["stopped"]) == (message_id, True)
    session_id = reader.visitor.session_id
    assert len(prompts_of(world.chatdb, session_id)) == len(answers_of(world.chatdb, session_id)) == 30
    assert not world.chatdb.fetch('SELECT FROM "Turn" WHERE session_id::text = $1', session_id)


async def test_stop_and_end_at_the_same_moment_make_one_answer(world: World, three: Cluster) -> None:
    """A hundred times: what is sent is what is stored, and it is either of the two."""

    async def one(n: int) -> None:
        async with watching(three[n % 3]) as reader:
            for _ in range(10):
                tap = Tap()
                tap.send(delta("반"))
                message_id, _ = await ask(world, reader, tap)
                await reader.until_text("반", message_id)
                tap.end("반과 반")
                await stop(reader, message_id)
                frame = await reader.until_answer()
                assert frame["message"] == ("반" if "stopped" in frame else "반과 반")
                stored = [row["content"] for row in answers_of(world.chatdb, reader.visitor.session_id)]
                assert stored == [sent["message"] for sent in reader.answers.values()]
            await reader.visitor.nothing_pending()

    await asyncio.gather(*(one(n) for n in range(10)))


async def test_stops_of_what_is_answered_or_unknown_do_nothing(world: World, reader: Reader) -> None:
    """Nor does the second stop of a prompt; none is an error."""
    answered = await reader.visitor.prompt(unique("질문"))
    frame = await reader.until_answer()
    tap = Tap()
    tap.send(delta("반"))
    stopped, _ = await ask(world, reader, tap)
    await reader.until_text("반", stopped)
    for message_id in (answered, new_id(), stopped, stopped):
        await stop(reader, message_id)
    assert (await reader.until_answer())["message_id"] == stopped
    for message_id in (answered, stopped):
        await stop(reader, message_id)
    await reader.visitor.nothing_pending()
    history = [entry["content"] for entry in reader.visitor.history() if not entry["is_user"]]
    assert history == [frame["message"], "반"]


@pytest.mark.parametrize("place", [0, 1])
async def test_another_sessions_stop_does_nothing(world: World, three: Cluster, reader: Reader, place: int) -> None:
    """On the same instance and on another one."""
    tap = Tap()
    tap.send(delta("반"))
    message_id, _ = await ask(world, reader, tap)
    async with watching(three[place]) as stranger:
        await stop(stranger, message_id)
        await stranger.visitor.prompt(unique("질문"))
        await stranger.until_answer()
        assert list(stranger.answers) != [message_id]
    tap.end("반과 반")
    assert (await reader.until_answer())["message"] == "반과 반"
    assert not world.chatdb.value('SELECT count(*) FROM "Turn" WHERE prompt_id::text = $1', message_id)


async def test_who_has_not_opted_in_sees_that_it_was_stopped(world: World, three: Cluster, reader: Reader) -> None:
    """`stopped` is a key of the answer, which every socket sees."""
    text, tap = unique("질문"), Tap()
    world.llm.on(text, tap)
    async with visit(three[0]) as plain:
        message_id = await plain.prompt(text)
        await world.llm.called(query=text)
        tap.send(delta("반"))
        async with watching(three[1], plain.session_id) as again:
            await again.until_text("반", message_id)
            await stop(again, message_id)
            async with resume(three[2], plain.session_id, since="1970-01-01T00:00:00+00:00") as third:
                frame = await third.receive()
    assert (frame["message"], frame["stopped"]) == ("반", True)


@pytest.fixture
def cuttable(world: World) -> Iterator[tuple[Gateway, TcpProxy]]:
    """A gateway whose way to the database can be cut."""
    with TcpProxy(world.chatdb.server.port) as proxy:
        settings = {"DATABASE_URL": world.chatdb.url_at(proxy.port), "DB_TIMEOUT": "1"}
        with Gateway(world.settings | settings) as gateway:
            yield gateway, proxy


async def test_a_stop_while_the_database_is_away(world: World, cuttable: tuple[Gateway, TcpProxy]) -> None:
    """It is told so, the LLM server is let go all the same, and what was made is the answer, stored when it can be."""
    gateway, proxy = cuttable
    tap = Tap()
    tap.send(delta("반"))
    async with watching(gateway) as reader:
        message_id, _ = await ask(world, reader, tap)
        await reader.until_text("반", message_id)
        proxy.cut()
        await stop(reader, message_id)
        await tap.abandoned()
        frame = await reader.until_answer()
        error = {"error": "Internal Server Error: DB operation failed", "message_id": message_id}
        await reader.until(lambda: error in reader.frames)
        assert (frame["message"], frame["stopped"]) == ("반", True)
        proxy.mend()
        session_id = reader.visitor.session_id
        await become(lambda: [row["content"] for row in answers_of(world.chatdb, session_id)] == ["반"])
        await reader.visitor.nothing_pending()


async def test_stops_work_while_an_instance_drains(world: World) -> None:
    """Prompts are refused then, stops are not: it ends the sooner."""
    with Gateway(world.settings) as gateway:
        async with watching(gateway) as reader:
            tap = Tap()
            tap.send(delta("반"))
            message_id, _ = await ask(world, reader, tap)
            await reader.until_text("반", message_id)
            gateway.process.send_signal(15)
            await become(lambda: "stopping" in gateway.output())
            await reader.visitor.prompt(unique("질문"))
            assert (await reader.next())["error"] == "Server is restarting"
            tap.send(delta("쯤"))
            await reader.until_text("반쯤")
            await stop(reader, message_id)
            assert (await reader.until_answer())["message"] == "반쯤"
            await reader.visitor.socket.wait_closed()
            assert reader.visitor.socket.close_code == 1012
        gateway.wait()
