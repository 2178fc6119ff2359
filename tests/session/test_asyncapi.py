"""/asyncapi.json against the running gateway: every frame, error text, close code and refusal that it names.

That no other frame is sent is seen to by `tests.support.chat.receive`, through which the tests read all frames.
"""

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.backends import Held, Json, answer, login_required_answer, tool_answer
from tests.support.card_qna import FAQS
from tests.support.chat import Frame, Visitor, new_id, visit
from tests.support.cluster import receive_all, resume, until_closed
from tests.support.documents import ASYNCAPI, MESSAGES, SENT_FRAME, Schema, examples_in
from tests.support.gateway import Gateway
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio

FRAME_BYTES, PENDING, PER_MINUTE, SESSIONS = 4096, 1, 4, 5
LIMITS = {
    "MAX_FRAME_BYTES": str(FRAME_BYTES),
    "MAX_PENDING_PROMPTS": str(PENDING),
    "PROMPTS_PER_MINUTE": str(PER_MINUTE),
    "MAX_SESSIONS": str(SESSIONS),
}
CHANNEL = ASYNCAPI["channels"]["chat"]
ERROR_SCHEMA = ASYNCAPI["components"]["schemas"]["error"]["properties"]["error"]
ERRORS = [text for choice in ERROR_SCHEMA["anyOf"] for text in choice.get("enum", [])]
TAKES_A_BUG = "Internal Server Error: Unknown error occurred"


def assert_message(frame: Frame, name: str) -> Frame:
    """The frame is the message of this name, and returned."""
    MESSAGES[name].assert_fits(frame)
    return frame


# Frames that make a conversation


async def test_the_session_frame(default_gateway: Gateway) -> None:
    """New, resumed, and new because what was asked for is not known."""
    async with visit(default_gateway) as visitor:
        assert assert_message(visitor.hello, "session").keys() == {"session_id", "key"}
    async with resume(default_gateway, visitor.session_id) as again:
        assert_message(again.hello, "session")
    async with visit(default_gateway, query=f"session_id={new_id()}&since=never") as stranger:
        assert assert_message(stranger.hello, "session")["resumed"] is False


async def test_what_may_stand_behind_the_path_is_documented(default_gateway: Gateway) -> None:
    """`since`, as it stands in a frame, brings what came after it."""
    query = Schema(CHANNEL["bindings"]["ws"]["query"])
    async with visit(default_gateway) as visitor:
        first = await visitor.ask(unique("먼저"))
        second = await visitor.ask(unique("그다음"))
    query.assert_fits({"session_id": visitor.session_id, "since": first["timestamp"]})
    async with resume(default_gateway, visitor.session_id, first["timestamp"]) as again:
        assert assert_message(await again.receive(), "answer") == second


@pytest.mark.parametrize(
    ("reply", "optional"),
    [
        pytest.param(answer("안녕하세요"), set(), id="without a tool"),
        pytest.param(Json({}, 503), set(), id="of an LLM server that failed"),
        pytest.param(tool_answer("upstream failed", outer="잠시 뒤에"), {"tool_name"}, id="of a tool that failed"),
        pytest.param(
            tool_answer({"answer": "카드", "card_list": ["가", {"name": "나"}], "relatedQuestions": ["다"]}),
            {"tool_name", "card_list", "related_questions"},
            id="with cards",
        ),
    ],
)
async def test_an_answer(default_gateway: Gateway, default_world: World, reply: Json, optional: set[str]) -> None:
    question = unique("질문")
    default_world.llm.on(question, reply)
    async with visit(default_gateway) as visitor:
        frame = assert_message(await visitor.ask(question), "answer")
    schema = ASYNCAPI["components"]["schemas"]["answer"]
    assert frame.keys() == {*schema["required"], *optional}


async def test_an_answer_from_memory(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        assert assert_message(await visitor.ask(FAQS[0].question), "answer")["message"] == FAQS[0].answer


async def test_a_push(default_gateway: Gateway, default_world: World) -> None:
    """With an id of its own before there is a prompt, and with the prompt's after one that asked for the login."""
    (persona_id,) = add_personas(default_world.chatdb, unique("누구"))
    question = unique("내 소비에 맞는 카드")
    default_world.llm.on(question, login_required_answer())
    async with visit(default_gateway) as visitor:
        login = {"session_id": visitor.session_id, "persona_id": persona_id}
        assert default_gateway.http.post("/api/login", json=login).status_code == 200
        pushed = assert_message(await visitor.receive(), "answer")
        asking = assert_message(await visitor.ask(question), "answer")
        assert asking["login_required"] is True
        assert default_gateway.http.post("/api/login", json=login).status_code == 200
        again = assert_message(await visitor.receive(), "answer")
    assert pushed["message_id"] != asking["message_id"] == again["message_id"]
    assert pushed["tool_name"] == again["tool_name"] == "consumption_recommend"


# What a visitor sends

GOOD_ID = "6d7c1c0e-3f0b-4f0e-9a55-1f4b6f4b2a10"
GOOD_PROMPT: Frame = {"message_id": GOOD_ID, "message": "안녕하세요"}
NO_IDS: list[Any] = [None, 1, "", "1234", GOOD_ID.replace("-", "")]
NO_MESSAGES: list[Any] = [None, 1, [], "", " \n\t", "\u3000", "가" * 4001, "가\0"]


@pytest.mark.parametrize("example", ASYNCAPI["components"]["messages"]["prompt"]["examples"], ids=lambda e: e["name"])
async def test_a_documented_prompt_is_answered(default_gateway: Gateway, example: Any) -> None:
    prompt = example["payload"] | {"message_id": new_id()}
    async with visit(default_gateway) as visitor:
        await visitor.send(prompt)
        assert assert_message(await visitor.receive(), "answer")["message_id"] == prompt["message_id"]


@pytest.mark.parametrize(
    "frame",
    [
        {"message": "안녕"},
        {"message_id": GOOD_ID},
        *(GOOD_PROMPT | {"message_id": value} for value in NO_IDS),
        *(GOOD_PROMPT | {"message": value} for value in NO_MESSAGES),
    ],
    ids=lambda frame: json.dumps(frame, ensure_ascii=False)[:70],
)
async def test_what_is_no_documented_prompt_is_refused(default_gateway: Gateway, frame: Frame) -> None:
    assert MESSAGES["prompt"].is_fit(GOOD_PROMPT)
    assert not MESSAGES["prompt"].is_fit(frame)
    async with visit(default_gateway) as visitor:
        await visitor.send(frame)
        error = assert_message(await visitor.receive(), "error")
        assert error["error"].startswith("Invalid message: ")
        has_id = MESSAGES["prompt"].is_fit(frame | {"message": "안녕"})
        assert ("message_id" in error) is has_id


# Errors, close codes and refused handshakes, each by its name in the document


@dataclass(frozen=True)
class Stage:
    """A gateway with small limits, the world around it, and how to start one that is going to be stopped."""

    world: World
    gateway: Gateway
    new_gateway: NewGateway

    @contextmanager
    def without(self, table: str) -> Iterator[None]:
        """While it lasts, the table of ChatDB is not there."""
        self.world.chatdb.execute(f'ALTER TABLE "{table}" RENAME TO "Elsewhere"')
        try:
            yield
        finally:
            self.world.chatdb.execute(f'ALTER TABLE "Elsewhere" RENAME TO "{table}"')

    @asynccontextmanager
    async def answering(self, gateway: Gateway) -> AsyncIterator[Visitor]:
        """A visitor whose answer is not going to come before the end of it."""
        question, held = unique("느린 질문"), Held(answer("느린 답"))
        self.world.llm.on(question, held)
        async with visit(gateway) as visitor:
            await visitor.prompt(question)
            await self.world.llm.called(query=question)
            yield visitor
            held.release()

    def stopping(self, gateway: Gateway) -> Awaitable[None]:
        """Tell a gateway to stop, and wait until it does not take anything new."""
        gateway.process.send_signal(signal.SIGTERM)
        return become(lambda: gateway.http.get("/api/health/ready").status_code == 503)


@pytest.fixture(scope="module")
def small_world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def small_gateway(small_world: World) -> Iterator[Gateway]:
    """`python gateway.py`, which has uvicorn close the socket at a frame that is too long."""
    with Gateway(small_world.settings | LIMITS, start="python") as gateway:
        yield gateway


@pytest.fixture
def stage(small_world: World, small_gateway: Gateway, new_gateway: NewGateway) -> Stage:
    return Stage(small_world, small_gateway, new_gateway)


async def send_nonsense(stage: Stage) -> Frame:
    async with visit(stage.gateway) as visitor:
        for data in ("no JSON", "[]", b"binary"):
            await visitor.send(data)
        return (await receive_all(visitor, 3))[-1]


async def send_too_many_at_once(stage: Stage) -> Frame:
    async with stage.answering(stage.gateway) as visitor:
        for _ in range(PENDING + 1):
            await visitor.prompt(unique("기다림"))
        return await visitor.receive()


async def send_too_many_in_a_minute(stage: Stage) -> Frame:
    async with visit(stage.gateway) as visitor:
        for _ in range(PER_MINUTE):
            await visitor.goes_on()
        return await visitor.ask("하나 더")


async def send_to_one_that_stops(stage: Stage) -> Frame:
    gateway = stage.new_gateway(stage.world)
    async with stage.answering(gateway) as visitor:
        await stage.stopping(gateway)
        return await visitor.ask("늦은 질문")


async def send_what_cannot_be_stored(stage: Stage) -> Frame:
    async with visit(stage.gateway) as visitor:
        with stage.without("Chat"):
            return await visitor.ask("저장할 수 없는 질문")


PROVOKED_ERRORS: dict[str, Callable[[Stage], Awaitable[Frame]]] = {
    "Invalid JSON format": send_nonsense,
    "Too many pending messages": send_too_many_at_once,
    "Too many messages": send_too_many_in_a_minute,
    "Server is restarting": send_to_one_that_stops,
    "Internal Server Error: DB operation failed": send_what_cannot_be_stored,
}


@pytest.mark.parametrize("text", [text for text in ERRORS if text != TAKES_A_BUG])
async def test_an_error(stage: Stage, text: str) -> None:
    """The connection goes on, wherever there is still one."""
    frame = assert_message(await PROVOKED_ERRORS[text](stage), "error")
    assert frame["error"] == text
    assert f"`{text}`" in ASYNCAPI["components"]["messages"]["error"]["description"]


async def close_by_too_many_prompts(stage: Stage) -> int:
    async with visit(stage.gateway) as visitor:
        for _ in range(3 * PER_MINUTE + 1):
            await visitor.prompt(unique("빨리"))
        return (await until_closed(visitor.socket))[1]


async def close_by_a_frame_that_is_too_long(stage: Stage) -> int:
    async with visit(stage.gateway) as visitor:
        await visitor.prompt("x" * FRAME_BYTES)
        return (await until_closed(visitor.socket))[1]


async def close_by_a_session_that_cannot_be_stored(stage: Stage) -> int:
    with stage.without("ChatSession"):
        async with stage.gateway.connect() as socket:
            frames, code, _ = await until_closed(socket)
            assert [assert_message(frame, "error")["error"] for frame in frames] == [
                "Internal Server Error: DB operation failed"
            ]
            return code


async def close_by_stopping(stage: Stage) -> int:
    gateway = stage.new_gateway(stage.world)
    async with visit(gateway) as visitor:
        gateway.process.send_signal(signal.SIGTERM)
        return (await until_closed(visitor.socket))[1]


async def close_by_another_socket(stage: Stage) -> int:
    async with visit(stage.gateway) as visitor, resume(stage.gateway, visitor.session_id):
        return (await until_closed(visitor.socket))[1]


PROVOKED_CODES: dict[int, Callable[[Stage], Awaitable[int]]] = {
    1008: close_by_too_many_prompts,
    1009: close_by_a_frame_that_is_too_long,
    1011: close_by_a_session_that_cannot_be_stored,
    1012: close_by_stopping,
    4001: close_by_another_socket,
}


@pytest.mark.parametrize("code", [described["code"] for described in CHANNEL["x-close-codes"]])
async def test_a_close_code(stage: Stage, code: int) -> None:
    assert await PROVOKED_CODES[code](stage) == code


async def refuse_a_foreign_page(stage: Stage) -> None:
    async with visit(stage.gateway, origin="https://foreign.example"):
        pass


async def refuse_one_too_many(stage: Stage) -> None:
    async with visit(stage.gateway):
        await refuse_one_too_many(stage)


PROVOKED_REFUSALS = {403: refuse_a_foreign_page, 503: refuse_one_too_many}


@pytest.mark.parametrize("status", [described["status"] for described in CHANNEL["x-handshake-refusals"]])
async def test_a_refused_handshake(stage: Stage, status: int) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await PROVOKED_REFUSALS[status](stage)
    assert refusal.value.response.status_code == status


# The document itself


def test_every_example_fits_its_schema() -> None:
    examples = list(examples_in(ASYNCAPI))
    assert len(examples) > len(MESSAGES)
    for example, schema in examples:
        schema.assert_fits(example)


def test_every_example_of_a_frame_is_of_one_kind() -> None:
    for message in ASYNCAPI["operations"]["sendFrames"]["messages"]:
        for example in message["examples"]:
            SENT_FRAME.assert_fits(example["payload"])


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"session_id": "1"},
        {"session_id": new_id(), "error": "Too many messages"},
        {"error": "Something else"},
        {"error": "Too many messages", "message_id": None},
        {"sender": "bot", "timestamp": "2026-03-02T09:15:21Z", "message_id": new_id(), "message": "가"},
    ],
)
def test_a_frame_that_is_not_documented_is_noticed(frame: Frame) -> None:
    with pytest.raises(AssertionError, match="not as documented"):
        SENT_FRAME.assert_fits(frame)
