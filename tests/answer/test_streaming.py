"""Answers that are shown while they are being made, and stopped."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.backends import Held, Stream, answer, event
from tests.support.chat import Frame, Visitor, visit
from tests.support.cluster import Cluster, answers_of
from tests.support.gateway import Gateway
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

TEXT = "도담카드는 연회비가 없습니다. 😀 커피 10% 할인."
STOPPED = "답변이 중지되었습니다."


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def three(world: World) -> Any:
    with Cluster(world, 3) as cluster:
        yield cluster


@pytest.fixture
async def watcher(three: Cluster) -> AsyncIterator[Visitor]:
    async with visit(three[0], query="stream=true") as visitor:
        yield visitor


def pieces(text: str = TEXT, pause: float = 0.02) -> list[bytes | float]:
    """A stream of one event for each character, and the last object."""
    out: list[bytes | float] = []
    for character in text:
        out += [event({"delta": character}), pause]
    return [*out, event({"answer": text, "tool_response": None})]


class Reader:
    """What a front end has of the answers: the text of each by the rule of attempts and offsets."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.frames: list[Frame] = []
        self.attempt = 0
        self.text = b""

    async def next(self) -> Frame:
        frame = await self.visitor.receive()
        self.frames.append(frame)
        if frame.get("attempt", 0) > self.attempt:
            self.attempt, self.text = frame["attempt"], b""
        if frame.get("type") == "delta" and frame["attempt"] == self.attempt and 2 * frame["offset"] <= len(self.text):
            self.text = self.text[: 2 * frame["offset"]] + frame["text"].encode("utf-16-le")
        return frame

    async def until_answer(self) -> Frame:
        while "sender" not in (frame := await self.next()):
            pass
        return frame

    async def until_text(self) -> str:
        while not self.text:
            await self.next()
        return self.text.decode("utf-16-le")


async def test_an_answer_grows_by_start_deltas_and_ends_with_the_answer(world: World, watcher: Visitor) -> None:
    text = unique("질문")
    world.llm.on(text, Stream([event({"tool_name": "query_faq_database"}), *pieces()]))
    assert watcher.hello["stream"] is True
    message_id = await watcher.prompt(text)
    reader = Reader(watcher)
    frame = await reader.until_answer()
    kinds = [one.get("type") for one in reader.frames]
    assert kinds[0] == "start"
    assert reader.frames[0] == {"type": "start", "message_id": message_id, "attempt": 1}
    assert {"type": "tool", "message_id": message_id, "attempt": 1, "tool_name": "query_faq_database"} in reader.frames
    assert kinds.count("delta") > 3
    assert TEXT.startswith(reader.text.decode("utf-16-le"))
    assert frame["message"] == TEXT
    await watcher.nothing_pending()


async def test_who_has_not_opted_in_sees_the_answer_alone(world: World, three: Cluster) -> None:
    text = unique("질문")
    world.llm.on(text, Stream(pieces()))
    async with visit(three[0]) as visitor:
        assert "stream" not in visitor.hello
        assert (await visitor.ask(text))["message"] == TEXT


async def test_a_reply_that_is_no_stream_has_a_start_and_the_answer(world: World, watcher: Visitor) -> None:
    message_id = await watcher.prompt(unique("질문"))
    assert await watcher.receive() == {"type": "start", "message_id": message_id, "attempt": 1}
    assert (await watcher.receive())["sender"] == "bot"


async def test_a_stop_keeps_what_was_made(world: World, watcher: Visitor) -> None:
    text = unique("질문")
    world.llm.on(text, Stream([event({"delta": "반쯤 "}), event({"delta": "된 답"})], then="hang"))
    message_id = await watcher.prompt(text)
    reader = Reader(watcher)
    while reader.text.decode("utf-16-le") != "반쯤 된 답":
        await reader.next()
    await watcher.send({"type": "stop", "message_id": message_id})
    frame = await reader.until_answer()
    assert frame["message"] == "반쯤 된 답"
    assert frame["stopped"] is True
    assert "tool_name" not in frame
    await become(lambda: world.llm.calls_with(query=text)[0].abandoned)
    history = watcher.gateway.http.get(f"/api/chat/history/{watcher.session_id}").json()["history"]
    assert history[-1]["stopped"] is True
    await watcher.send({"type": "stop", "message_id": message_id})
    await watcher.nothing_pending()


async def test_a_stop_before_anything_was_made_says_so(world: World, watcher: Visitor) -> None:
    text, waiting = unique("질문"), unique("둘째")
    world.llm.on(text, Stream([event({"delta": "  \n"})], then="hang"))
    first = await watcher.prompt(text)
    await world.llm.called(query=text)
    second = await watcher.prompt(waiting)
    third = await watcher.prompt(unique("셋째"))
    await watcher.send({"type": "stop", "message_id": second})
    await watcher.send({"type": "stop", "message_id": first})
    reader = Reader(watcher)
    frames = [await reader.until_answer() for _ in range(3)]
    assert [frame["message_id"] for frame in frames] == [first, second, third]
    assert [frame["message"] for frame in frames[:2]] == [STOPPED, STOPPED]
    assert [frame.get("stopped") for frame in frames] == [True, True, None]
    assert not world.llm.calls_with(query=waiting)


async def resumed(gateway: Gateway, session_id: str) -> Any:
    return visit(gateway, query=urlencode({"session_id": session_id, "stream": "true"}))


async def test_a_session_that_is_resumed_elsewhere_sees_its_answer_grow_there(world: World, three: Cluster) -> None:
    text = unique("질문")
    whole = TEXT * 4
    world.llm.on(text, Stream(pieces(whole)))
    async with visit(three[0], query="stream=true") as visitor:
        message_id = await visitor.prompt(text)
        await Reader(visitor).until_text()
    async with await resumed(three[1], visitor.session_id) as again:
        assert again.hello == {"session_id": visitor.session_id, "resumed": True, "stream": True}
        reader = Reader(again)
        seen = await reader.until_text()
        assert whole.startswith(seen)
        assert reader.frames[0] == {"type": "start", "message_id": message_id, "attempt": 1}
        frame = await reader.until_answer()
        assert frame["message"] == whole
        assert sum(one.get("type") == "delta" for one in reader.frames) > 2
        await again.nothing_pending()


async def test_a_session_that_is_resumed_here_sees_its_answer_from_the_start(world: World, three: Cluster) -> None:
    text = unique("질문")
    world.llm.on(text, Stream(pieces(TEXT * 2)))
    async with visit(three[0], query="stream=true") as visitor:
        await visitor.prompt(text)
        await Reader(visitor).until_text()
    async with await resumed(three[0], visitor.session_id) as again:
        reader = Reader(again)
        frame = await reader.until_answer()
        assert reader.frames[0]["type"] == "start"
        assert next(one for one in reader.frames if one.get("type") == "delta")["offset"] == 0
        assert frame["message"] == TEXT * 2


async def test_a_stop_reaches_the_instance_that_makes_the_answer(world: World, three: Cluster) -> None:
    text = unique("질문")
    world.llm.on(text, Stream([event({"delta": "여기까지"})], then="hang"))
    async with visit(three[0], query="stream=true") as visitor:
        message_id = await visitor.prompt(text)
        await Reader(visitor).until_text()
    async with await resumed(three[2], visitor.session_id) as again:
        await again.send({"type": "stop", "message_id": message_id})
        frame = await Reader(again).until_answer()
        assert (frame["message"], frame["stopped"]) == ("여기까지", True)
    assert [row["content"] for row in answers_of(world.chatdb, visitor.session_id)] == ["여기까지"]


async def test_the_next_attempt_of_another_instance_begins_anew(new_world: NewWorld) -> None:
    own = new_world()
    text = unique("질문")
    with Cluster(own, 2) as two:
        own.llm.on(text, Stream([event({"delta": "처음 것"})], then="hang"))
        async with visit(two[0], query="stream=true") as visitor:
            await visitor.prompt(text)
            await Reader(visitor).until_text()
            held = Held(Stream(pieces("새로 만든 답")))
            own.llm.on(text, held)
            two[0].kill()
        async with await resumed(two[1], visitor.session_id) as again:
            reader = Reader(again)
            held.release()
            frame = await reader.until_answer()
            assert frame["message"] == "새로 만든 답"
            assert max(one.get("attempt", 0) for one in reader.frames) == 2
            assert "새로 만든 답".startswith(reader.text.decode("utf-16-le"))


async def test_a_stopped_prompt_is_not_asked_again_by_who_takes_it_over(new_world: NewWorld) -> None:
    own = new_world()
    text = unique("질문")
    with Cluster(own, 2) as two:
        own.llm.on(text, Held(answer("늦은 답")))
        async with visit(two[0], query="stream=true") as visitor:
            message_id = await visitor.prompt(text)
            await own.llm.called(query=text)
        own.chatdb.execute('UPDATE "Turn" SET is_stopped = true')
        two[0].kill()
        await become(lambda: [row["content"] for row in answers_of(own.chatdb, visitor.session_id)] == [STOPPED])
        assert len(own.llm.calls_with(query=text)) == 1
        assert message_id
