"""What is wrong with a frame is answered, and the connection goes on."""

import json
from typing import Any

import pytest

from tests.support.chat import new_id, visit
from tests.support.gateway import Gateway
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        "{",
        '{"message_id": ',
        "[]",
        "null",
        "17",
        '"text"',
        "[" * 60000,
        '{"a":' * 12000,
        b"",
        b"\x00\xff",
        json.dumps({"message_id": new_id(), "message": "in a binary frame"}).encode(),
    ],
    ids=lambda frame: repr(frame[:12]),
)
async def test_what_is_no_json_object_in_a_text_frame_is_invalid_json(
    default_gateway: Gateway, frame: str | bytes
) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.send(frame)
        assert await visitor.receive() == {"error": "Invalid JSON format"}
        await visitor.goes_on()


SOME_ID = "3f1c2f0e-5d7b-4a8e-9c55-0d1a6b2e7f90"
NO_UUID: list[Any] = ["", "nonsense", 17, 0, None, True, [], {}, [SOME_ID], SOME_ID[:-1], "x" * 36]
NO_UUID += [SOME_ID + "\x00", "９" * 8 + "-９９９９" * 3 + "-" + "９" * 12, 1.5, -1]


@pytest.mark.parametrize("message_id", NO_UUID, ids=lambda value: repr(value)[:20])
async def test_a_message_id_that_is_no_uuid_is_invalid(default_gateway: Gateway, message_id: Any) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.send({"message_id": message_id, "message": "안녕"})
        frame = await visitor.receive()
        assert list(frame) == ["error"]
        assert frame["error"].startswith("Invalid message: ")
        assert "message_id" in frame["error"]
        await visitor.goes_on()


@pytest.mark.parametrize("frame", [{}, {"message": "안녕"}, {"session_id": "none"}], ids=repr)
async def test_a_missing_message_id_is_invalid(default_gateway: Gateway, frame: dict[str, Any]) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.send(frame)
        reply = await visitor.receive()
        assert list(reply) == ["error"]
        assert reply["error"].startswith("Invalid message: ")
        assert "message_id" in reply["error"]
        await visitor.goes_on()


NO_MESSAGE: list[Any] = ["", " ", "\n\t \r\n", 17, None, True, [], ["안녕"], {"text": "안녕"}]
NO_MESSAGE += ["\x00", "앞\x00뒤", "가" * 4001, "a" * 5000]


@pytest.mark.parametrize("message", NO_MESSAGE, ids=lambda value: repr(value)[:20])
async def test_a_message_that_cannot_be_taken_is_invalid_and_its_id_comes_back(
    default_gateway: Gateway, default_world: World, message: Any
) -> None:
    async with visit(default_gateway) as visitor:
        message_id = await visitor.prompt(message)
        frame = await visitor.receive()
        assert set(frame) == {"error", "message_id"}
        assert frame["message_id"] == message_id
        assert frame["error"].startswith("Invalid message: ")
        assert "message" in frame["error"].removeprefix("Invalid message: ")
        await visitor.goes_on()
        assert len(default_world.turns(visitor.session_id)) == 1
        assert len(default_world.llm.calls_with(session_id=visitor.session_id)) == 1


async def test_a_missing_message_is_invalid_and_its_id_comes_back(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        message_id = new_id()
        await visitor.send({"message_id": message_id, "text": "안녕"})
        frame = await visitor.receive()
        assert frame["error"].startswith("Invalid message: ")
        assert frame["message_id"] == message_id
        await visitor.goes_on()


async def test_a_lone_surrogate_is_an_error_and_the_connection_goes_on(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        await visitor.send(f'{{"message_id": "{new_id()}", "message": "\\ud800"}}')
        assert (await visitor.receive())["error"].startswith("Invalid ")
        await visitor.goes_on()


async def test_further_keys_are_ignored(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        text = unique("안녕")
        more: dict[str, Any] = {"sender": "user", "timestamp": "yesterday", "session_id": 17, "": None, "is_user": []}
        assert (await visitor.ask(text, **more))["message"] == f"re: {text}"
