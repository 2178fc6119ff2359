"""The pages in Firefox and WebKit as a visitor has them, who knows texts and buttons and nothing of what is behind.

Where a browser is not installed its tests are skipped, unless CI=true, where that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page.conftest import PERSONAS
from tests.support.backends import Stream, answer, login_required_answer, tool_answer
from tests.support.browser import Browser
from tests.support.card_qna import FAQS
from tests.support.firefox import Firefox
from tests.support.gateway import Gateway
from tests.support.streams import delta
from tests.support.waiting import eventually
from tests.support.webkit import WebKit
from tests.support.world import World, unique

# What is behind the text, and the text, as lightness from 0 to 1, and how many pixels the page is too wide.
LOOKS = """() => {
    const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + part / 765, 0);
    const { backgroundColor, color } = getComputedStyle(document.body);
    return [light(backgroundColor), light(color), document.documentElement.scrollWidth - innerWidth];
}"""


@pytest.fixture(scope="module", params=[Firefox, WebKit], ids=lambda browser: browser.name)
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """One window for all tests of this file."""
    try:
        browser: Browser = request.param()
    except FileNotFoundError as missing:
        message = f"no {request.param.name}: {missing} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with browser:
        yield browser


@pytest.fixture
def visitor(browser: Browser, gateway: Gateway) -> Iterator[Browser]:
    """A visitor on a desktop, connected, with a conversation that has not begun; nothing is in the console after it."""
    browser.resize(1200, 800)  # at 1280 the side panel opens, in which everything is written a second time
    browser.open(f"{gateway.base_url}/web/theme.css")  # where nothing runs that would keep the last conversation
    browser.evaluate("() => { sessionStorage.clear(); localStorage.clear(); }")
    browser.open(gateway.base_url)
    browser.sees("연결됨", FAQS[0].question)
    yield browser
    problems, browser.problems = browser.problems, []
    assert problems == []


def ask(visitor: Browser, question: str) -> None:
    """Type a question and send it with Enter."""
    visitor.write("질문", question)
    visitor.press("Enter")


def session_of(world: World, question: str) -> str:
    """The session in which the LLM server was asked this."""
    return str(world.llm.wait_called(query=question)[0].field("session_id"))


def test_a_conversation_goes_on_after_a_reload(visitor: Browser, world: World) -> None:
    """Asked, answered, asked by a click, from memory as well; all of it is there after a reload, and goes on."""
    question, related, later = unique("카드를 추천해 줘"), unique("연회비는"), unique("그리고")
    content = {"answer": "**트래블원**이 좋아요.", "card_list": ["트래블원"], "relatedQuestions": [related]}
    world.llm.on(question, tool_answer(content | {"login_required": False}))
    ask(visitor, question)
    visitor.sees(question, "트래블원이 좋아요.", "자세히 알아보기")
    visitor.click("button", related)
    visitor.sees(f"re: {related}")
    visitor.click("button", FAQS[0].question)
    visitor.sees(FAQS[0].answer)
    visitor.reload()
    visitor.sees("연결됨", "트래블원이 좋아요.", f"re: {related}", FAQS[0].answer)
    ask(visitor, later)
    visitor.sees(f"re: {later}")
    assert len({session_of(world, text) for text in (question, related, later)}) == 1


def test_an_answer_is_seen_growing_and_can_be_stopped(visitor: Browser, world: World) -> None:
    question = unique("천천히")
    world.llm.on(question, Stream([delta("연회비가 "), delta("없는")], then="hang"))
    ask(visitor, question)
    visitor.sees("연회비가 없는")
    visitor.click("button", "답변 중지")
    visitor.sees("중지됨")
    call = world.llm.wait_called(query=question)[0]
    eventually(lambda: call.abandoned, what="the LLM server is no longer asked")
    visitor.find("button", "보내기")


def test_a_login_and_the_push_after_it(visitor: Browser, world: World) -> None:
    question = unique("내 소비에 맞는 카드")
    world.llm.on(question, login_required_answer("로그인이 필요해요"))
    ask(visitor, question)
    visitor.sees("로그인이 필요해요")
    visitor.click("button", PERSONAS[1])
    visitor.sees("추천 카드입니다.", "카드의정석2", f"{PERSONAS[1]} 님으로 로그인했습니다")


def test_feedback_is_kept(visitor: Browser, world: World) -> None:
    question = unique("평가")
    ask(visitor, question)
    visitor.sees(f"re: {question}")
    session = session_of(world, question)

    def choose(button: str, stored: bool | None) -> None:
        visitor.click("button", button)
        eventually(lambda: world.feedback(session) == [stored], what=f"feedback {stored}")

    choose("도움이 됐어요", True)
    choose("도움이 안 됐어요", False)
    choose("도움이 안 됐어요", None)


def test_a_gateway_killed_and_back(visitor: Browser, world: World, mortal_gateway: Gateway) -> None:
    """The page says so, a click on the way does no harm, and what was asked meanwhile is answered."""
    before, meanwhile = unique("전에"), unique("그동안")
    visitor.open(mortal_gateway.base_url)
    visitor.sees("연결됨")
    ask(visitor, before)
    visitor.sees(f"re: {before}")
    mortal_gateway.kill()
    visitor.sees("연결이 끊겨 다시 연결합니다")
    ask(visitor, meanwhile)
    visitor.click("button", "지금 연결")
    mortal_gateway.start()
    visitor.sees("연결됨", f"re: {before}", f"re: {meanwhile}")
    assert session_of(world, before) == session_of(world, meanwhile)
    visitor.problems.clear()  # a lost connection is in the console, and has to be


def test_english(visitor: Browser) -> None:
    """The page changes at once, and stays so after a reload."""
    visitor.click("button", "English")
    visitor.sees("Card assistant", "Connected", "Frequent questions")
    visitor.reload()
    visitor.sees("Connected")
    visitor.click("button", "한국어")
    visitor.sees("카드 상담 챗봇", "연결됨")


def test_dark_and_on_a_small_phone(visitor: Browser, world: World, screenshots: Path) -> None:
    """320 pixels wide and in the dark all is there, nothing sticks out, and a question is asked from the menu."""
    visitor.resize(320, 640)
    question = unique("표")
    world.llm.on(question, answer("|카드|연회비|혜택|\n|-|-|-|\n|트래블|20,000원|라운지와 마일리지와 수수료|"))
    ask(visitor, question)
    visitor.sees("라운지와 마일리지와 수수료")
    visitor.click("button", "메뉴")
    visitor.click("button", FAQS[0].question)
    visitor.sees(FAQS[0].answer)
    visitor.screenshot(screenshots / f"{type(visitor).name}-320-dark.png")
    behind, text, too_wide = visitor.evaluate(LOOKS)
    assert (behind < 0.2, text > 0.8, too_wide <= 0) == (True, True, True), (behind, text, too_wide)


def test_the_documentation_makes_a_call_and_a_conversation(
    visitor: Browser, gateway: Gateway, screenshots: Path
) -> None:
    """A REST call and a frame on a WebSocket, tried on the page itself."""
    visitor.open(f"{gateway.base_url}/docs")
    visitor.click("summary", "/api/qna/faq")
    form = ("form", "Try GET /api/qna/faq")
    visitor.write("top_k", "1", inside=form)
    visitor.click("button", "Send", inside=form)
    visitor.sees("200", max(FAQS, key=lambda faq: faq.views or 0).question)
    console = ("region", "WebSocket")
    visitor.click("button", "Connect", inside=console)
    visitor.sees('"session_id"')
    visitor.click("button", "Send", inside=console)
    visitor.sees('"message": "re: ')
    visitor.screenshot(screenshots / f"{type(visitor).name}-docs.png")
    for width in (320, 1280):
        visitor.resize(width, 640)
        assert visitor.evaluate(LOOKS)[2] <= 0
