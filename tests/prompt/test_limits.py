"""Limits of frames and prompts, each at its edge and one beyond. What is refused costs neither database nor LLM."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.backends import Held, answer
from tests.support.chat import Visitor, new_id, visit
from tests.support.cluster import prompts_of, receive_all, resume, until_closed
from tests.support.gateway import Gateway
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

FRAME_BYTES, CHARS, PENDING, PER_MINUTE = 4096, 1000, 3, 10
SETTINGS = {
    "MAX_FRAME_BYTES": str(FRAME_BYTES),
    "MAX_PROMPT_CHARS": str(CHARS),
    "MAX_PENDING_PROMPTS": str(PENDING),
    "PROMPTS_PER_MINUTE": str(PER_MINUTE),
}
TOO_BIG, POLICY = 1009, 1008


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def python(world: World) -> Iterator[Gateway]:
    """`python gateway.py` with small limits."""
    with Gateway(world.settings | SETTINGS, start="python") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def uvicorn(world: World) -> Iterator[Gateway]:
    """`uvicorn gateway:app` with small limits."""
    with Gateway(world.settings | SETTINGS) as gateway:
        yield gateway


def frame_of(size: int, message: str) -> str:
    """A good frame of so many bytes, filled with a key that is ignored."""
    frame = {"message_id": new_id(), "message": message, "extra": ""}
    missing = size - len(json.dumps(frame, ensure_ascii=False).encode())
    frame["extra"] = "가" * (missing // 3) + "x" * (missing % 3)
    text = json.dumps(frame, ensure_ascii=False)
    assert len(text.encode()) == size
    return text


async def goes_on(visitor: Visitor) -> None:
    assert (await visitor.ask(unique("계속")))["sender"] == "bot"


async def test_a_frame_of_the_largest_size_is_taken(python: Gateway, uvicorn: Gateway) -> None:
    """In bytes, not in characters, however the gateway was started."""
    for gateway in (python, uvicorn):
        async with visit(gateway) as visitor:
            await visitor.send(frame_of(FRAME_BYTES, unique("가장 큰")))
            assert (await visitor.receive())["sender"] == "bot"
            await goes_on(visitor)


async def test_a_frame_beyond_it_closes_the_socket_with_1009(python: Gateway, world: World) -> None:
    """`python gateway.py`: one byte more."""
    message = unique("zu groß")
    async with visit(python) as visitor:
        await visitor.send(frame_of(FRAME_BYTES + 1, message))
        frames, code, _ = await until_closed(visitor.socket)
        assert (frames, code) == ([], TOO_BIG)
    assert not world.llm.calls_with(query=message)
    assert prompts_of(world.chatdb, visitor.session_id) == []


async def test_a_frame_beyond_it_is_an_error_under_plain_uvicorn(uvicorn: Gateway, world: World) -> None:
    """`uvicorn gateway:app`, which has its own limit: one byte more is an invalid message, and the session goes on."""
    message = unique("zu groß")
    async with visit(uvicorn) as visitor:
        for text in (frame_of(FRAME_BYTES + 1, message), "가" * FRAME_BYTES, "x" * 1_000_000):
            await visitor.send(text)
            frame = await visitor.receive()
            assert list(frame) == ["error"]
            assert frame["error"].startswith("Invalid message: ")
        await goes_on(visitor)
    assert not world.llm.calls_with(query=message)
    assert len(prompts_of(world.chatdb, visitor.session_id)) == 1


@pytest.mark.parametrize("character", ["x", "가", "😀", "é"])
async def test_a_prompt_of_the_most_characters_is_taken_and_one_more_is_not(
    uvicorn: Gateway, world: World, character: str
) -> None:
    """In characters, not in bytes; the error names the field and carries the id."""
    async with visit(uvicorn) as visitor:
        prompt = character * CHARS
        message_id = await visitor.prompt(prompt)
        if len(json.dumps({"message_id": message_id, "message": prompt}, ensure_ascii=False).encode()) <= FRAME_BYTES:
            assert (await visitor.receive())["message"] == f"re: {prompt}"
        else:
            assert (await visitor.receive())["error"].startswith("Invalid message: ")
        longer = character * (CHARS + 1)
        message_id = await visitor.prompt(longer)
        frame = await visitor.receive()
        assert frame["error"].startswith("Invalid message: ")
        assert frame.get("message_id", message_id) == message_id
        assert not world.llm.calls_with(query=longer)
        assert message_id not in prompts_of(world.chatdb, visitor.session_id)


async def test_the_usual_limit_of_a_prompt_is_4000_characters(default_gateway: Gateway) -> None:
    """The default, at its edge and beyond."""
    async with visit(default_gateway) as visitor:
        assert (await visitor.ask("가" * 4000))["message"] == "re: " + "가" * 4000
        frame = await visitor.ask("가" * 4001)
        assert frame["error"].startswith("Invalid message: message ")
        await goes_on(visitor)


async def test_so_many_prompts_may_wait_and_one_more_is_refused(uvicorn: Gateway, world: World) -> None:
    """One running and three waiting; when one is answered, one more may wait."""
    await fill(uvicorn, world, PENDING)


async def test_the_usual_limit_is_eight_waiting_prompts(default_gateway: Gateway, default_world: World) -> None:
    """The default, at its edge and beyond."""
    await fill(default_gateway, default_world, 8)


async def fill(gateway: Gateway, world: World, pending: int) -> None:
    message, next_one, refused = unique("느린 질문"), unique("다음 질문"), unique("하나 더")
    held, then = Held(answer("느린 답")), Held(answer("다음 답"))
    world.llm.on(message, held)
    world.llm.on(next_one, then)
    async with visit(gateway) as visitor:
        ids = [await visitor.prompt(message), await visitor.prompt(next_one)]
        ids += [await visitor.prompt(unique("wartet")) for _ in range(pending - 1)]
        await world.llm.called(query=message)
        await become(lambda: prompts_of(world.chatdb, visitor.session_id) == ids)
        refused_id = await visitor.prompt(refused)
        assert await visitor.receive() == {"error": "Too many pending messages", "message_id": refused_id}
        await visitor.prompt(message, ids[0])  # sent again, it is not one more
        await visitor.nothing_pending()
        held.release()
        assert (await visitor.receive())["message_id"] == ids[0]
        await world.llm.called(query=next_one)
        ids.append(await visitor.prompt(unique("passt wieder")))
        then.release()
        assert [frame["message_id"] for frame in await receive_all(visitor, pending + 1)] == ids[1:]
        assert prompts_of(world.chatdb, visitor.session_id) == ids
    assert not world.llm.calls_with(query=refused)


async def test_leaving_and_coming_back_does_not_make_room(uvicorn: Gateway, world: World) -> None:
    """The limit is the session's: a visitor who reconnects cannot pile up work."""
    message = unique("느린 질문")
    held = Held(answer("느린 답"))
    world.llm.on(message, held)
    async with visit(uvicorn) as visitor:
        ids = [await visitor.prompt(message)]
        ids += [await visitor.prompt(unique("wartet")) for _ in range(PENDING)]
        await become(lambda: prompts_of(world.chatdb, visitor.session_id) == ids)
    async with resume(uvicorn, visitor.session_id) as again:
        refused_id = await again.prompt(unique("하나 더"))
        assert await again.receive() == {"error": "Too many pending messages", "message_id": refused_id}
        held.release()
        assert [frame["message_id"] for frame in await receive_all(again, PENDING + 1)] == ids


async def use_up(visitor: Visitor) -> None:
    """All prompts of a minute."""
    for _ in range(PER_MINUTE):
        await goes_on(visitor)


async def test_so_many_prompts_a_minute_and_one_more_is_refused(uvicorn: Gateway, world: World) -> None:
    """What is beyond it is refused with its id, stored and asked nowhere; the session stays open."""
    async with visit(uvicorn) as visitor:
        await use_up(visitor)
        refused = unique("zu viel")
        for _ in range(PER_MINUTE):
            refused_id = await visitor.prompt(refused)
            assert await visitor.receive() == {"error": "Too many messages", "message_id": refused_id}
        await visitor.nothing_pending()
        assert len(prompts_of(world.chatdb, visitor.session_id)) == PER_MINUTE
    assert not world.llm.calls_with(query=refused)


async def test_three_times_as_many_close_the_socket_with_1008(uvicorn: Gateway, world: World) -> None:
    """Who does not listen to the refusals is closed; another session is not affected."""
    async with visit(uvicorn) as visitor, visit(uvicorn) as other:
        await use_up(visitor)
        refused = unique("viel zu viel")
        for _ in range(2 * PER_MINUTE - 1):
            await visitor.prompt(refused)
            assert (await visitor.receive())["error"] == "Too many messages"
        for _ in range(2):
            await visitor.prompt(refused)
        frames, code, reason = await until_closed(visitor.socket)
        assert {frame["error"] for frame in frames} <= {"Too many messages"}
        assert (code, bool(reason)) == (POLICY, True)
        await goes_on(other)
    assert len(prompts_of(world.chatdb, visitor.session_id)) == PER_MINUTE
    assert not world.llm.calls_with(query=refused)


async def test_a_new_socket_does_not_bring_new_prompts(uvicorn: Gateway) -> None:
    """The limit is the session's: coming back on a new socket within the minute does not reset it."""
    async with visit(uvicorn) as visitor:
        await use_up(visitor)
    async with resume(uvicorn, visitor.session_id) as again:
        refused_id = await again.prompt(unique("나 또 왔어요"))
        assert await again.receive() == {"error": "Too many messages", "message_id": refused_id}


@pytest.mark.parametrize("frame", ["no JSON", {"message": "without id"}, {"message_id": new_id(), "message": " "}])
async def test_invalid_frames_do_not_use_up_prompts(uvicorn: Gateway, frame: Any) -> None:
    """What is no prompt is answered, and not counted as one."""
    async with visit(uvicorn) as visitor:
        for _ in range(2 * PER_MINUTE):
            await visitor.send(frame)
            assert "error" in await visitor.receive()
        await goes_on(visitor)


async def test_large_frames_are_taken_slowly_and_cost_nobody_the_connection(default_gateway: Gateway) -> None:
    """Ten of 64 KB a second, however many are sent at once: an ordinary visitor never notices."""
    async with visit(default_gateway) as visitor:
        at = time.monotonic()
        for _ in range(20):
            await visitor.send("x" * 65536)
        for _ in range(20):
            assert await visitor.receive() == {"error": "Invalid JSON format"}
        assert time.monotonic() - at > 1.5
        await goes_on(visitor)
