"""What the visitor means is what happens: one prompt, in this conversation, and the last of two choices."""

from __future__ import annotations

import pytest
from playwright.sync_api import CDPSession, Locator, Route, expect

from tests.page.conftest import PERSONAS, ChatPage, OpenChat
from tests.support.backends import CallBack, Held, Json, answer, login_required_answer, recommendation, tool_answer
from tests.support.waiting import eventually
from tests.support.world import World, unique


class HeldCalls:
    """REST calls of the page that reach the gateway only when the test lets them."""

    def __init__(self, chat: ChatPage, pattern: str) -> None:
        self._chat = chat
        self._routes: list[Route] = []
        chat.page.route(pattern, lambda route: self._routes.append(route))  # noqa: PLW0108  # playwright needs a function

    def wait(self, count: int = 1) -> None:
        self._chat.eventually(lambda: len(self._routes) >= count)

    def __len__(self) -> int:
        return len(self._routes)

    def release(self) -> None:
        """Let the oldest one through, and wait until the page has its reply."""
        route = self._routes.pop(0)
        with self._chat.page.expect_response(lambda response: response.request == route.request):
            route.continue_()
        self._chat.page.evaluate("new Promise((resolve) => setTimeout(resolve))")


def test_a_new_conversation_begins_before_the_history_of_the_old_one_is_there(chat: ChatPage, world: World) -> None:
    """Nothing of the old one is shown in it, and no prompt of it is asked there."""
    waiting, reply = unique("아직"), Held(answer("늦은 답"))
    world.llm.on(waiting, reply, answer("두 번"))
    chat.ask(waiting)
    world.llm.wait_called(query=waiting)
    old = chat.session_id
    history = HeldCalls(chat, "**/api/chat/history/*")
    chat.page.reload()
    history.wait()
    chat.page.click("#fresh")
    chat.connected()
    history.release()
    question = unique("새로")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    reply.release()
    assert chat.session_id != old
    assert chat.texts() == [question, f"re: {question}"]
    assert [turn["prompt"] for turn in world.turns(chat.session_id)] == [question]
    eventually(lambda: [turn["prompt"] for turn in world.turns(old)] == [waiting], what="the old one's answer")
    assert len(world.llm.calls_with(query=waiting)) == 1


def test_a_login_is_of_the_conversation_that_it_began_in(chat: ChatPage, world: World) -> None:
    question = unique("내 소비")
    world.llm.on(question, login_required_answer())
    held = Held(recommendation("추천", ["카드"]))
    world.mcp.on_session(chat.session_id, held)
    chat.ask(question)
    chat.page.locator(".persona").first.click()
    expect(chat.page.locator(".login .note")).to_have_attribute("data-t", "login.busy")
    chat.page.click("#fresh")
    with chat.page.expect_response("**/api/login"):
        chat.page.click("#fresh-yes")
        chat.connected()
        held.release()
    question = unique("누구로")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    expect(chat.page.locator("#persona")).to_be_empty()


@pytest.mark.parametrize("order", ["key, end", "key, end, key", "end, key"])
def test_enter_sends_a_korean_question_at_once_and_whole(chat: ChatPage, order: str) -> None:
    """In each order in which browsers tell of the key and of the end of the composition."""
    compose(chat, "안녕", "하", "하세", order)
    expect(chat.prompts).to_have_text(["안녕하세"])
    expect(chat.page.locator("#prompt")).to_have_value("")
    chat.expect_answer("re: 안녕하세")
    expect(chat.prompts).to_have_count(1)


@pytest.mark.parametrize("order", ["key, end", "end, key"])
def test_enter_chooses_a_japanese_word_before_it_sends(chat: ChatPage, order: str) -> None:
    compose(chat, "", "かん", "漢", order)
    chat.page.wait_for_timeout(200)
    expect(chat.prompts).to_have_count(0)
    expect(chat.page.locator("#prompt")).to_have_value("漢")
    chat.page.keyboard.press("Enter")
    expect(chat.prompts).to_have_text(["漢"])


def compose(chat: ChatPage, before: str, first: str, last: str, order: str) -> None:
    """Write as an input method does, and end the composition with Enter."""
    chat.page.fill("#prompt", before)
    devtools = chat.page.context.new_cdp_session(chat.page)
    for text in (first, last):
        devtools.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})
    is_over = False
    for step in order.split(", "):
        if step == "end":
            devtools.send("Input.insertText", {"text": last})
            is_over = True
        else:
            press_enter(devtools, 13 if is_over and order != "end, key" else 229)


def press_enter(devtools: CDPSession, code: int) -> None:
    key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": code}
    devtools.send("Input.dispatchKeyEvent", {"type": "rawKeyDown"} | key)
    devtools.send("Input.dispatchKeyEvent", {"type": "keyUp"} | key)


def test_a_double_click_asks_once(chat: ChatPage, world: World) -> None:
    """On examples, FAQs, terms, cards, related questions, and on asking again."""
    page = chat.page
    question, failing, related = unique("카드"), unique("고장"), unique("이어서")
    content = {"answer": "카드요", "card_list": ["도담"], "relatedQuestions": [related], "login_required": False}
    world.llm.on(question, tool_answer(content))
    world.llm.on(failing, Json({}, 503), answer("돼요"))
    asked = 0

    def doubly(button: Locator) -> None:
        nonlocal asked
        asked += 1
        button.dblclick()
        expect(chat.answers).to_have_count(asked)
        page.wait_for_timeout(150)  # a second one would be there by then
        expect(chat.prompts).to_have_count(asked)

    doubly(page.locator(".example").first)
    doubly(page.locator("#faq .question").first)
    doubly(page.locator("#terms .chip").nth(1))
    for asking in (question, failing):
        asked += 1
        chat.ask(asking)
        expect(chat.answers).to_have_count(asked)
    doubly(page.get_by_role("button", name="다시 시도"))
    doubly(page.get_by_role("button", name="자세히 알아보기"))
    doubly(page.locator(".related button"))
    assert len(chat.sent) == asked


def test_a_double_tap_in_the_menu_asks_nothing_that_lies_behind_it(open_chat: OpenChat) -> None:
    chat = open_chat(width=320, height=640, has_touch=True)
    chat.page.get_by_role("button", name="메뉴").click()
    question = chat.page.locator("#faq .question").last
    box = question.bounding_box()
    assert box
    for _ in range(2):
        chat.page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(chat.answers).to_have_count(1)
    chat.page.wait_for_timeout(150)
    expect(chat.prompts).to_have_count(1)


def test_two_questions_clicked_one_after_the_other_are_both_asked(chat: ChatPage) -> None:
    chat.page.locator("#faq .question").first.click()
    chat.page.locator("#terms .chip").first.click()
    expect(chat.answers).to_have_count(2)


@pytest.mark.parametrize("last", [False, None])
def test_of_two_ratings_the_last_is_kept(chat: ChatPage, world: World, last: bool | None) -> None:
    """The first one's reply is late: there is one call at a time, and the newest value comes last."""
    question = unique("평가")
    chat.ask(question)
    row = chat.expect_answer(f"re: {question}")
    good, bad = row.locator(".thumb.good"), row.locator(".thumb.bad")
    calls = HeldCalls(chat, "**/api/chat/feedback")
    good.click()
    calls.wait()
    (bad if last is False else good).click()
    chat.page.wait_for_timeout(100)
    assert len(calls) == 1
    calls.release()
    calls.wait()
    calls.release()
    assert world.feedback(chat.session_id) == [last]
    expect(bad).to_have_attribute("aria-pressed", str(last is False).lower())
    expect(good).to_have_attribute("aria-pressed", "false")


def test_a_rating_that_is_not_stored_is_taken_back(chat: ChatPage, world: World) -> None:
    question = unique("평가")
    chat.ask(question)
    row = chat.expect_answer(f"re: {question}")
    chat.is_cut_off = True
    chat.page.route("**/api/chat/feedback", lambda route: route.abort())
    row.locator(".thumb.good").click()
    expect(row.locator(".rating")).to_contain_text("평가를 저장하지 못했습니다")
    expect(row.locator(".thumb.good")).to_have_attribute("aria-pressed", "false")
    chat.page.unroute("**/api/chat/feedback")
    row.locator(".thumb.good").click()
    eventually(lambda: world.feedback(chat.session_id) == [True], what="feedback")
    expect(row.locator(".rating")).not_to_contain_text("평가를 저장하지 못했습니다")


def test_a_login_by_keyboard_keeps_the_focus(chat: ChatPage, world: World) -> None:
    question = unique("내 소비")
    world.llm.on(question, login_required_answer())
    world.mcp.on_session(chat.session_id, CallBack(chat.gateway.base_url, recommendation("추천이요", ["카드"])))
    chat.ask(question)
    persona = chat.page.locator(".persona").first
    persona.focus()
    chat.page.keyboard.press("Enter")
    chat.expect_answer("추천이요")
    expect(persona).to_be_focused()
    chat.page.keyboard.press("Tab")
    expect(chat.answers.first.get_by_role("button", name="복사")).to_be_focused()
    expect(chat.page.locator("#persona")).to_have_text(PERSONAS[0])
    chat.page.reload()
    chat.connected()
    expect(chat.answers.first.locator(".login")).to_have_text("데모 고객으로 로그인했습니다.")
    expect(chat.page.locator(".persona")).to_have_count(0)
