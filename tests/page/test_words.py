"""What the page says beside the conversation: how long it takes, what went wrong, what there is to do. And the demo."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.page.conftest import ChatPage, OpenChat
from tests.support.backends import Held, Json, answer, tool_answer
from tests.support.gateway import Gateway
from tests.support.world import World, unique

HIDE = """(value) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => value });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_full_queue_is_said_only_as_long_as_it_is_full(chat: ChatPage, world: World) -> None:
    first, reply = unique("첫 질문"), Held(answer("답"))
    world.llm.on(first, reply)
    chat.ask(first)
    for number in range(9):
        chat.ask(unique(f"질문 {number}"))
    hint = chat.page.locator("#hint")
    expect(hint).to_have_text("질문 9개가 답변을 기다리고 있습니다.")
    reply.release()
    expect(chat.answers).to_have_count(9)
    expect(hint).not_to_contain_text("기다리고")
    assert chat.page.locator("#prompt").input_value().startswith("질문 8")


def test_what_the_gateway_says_in_korean_is_english_in_english(chat: ChatPage, world: World) -> None:
    failing, shapeless = unique("고장"), unique("이상")
    world.llm.on(failing, Json({}, 503))
    world.llm.on(shapeless, Json([]))
    for question in (failing, shapeless):
        chat.ask(question)
    korean = ["LLM 서버 오류 (HTTP 503)", "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."]
    english = ["LLM server error (HTTP 503)", "LLM server error: its reply makes no sense."]
    expect(chat.answers.locator(".text")).to_have_text(korean)
    chat.page.click("#language")
    expect(chat.answers.locator(".text")).to_have_text(english)
    chat.page.reload()
    chat.connected()
    expect(chat.answers.locator(".text")).to_have_text(english)


def test_an_answer_can_be_copied(chat: ChatPage, world: World) -> None:
    """As it was said, and not as it looks."""
    question, text = unique("복사"), "**연회비**는 2만 원이에요.\n\n- 하나"
    world.llm.on(question, answer(text))
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.ask(question)
    row = chat.expect_answer("연회비는 2만 원이에요.하나")
    row.get_by_role("button", name="복사").click()
    expect(row.get_by_role("button", name="복사함")).to_be_visible()
    assert chat.page.evaluate("navigator.clipboard.readText()") == text


def test_who_waits_long_is_told_and_called_back(
    open_tab: Any, open_chat: OpenChat, gateway: Gateway, world: World
) -> None:
    """After 15 s that the answer will be kept; when it comes to a tab that nobody looks at, its title says so."""
    page: Page = open_tab()
    page.clock.install()
    page.goto(gateway.base_url)
    chat = open_chat(page=page)
    question, reply = unique("오래"), Held(answer("드디어"))
    world.llm.on(question, reply)
    chat.ask(question)
    world.llm.wait_called(query=question)
    page.clock.run_for(14_000)
    expect(page.locator("#typing")).not_to_contain_text("오래")
    page.clock.run_for(2_000)
    expect(page.locator("#typing")).to_contain_text("자리를 비우셔도 답변은 여기에 남습니다")
    page.evaluate(HIDE, True)
    reply.release()
    chat.expect_answer("드디어")
    expect(page).to_have_title("(1) 카드 상담 챗봇")
    page.evaluate(HIDE, False)
    expect(page).to_have_title("카드 상담 챗봇")


def test_a_card_that_is_told_in_full_is_not_asked_about_again(chat: ChatPage, world: World) -> None:
    listed, detailed = unique("추천"), unique("상세")
    card = {"name": "트래블원", "summary": "여행에 좋아요", "annual_fee": 20000, "benefits": ["라운지"]}
    for question, tool in ((listed, "get_card_recommendation"), (detailed, "get_card_description")):
        content = {"answer": "카드요", "card_list": ["모닝컵", card], "login_required": False}
        world.llm.on(question, tool_answer(content, tool))
        chat.ask(question)
    expect(chat.answers).to_have_count(2)
    more = [row.get_by_role("button", name="자세히 알아보기").count() for row in chat.answers.all()]
    assert more == [1, 0]
    expect(chat.answers.first.locator(".card").first.get_by_role("button")).to_have_text("자세히 알아보기")


def test_touch_screens_are_not_told_about_enter(open_chat: OpenChat, chat: ChatPage) -> None:
    expect(chat.page.locator("#hint")).to_contain_text("Enter")
    phone = open_chat(width=320, height=640, has_touch=True, is_mobile=True)
    expect(phone.page.locator("#hint")).to_be_empty()
