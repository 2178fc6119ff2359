"""A turn, from the prompt to the stored answer."""

import asyncio
import itertools
import json
import unicodedata
from datetime import datetime

import pytest

from tests.support.backends import Held, answer, tool_answer
from tests.support.chat import PLAIN_ANSWER, new_id, visit
from tests.support.gateway import Gateway
from tests.support.waiting import PATIENCE_SECONDS, become
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio


async def test_the_llm_server_is_asked_with_exactly_the_message_and_the_session(
    default_gateway: Gateway, default_world: World
) -> None:
    async with visit(default_gateway) as visitor:
        text = unique("카드를 추천해 주세요")
        await visitor.ask(text)
        (call,) = default_world.llm.calls_with(query=text)
        assert (call.method, call.path) == ("POST", "/llm/mcp-router/dispatch")
        assert call.headers["content-type"].split(";")[0] == "application/json"
        assert call.json == {"query": text, "session_id": visitor.session_id}


async def test_a_plain_answer_has_exactly_these_keys(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        text = unique("안녕")
        frame = await visitor.ask(text)
        assert set(frame) == PLAIN_ANSWER
        assert frame["sender"] == "bot"
        assert frame["login_required"] is False
        assert frame["message"] == f"re: {text}"
        await visitor.nothing_pending()


async def test_the_timestamp_is_the_stored_time_to_the_microsecond(
    default_gateway: Gateway, default_world: World
) -> None:
    async with visit(default_gateway) as visitor:
        for _ in range(5):
            frame = await visitor.ask(unique("몇 시예요?"))
            turn = default_world.turns(visitor.session_id)[-1]
            sent = datetime.fromisoformat(frame["timestamp"])
            assert sent.utcoffset() is not None
            assert sent == turn["created_at"]
            assert turn["prompt_id"] == frame["message_id"]
            assert turn["answer"] == frame["message"]


async def test_a_prompt_is_stored_before_the_llm_server_is_asked(
    default_gateway: Gateway, default_world: World
) -> None:
    async with visit(default_gateway) as visitor:
        text, held = unique("느린 질문"), Held(answer("늦은 대답"))
        default_world.llm.on(text, held)
        await visitor.prompt(text)
        await default_world.llm.called(query=text)
        (turn,) = default_world.turns(visitor.session_id)
        assert (turn["prompt"], turn["answer"]) == (text, None)
        held.release()
        assert (await visitor.receive())["message"] == "늦은 대답"
        (turn,) = default_world.turns(visitor.session_id)
        assert turn["answer"] == "늦은 대답"


async def test_an_answer_is_stored_when_it_arrives(default_gateway: Gateway, default_world: World) -> None:
    content = {"answer": "두 장입니다.", "card_list": ["카드의정석2", {"id": 3}], "relatedQuestions": ["연회비는?"]}
    async with visit(default_gateway) as visitor:
        text = unique("추천")
        default_world.llm.on(text, tool_answer(content | {"login_required": False}))
        await visitor.ask(text)
        (turn,) = default_world.turns(visitor.session_id)
        assert turn["answer"] == "두 장입니다."
        assert turn["source_tool"] == "get_card_recommendation"
        payload = turn["response_payload"]
        assert payload["card_list"] == content["card_list"]
        assert payload["related_questions"] == content["relatedQuestions"]
        assert payload["login_required"] is False


async def test_answers_come_in_the_order_of_the_prompts(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as visitor:
        texts = [unique(f"질문 {number}") for number in range(6)]
        held = Held(answer("느린 대답"))
        default_world.llm.on(texts[0], held)
        ids = [await visitor.prompt(text) for text in texts]
        await default_world.llm.called(query=texts[0])
        held.release()
        frames = [await visitor.receive() for _ in texts]
        assert [frame["message_id"] for frame in frames] == ids
        assert [frame["message"] for frame in frames] == ["느린 대답", *(f"re: {text}" for text in texts[1:])]
        times = [datetime.fromisoformat(frame["timestamp"]) for frame in frames]
        assert all(earlier < later for earlier, later in itertools.pairwise(times))


async def test_a_cached_answer_does_not_overtake_a_slow_one(default_gateway: Gateway, default_world: World) -> None:
    question = default_gateway.http.get("/api/qna/faq").json()[1]["question"]
    async with visit(default_gateway) as visitor:
        text, held = unique("느린 질문"), Held(answer("느린 대답"))
        default_world.llm.on(text, held)
        ids = [await visitor.prompt(text), await visitor.prompt(question)]
        await default_world.llm.called(query=text)
        held.release()
        assert [(await visitor.receive())["message_id"] for _ in ids] == ids


async def test_the_reading_goes_on_while_a_turn_runs(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as visitor:
        text, held = unique("느린 질문"), Held(answer("느린 대답"))
        default_world.llm.on(text, held)
        message_id = await visitor.prompt(text)
        await default_world.llm.called(query=text)
        for _ in range(20):
            await visitor.nothing_pending()
        wrong = await visitor.prompt("")
        assert (await visitor.receive())["message_id"] == wrong
        held.release()
        assert (await visitor.receive())["message_id"] == message_id


async def test_pings_are_answered_while_a_turn_runs(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as visitor:
        text, held = unique("느린 질문"), Held(answer("느린 대답"))
        default_world.llm.on(text, held)
        await visitor.prompt(text)
        await visitor.prompt(unique("noch eine"))
        await default_world.llm.called(query=text)
        for _ in range(3):
            pong = await visitor.socket.ping()
            await asyncio.wait_for(pong, PATIENCE_SECONDS)
        held.release()
        await visitor.receive()
        await visitor.receive()


async def test_sessions_do_not_wait_for_each_other(default_gateway: Gateway, default_world: World) -> None:
    async with visit(default_gateway) as slow, visit(default_gateway) as fast:
        text, held = unique("느린 질문"), Held(answer("느린 대답"))
        default_world.llm.on(text, held)
        await slow.prompt(text)
        await default_world.llm.called(query=text)
        await fast.goes_on()
        held.release()
        assert (await slow.receive())["message"] == "느린 대답"


async def test_many_sessions_each_get_their_own_answers(default_gateway: Gateway) -> None:
    async def talk() -> None:
        async with visit(default_gateway) as visitor:
            for _ in range(5):
                await visitor.goes_on()

    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(talk())


@pytest.mark.parametrize("way", ["closed", "cut"])
async def test_a_visitor_who_leaves_has_the_turn_finished_and_stored(
    default_gateway: Gateway, default_world: World, way: str
) -> None:
    text, held = unique("느린 질문"), Held(answer("늦은 대답"))
    default_world.llm.on(text, held)
    async with visit(default_gateway) as visitor:
        await visitor.prompt(text)
        await default_world.llm.called(query=text)
        if way == "cut":
            visitor.socket.transport.abort()
    held.release()
    (call,) = default_world.llm.calls_with(query=text)
    await become(lambda: default_world.turns(visitor.session_id)[0]["answer"] == "늦은 대답")
    assert not call.abandoned
    assert [entry["content"] for entry in visitor.history()] == [text, "늦은 대답"]


TEXTS = {
    "emoji": "카드 💳 가족 👨‍👩‍👧‍👦 국기 🇰🇷 피부 👍🏽",
    "combining": "e\u0301 a\u0308 n\u0303 \u1e9b\u0323 Z̷̢̛a̴l̵g̸o̶",
    "right to left": "שלום עולם مرحبا بالعالم \u202eevil\u202c \u200f",
    "hangul NFC": unicodedata.normalize("NFC", "한글 각각 뷁"),
    "hangul NFD": unicodedata.normalize("NFD", "한글 각각 뷁"),
    "beyond the BMP": "𝒳𝓎𝓏 𠜎𠜱 🀄",
    "invisible": "영\u200b폭\u200d \ufeff bom \u2028 line \u2029 paragraph \u00a0",
    "controls": "tab\t newline\n return\r bell\x07 escape\x1b delete\x7f \x85 \uffff \ufffe",
    "quotes and slashes": '"\'`\\ \\u0041 / </script> %s {} $1 \'; DROP TABLE "Chat"; --',
    "outer spaces": "  앞뒤 공백 \n",
}


@pytest.mark.parametrize("kind", TEXTS)
async def test_text_survives_the_round_trip_byte_for_byte(
    default_gateway: Gateway, default_world: World, kind: str
) -> None:
    text = f"{unique('#')}{TEXTS[kind]}" if kind != "outer spaces" else f" {unique('#')}{TEXTS[kind]}"
    async with visit(default_gateway) as visitor:
        frame = await visitor.ask(text)
        assert frame["message"] == f"re: {text}"
        (call,) = default_world.llm.calls_with(session_id=visitor.session_id)
        assert call.json["query"] == text
        (turn,) = default_world.turns(visitor.session_id)
        assert (turn["prompt"], turn["answer"]) == (text, f"re: {text}")
        assert [entry["content"] for entry in visitor.history()] == [text, f"re: {text}"]


async def test_escaped_and_plain_json_text_are_the_same(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        text = unique("한글 😀")
        await visitor.send(json.dumps({"message_id": new_id(), "message": text}, ensure_ascii=True))
        assert (await visitor.receive())["message"] == f"re: {text}"


async def test_a_message_in_fragments_is_one_message(default_gateway: Gateway) -> None:
    async with visit(default_gateway) as visitor:
        text = unique("조각")
        data = json.dumps({"message_id": new_id(), "message": text}, ensure_ascii=False)
        await visitor.socket.send([data[:5], data[5:30], data[30:]])
        assert (await visitor.receive())["message"] == f"re: {text}"


async def test_a_compressing_client_is_served(default_gateway: Gateway) -> None:
    async with visit(default_gateway, compression="deflate") as visitor:
        await visitor.goes_on()
