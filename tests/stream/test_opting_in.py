"""Who sees an answer grow, and whose stops are stops."""

import pytest

from tests.support.backends import Stream
from tests.support.chat import new_id, visit
from tests.support.cluster import Cluster, resume, until_closed
from tests.support.streams import STOPPED, TEXT, Reader, Tap, delta, pieces, watching
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("query", ["stream=true", "stream=1"])
async def test_who_opts_in_is_told_so_and_sees_the_start(three: Cluster, query: str) -> None:
    """Both ways to say it are understood."""
    async with visit(three[0], query=query) as visitor:
        assert visitor.hello["stream"] is True
        message_id = await visitor.prompt(unique("질문"))
        assert await visitor.receive() == {"type": "start", "message_id": message_id, "attempt": 1}


@pytest.mark.parametrize("query", ["", "stream=false", "stream=0", "stream=yes", "stream=TRUE", "stream=", "streams=1"])
async def test_nothing_else_opts_in(world: World, three: Cluster, query: str) -> None:
    """Who has not sees the answer alone, and `type` is a key like any other to it: a stop is a prompt."""
    text = unique("질문")
    world.llm.on(text, Stream([delta("카드"), 0.1, *pieces(pause=0)]))
    async with visit(three[0], query=query) as visitor:
        assert "stream" not in visitor.hello
        assert (await visitor.ask(text, type="stop"))["message"] == TEXT
        await visitor.send({"type": "stop", "message_id": new_id()})
        assert (await visitor.receive())["error"] == "Invalid message: message is missing"


async def test_each_socket_of_a_session_opts_in_for_itself(world: World, three: Cluster) -> None:
    """One that comes back without it sees the answer alone, with `stopped`; the next one with it sees all."""
    text, tap = unique("질문"), Tap()
    world.llm.on(text, tap)
    async with watching(three[0]) as first:
        await first.visitor.prompt(text)
        tap.send(delta("카드를 "))
        await first.until_text("카드를 ")
        session_id = first.visitor.session_id
    async with resume(three[0], session_id) as plain:
        tap.send(delta("고르는 "))
        await plain.nothing_pending()
    async with watching(three[0], session_id) as again:
        await again.until_text("카드를 고르는 ")
        message_id = again.frames[0]["message_id"]
        assert again.of_type("delta")[0]["offset"] == 0
        await again.visitor.send({"type": "stop", "message_id": message_id})
        frame = await again.until_answer()
    async with resume(three[0], session_id, since="1970-01-01T00:00:00+00:00") as plain:
        assert await plain.receive() == frame
        assert frame["stopped"] is True


async def test_who_asks_for_a_session_that_there_is_not_has_opted_in_too(three: Cluster) -> None:
    """The new one that is given in its place begins with the same words."""
    async with visit(three[0], query=f"session_id={new_id()}&stream=1") as visitor:
        assert (visitor.hello["resumed"], visitor.hello["stream"]) == (False, True)


async def test_another_type_is_ignored_like_any_key(reader: Reader) -> None:
    """Also on a socket that has opted in, and whatever its value."""
    for kind in ("foo", "Stop", None, ["stop"], {"stop": 1}, 5):
        text = unique("질문")
        message_id = await reader.visitor.prompt(text, type=kind)
        frame = await reader.until_answer()
        assert (frame["message_id"], frame["message"]) == (message_id, f"re: {text}")


async def test_a_stop_is_a_stop_even_beside_a_message(world: World, reader: Reader) -> None:
    """Its message is not asked."""
    text, other, tap = unique("질문"), unique("다른 질문"), Tap()
    world.llm.on(text, tap)
    message_id = await reader.visitor.prompt(text)
    await world.llm.called(query=text)
    await reader.visitor.prompt(other, message_id, type="stop")
    assert (await reader.until_answer())["message"] == STOPPED
    await reader.visitor.prompt(other, type="stop")
    await reader.visitor.nothing_pending()
    assert not world.llm.calls_with(query=other)


@pytest.mark.parametrize(
    ("message_id", "problem"), [(None, "must be a UUID"), ("x", "must be a UUID"), (..., "is missing")]
)
async def test_a_stop_without_a_uuid_is_answered_as_a_message_without_one(
    reader: Reader, message_id: object, problem: str
) -> None:
    """With the same error."""
    more = {} if message_id is ... else {"message_id": message_id}
    await reader.visitor.send({"type": "stop"} | more)
    assert await reader.next() == {"error": f"Invalid message: message_id {problem}"}


async def test_stops_do_not_count_as_prompts(reader: Reader) -> None:
    """More of them than prompts are allowed in a minute, and three times as many: prompts are answered as before."""
    for _ in range(190):
        await reader.visitor.send({"type": "stop", "message_id": new_id()})
    await reader.visitor.nothing_pending()
    await reader.visitor.prompt(unique("질문"))
    assert "message" in await reader.until_answer()


async def test_a_flood_of_stops_is_closed(three: Cluster) -> None:
    """Stops count as frames."""
    async with watching(three[0]) as reader:
        for _ in range(1300):
            await reader.visitor.send({"type": "stop", "message_id": new_id()})
        frames, code, _ = await until_closed(reader.visitor.socket)
        assert (frames, code) == ([], 1008)
