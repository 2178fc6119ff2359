"""Every shape of a reply, and every way to fail."""

import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.backends import Json, LlmStub, Raw, Reply, answer, tool_answer
from tests.support.backends import login_required_answer as login_required
from tests.support.chat import PLAIN_ANSWER, Frame, Visitor, visit
from tests.support.gateway import Gateway
from tests.support.network import RefusedPort
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

UNREACHABLE = "LLM 서버 통신 오류: 서버에 연결할 수 없습니다."
MALFORMED = "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."

RAW = "raw-tool-output-never-to-be-shown"


@pytest.fixture
async def visitor(default_gateway: Gateway) -> AsyncIterator[Visitor]:
    async with visit(default_gateway) as visitor:
        yield visitor


async def told(visitor: Visitor, llm: LlmStub, reply: Reply) -> Frame:
    """The answer to a prompt for which the LLM server replies so; it is stored, and the session goes on."""
    text = unique("질문")
    llm.on(text, reply)
    frame = await visitor.ask(text)
    assert frame["sender"] == "bot"
    assert frame["timestamp"]
    stored = visitor.history()[-1]
    assert (stored["is_user"], stored["content"]) == (False, frame["message"])
    await visitor.goes_on()
    return frame


@pytest.mark.parametrize(
    "value",
    [
        {"answer": "안녕하세요", "tool_response": None},
        {"answer": "안녕하세요"},
        {"answer": "안녕하세요", "tool_response": {}},
        {"answer": "안녕하세요", "tool_response": None, "model": "x", "usage": {"tokens": 5}},
    ],
)
async def test_without_a_tool_the_message_is_the_answer(visitor: Visitor, llm: LlmStub, value: dict[str, Any]) -> None:
    frame = await told(visitor, llm, Json(value))
    assert set(frame) == PLAIN_ANSWER
    assert frame["message"] == "안녕하세요"
    assert frame["login_required"] is False


async def test_a_tools_answer_comes_with_what_the_tool_gave(visitor: Visitor, llm: LlmStub) -> None:
    content = {
        "answer": "이 카드를 추천합니다.",
        "card_list": ["카드의정석2", "가나다 카드"],
        "relatedQuestions": ["연회비는 얼마인가요?", "혜택은?"],
        "login_required": False,
    }
    frame = await told(visitor, llm, tool_answer(content))
    assert set(frame) == PLAIN_ANSWER | {"card_list", "related_questions", "tool_name"}
    assert frame["message"] == "이 카드를 추천합니다."
    assert frame["card_list"] == ["카드의정석2", "가나다 카드"]
    assert frame["related_questions"] == ["연회비는 얼마인가요?", "혜택은?"]
    assert frame["tool_name"] == "get_card_recommendation"
    assert frame["login_required"] is False


async def test_lists_are_passed_on_as_they_are(visitor: Visitor, llm: LlmStub) -> None:
    cards = ["문자열", {"card_name": "객체", "benefits": ["하나", {"둘": [2, 2.5, None, True]}], "fee": 0}, {}]
    questions = ["", "😀?", "e\u0301"]
    content = {"answer": "그대로", "card_list": cards, "relatedQuestions": questions, "login_required": False}
    frame = await told(visitor, llm, tool_answer(content))
    assert frame["card_list"] == cards
    assert frame["related_questions"] == questions


@pytest.mark.parametrize(
    "tool",
    [
        "get_card_description",
        "get_card_recommendation",
        "query_faq_database",
        "query_term_database",
        "consumption_recommend",
    ],
)
async def test_every_tool_is_named(visitor: Visitor, llm: LlmStub, world: World, tool: str) -> None:
    content = {"answer": "대답", "card_list": ["가"], "relatedQuestions": ["나"], "login_required": False}
    frame = await told(visitor, llm, tool_answer(content, tool=tool))
    assert frame["tool_name"] == tool
    assert world.turns(visitor.session_id)[0]["source_tool"] == tool


@pytest.fixture
def world(default_world: World) -> World:
    return default_world


async def test_what_a_tool_did_not_give_is_not_there(visitor: Visitor, llm: LlmStub) -> None:
    frame = await told(visitor, llm, tool_answer({"answer": "그냥 대답"}, tool="query_term_database"))
    assert set(frame) == PLAIN_ANSWER | {"tool_name"}
    assert frame["message"] == "그냥 대답"


async def test_an_answer_may_be_nested(visitor: Visitor, llm: LlmStub) -> None:
    content = {"answer": {"answer": "안쪽 대답"}, "card_list": ["가"], "login_required": False}
    frame = await told(visitor, llm, tool_answer(content))
    assert frame["message"] == "안쪽 대답"
    assert frame["card_list"] == ["가"]


async def test_the_tools_answer_goes_before_the_outer_one(visitor: Visitor, llm: LlmStub) -> None:
    frame = await told(visitor, llm, tool_answer({"answer": "안"}, outer="밖"))
    assert frame["message"] == "안"


async def test_login_required_is_passed_on(visitor: Visitor, llm: LlmStub, world: World) -> None:
    frame = await told(visitor, llm, login_required("로그인해 주세요."))
    assert frame["login_required"] is True
    assert frame["message"] == "로그인해 주세요."
    assert frame["tool_name"] == "consumption_recommend"
    payload = world.turns(visitor.session_id)[0]["response_payload"]
    assert payload["login_required"] is True


@pytest.mark.parametrize("content", [f"Error: {RAW}", [RAW, {"a": RAW}], [], ""], ids=repr)
async def test_a_failed_tools_text_or_list_gives_way_to_the_outer_answer(
    visitor: Visitor, llm: LlmStub, content: Any
) -> None:
    frame = await told(visitor, llm, tool_answer(content, outer="도구가 실패했습니다."))
    assert frame["message"] == "도구가 실패했습니다."
    assert RAW not in str(frame)
    assert RAW not in str(visitor.history())


@pytest.mark.parametrize("content", [f"Error: {RAW}", [RAW, {"a": RAW}]], ids=repr)
async def test_a_failed_tools_text_or_list_without_an_outer_answer_is_malformed(
    visitor: Visitor, llm: LlmStub, content: Any
) -> None:
    frame = await told(visitor, llm, tool_answer(content))
    assert frame["message"] == MALFORMED
    assert RAW not in str(frame)
    assert RAW not in str(visitor.history())


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 502, 503, 504])
async def test_a_status_is_named_and_its_body_is_not_shown(visitor: Visitor, llm: LlmStub, status: int) -> None:
    frame = await told(visitor, llm, Json({"answer": RAW, "detail": RAW}, status=status))
    assert set(frame) == PLAIN_ANSWER
    assert frame["message"] == f"LLM 서버 오류 (HTTP {status})"
    assert frame["login_required"] is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"<html>Bad Gateway</html>",
        b'{"answer": "half',
        b"[]",
        b'[{"answer": "in a list"}]',
        b'"text"',
        b"null",
        b"17",
        b"true",
        b"{}",
        b'{"answer": null}',
        b'{"answer": 17}',
        b'{"answer": ["list"], "tool_response": null}',
        b'{"message": "other key"}',
        b'{"answer": "bad \xff utf-8"}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"answer": "", "tool_response": {"tool_name": "t", "tool_response_content": {}}}',
        b'{"answer": "", "tool_response": {"tool_name": "t", "tool_response_content": {"answer": null}}}',
        b'{"answer": "", "tool_response": {"tool_name": "t", "tool_response_content": {"answer": 5}}}',
        b'{"answer": "", "tool_response": {"tool_name": "t", "tool_response_content": {"answer": {"x": 1}}}}',
        b'{"answer": "", "tool_response": {"tool_name": "t"}}',
        b'{"answer": "", "tool_response": "text"}',
    ],
    ids=lambda body: repr(body[-40:]),
)
async def test_a_reply_without_a_usable_message_is_malformed(visitor: Visitor, llm: LlmStub, body: bytes) -> None:
    frame = await told(visitor, llm, Raw(body))
    assert set(frame) - {"tool_name"} == PLAIN_ANSWER
    assert frame["message"] == MALFORMED


@pytest.mark.parametrize(
    "more",
    [
        {"card_list": "text"},
        {"card_list": {"a": 1}},
        {"card_list": None},
        {"relatedQuestions": "text"},
        {"relatedQuestions": None},
        {"login_required": None},
        {"login_required": "yes"},
    ],
    ids=repr,
)
async def test_odd_additions_do_not_break_the_frame(visitor: Visitor, llm: LlmStub, more: dict[str, Any]) -> None:
    frame = await told(visitor, llm, tool_answer({"answer": "대답"} | more))
    assert frame["message"] in ("대답", MALFORMED)
    assert isinstance(frame["login_required"], bool)
    assert isinstance(frame.get("card_list", []), list)
    assert isinstance(frame.get("related_questions", []), list)


@pytest.mark.parametrize("tool", [None, 17, [], {}, "x" * 5000, "nul\u0000"], ids=lambda tool: repr(tool)[:12])
async def test_an_odd_tool_name_does_not_lose_the_answer(visitor: Visitor, llm: LlmStub, tool: Any) -> None:
    value = {"answer": "", "tool_response": {"tool_name": tool, "tool_response_content": {"answer": "대답"}}}
    frame = await told(visitor, llm, Json(value))
    assert frame["message"] in ("대답", MALFORMED)
    assert isinstance(frame.get("tool_name", ""), str)


@pytest.mark.parametrize(
    "body",
    [
        b'{"answer": "a\\u0000b"}',
        b'{"answer": "\\u0000"}',
        b'{"answer": "lone \\ud83d surrogate"}',
        b'{"answer": "x", "tool_response": {"tool_name": "get_card_recommendation",'
        b'"tool_response_content": {"answer": "x", "card_list": ["a\\u0000b", {"\\u0000": "\\u0000"}],'
        b'"relatedQuestions": ["\\u0000"]}}}',
        b'{"answer": "x", "tool_response": {"tool_name": "get_card_recommendation",'
        b'"tool_response_content": {"answer": "x", "card_list": ["\\udc00"], "relatedQuestions": []}}}',
        b'{"answer": "x", "tool_response": {"tool_name": "get_card_recommendation",'
        b'"tool_response_content": {"answer": "x", "card_list": [1e400, NaN, 123456789012345678901234567890]}}}',
    ],
    ids=["nul", "only nul", "surrogate", "nul in lists", "surrogate in a list", "numbers"],
)
async def test_what_the_database_cannot_hold_still_gets_an_answer_that_is_stored(
    visitor: Visitor, llm: LlmStub, body: bytes
) -> None:
    frame = await told(visitor, llm, Raw(body))
    assert "\x00" not in str(frame)


LARGE = [{"ids": [12345678901234567890123, -12345678901234567890123, 2**63, 2**64, -(2**63) - 1, 10**40, 5, 2.5]}]


async def test_an_integer_of_any_size_stays_as_it_is(visitor: Visitor, llm: LlmStub, world: World) -> None:
    """Also when the answer is read from the database."""
    frame = await told(visitor, llm, tool_answer({"answer": "대답", "card_list": LARGE}))
    assert frame["card_list"] == LARGE
    assert visitor.history()[1]["card_list"] == LARGE
    assert world.turns(visitor.session_id)[0]["response_payload"]["card_list"] == LARGE


@pytest.mark.parametrize("more", [b"[" * 1000 + b"]" * 1000, b"9" * 300], ids=["deep", "long"])
async def test_what_is_odd_beside_a_long_number_does_not_lose_the_answer(
    visitor: Visitor, llm: LlmStub, more: bytes
) -> None:
    reply = Raw(b'{"answer": "x", "id": 12345678901234567890123, "more": ' + more + b"}")
    assert (await told(visitor, llm, reply))["message"] == "x"


async def test_a_byte_order_mark_before_a_reply_is_skipped(visitor: Visitor, llm: LlmStub) -> None:
    assert (await told(visitor, llm, Raw(b'\xef\xbb\xbf{"answer": "x"}')))["message"] == "x"


async def test_a_reply_with_a_long_header_is_read(visitor: Visitor, llm: LlmStub) -> None:
    reply = Raw(b'{"answer": "x"}', headers={"x-long": "x" * 9000})
    assert (await told(visitor, llm, reply))["message"] == "x"


async def test_a_long_answer_comes_whole(visitor: Visitor, llm: LlmStub) -> None:
    text = "긴 대답 😀 " * 20_000
    assert (await told(visitor, llm, answer(text)))["message"] == text


async def test_a_reply_of_three_megabytes_is_malformed(visitor: Visitor, llm: LlmStub) -> None:
    assert (await told(visitor, llm, answer("x" * 3_000_000)))["message"] == MALFORMED


class Chunked(Raw):
    """Reply with these bytes without saying how many."""

    async def serve(self, call: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for start in range(0, len(self.body), 50_000):
            chunk = self.body[start : start + 50_000]
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def test_a_reply_in_pieces_is_one_reply(visitor: Visitor, llm: LlmStub) -> None:
    body = b'{"answer": "' + "조각 ".encode() * 20_000 + b'"}'
    assert (await told(visitor, llm, Chunked(body)))["message"] == "조각 " * 20_000


async def test_a_reply_of_another_content_type_is_read_all_the_same(visitor: Visitor, llm: LlmStub) -> None:
    reply = Raw('{"answer": "대답"}'.encode(), content_type="text/plain")
    assert (await told(visitor, llm, reply))["message"] == "대답"


async def test_a_compressed_reply_is_read(visitor: Visitor, llm: LlmStub) -> None:
    reply = Raw(gzip.compress('{"answer": "눌린 대답"}'.encode()), headers={"content-encoding": "gzip"})
    assert (await told(visitor, llm, reply))["message"] == "눌린 대답"


async def test_a_reply_that_is_large_only_when_unpacked_is_malformed(visitor: Visitor, llm: LlmStub) -> None:
    packed = gzip.compress(b'{"answer": "' + b"x" * 2_000_000 + b'"}', 1)
    assert (await told(visitor, llm, Raw(packed, headers={"content-encoding": "gzip"})))["message"] == MALFORMED


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_a_status_and_is_not_followed(visitor: Visitor, llm: LlmStub, status: int) -> None:
    reply = Raw(b"", status=status, headers={"location": llm.url + "/elsewhere"})
    assert (await told(visitor, llm, reply))["message"] == f"LLM 서버 오류 (HTTP {status})"
    assert "/elsewhere" not in [call.path for call in llm.calls]


async def test_a_cookie_of_the_llm_server_does_not_go_to_other_sessions(visitor: Visitor, llm: LlmStub) -> None:
    await told(visitor, llm, Raw(b'{"answer": "x"}', headers={"set-cookie": "session=one; Path=/"}))
    async with visit(visitor.gateway) as other:
        await other.goes_on()
        (call,) = llm.calls_with(session_id=other.session_id)
        assert "cookie" not in call.headers


async def test_the_environments_proxy_is_not_asked(new_world: NewWorld) -> None:
    """LLM and MCP servers are internal: a proxy meant for the internet must not see what visitors say."""
    world = new_world()
    with RefusedPort() as proxy:
        names = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
        with Gateway(world.settings | dict.fromkeys(names, proxy.url)) as gateway:
            async with visit(gateway) as visitor:
                await visitor.goes_on()
