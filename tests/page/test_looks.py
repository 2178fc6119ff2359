"""What the pages owe to every visitor: names, contrast, order, room on a small screen, stillness. And screenshots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import ChatPage, OpenChat
from tests.support.backends import Held, answer, login_required_answer, tool_answer
from tests.support.world import World, unique

AA_CONTRAST = 4.5
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

NAMELESS = """() => [...document.querySelectorAll("button, a[href], input, textarea, [role=region], [role=group]")]
    .filter((node) => node.checkVisibility())
    .filter((node) => !(node.ariaLabel || node.labels?.[0]?.textContent.trim() || node.textContent.trim()))
    .map((node) => node.outerHTML)"""

# The contrast of every visible text with the nearest background behind it, by WCAG's formula.
LOW_CONTRAST = """(least) => {
    const parse = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b]
        .map((value) => value / 255)
        .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
        .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const [r, g, b, alpha = 1] = parse(getComputedStyle(at).backgroundColor);
            if (alpha === 1) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        const isSeen = node.checkVisibility({ visibilityProperty: true }) && !node.closest(".sr, .skip");
        if (!walker.currentNode.data.trim() || !isSeen) continue;
        const both = [luminance(parse(getComputedStyle(node).color)), luminance(behind(node))];
        const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        if (ratio < least) found.push(`${ratio.toFixed(2)} ${walker.currentNode.data.slice(0, 40)}`);
    }
    return found;
}"""

WATCH_SHIFTS = """() => {
    window.shifts = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) {
            const moved = entry.sources.map(({ node }) => node?.outerHTML?.slice(0, 80));
            if (!entry.hadRecentInput) window.shifts.push([entry.value, ...moved]);
        }
    }).observe({ type: "layout-shift", buffered: false });
}"""


def overflow(page: Page) -> int:
    """How many pixels the page is wider than the screen."""
    width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert isinstance(width, int)
    return width


def converse(chat: ChatPage, world: World) -> None:
    """A conversation with something of everything."""
    asked, personal = unique("해외여행에 좋은 카드를 추천해 주세요"), unique("내 소비에 맞는 카드를 추천해 주세요")
    card = {"name": "도담 트래블", "summary": "여행을 가는 분께", "annual_fee": 20000, "benefits": ["라운지", "적립"]}
    content = {
        "answer": "**해외여행**에 어울리는 카드예요.\n\n"
        "- 수수료 없는 카드\n- 라운지가 있는 카드\n\n|카드|연회비|\n|-|-|\n|트래블|2만 원|",
        "card_list": ["도담 모닝컵", card],
        "relatedQuestions": ["해외 결제 수수료는 얼마인가요?", "연회비는 언제 청구되나요?"],
        "login_required": False,
    }
    world.llm.on(asked, tool_answer(content))
    world.llm.on(personal, login_required_answer("소비를 살펴보려면 로그인이 필요해요."))
    chat.ask(asked)
    expect(chat.answers).to_have_count(1)
    chat.answers.locator(".thumb.good").click()
    chat.ask(personal)
    expect(chat.page.locator(".persona").first).to_be_visible()


@pytest.mark.parametrize("width", [1440, 768, 320])
def test_names_contrast_and_room(open_chat: OpenChat, world: World, screenshots: Path, width: int) -> None:
    chat = open_chat(width=width, height=800 if width > 400 else 640)
    page = chat.page

    def look(name: str) -> None:
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(200)
            page.screenshot(path=screenshots / f"{name}-{width}-{scheme}.png")
            assert page.evaluate(NAMELESS) == []
            assert page.evaluate(LOW_CONTRAST, AA_CONTRAST) == []
            assert overflow(page) <= 0

    look("start")
    converse(chat, world)
    look("conversation")
    page.click("#fresh")
    look("question")
    page.click("#fresh-no")
    if width < 960:
        page.get_by_role("button", name="메뉴").click()
        look("menu")
        page.keyboard.press("Escape")
        expect(page.locator("#menu")).to_be_hidden()
        page.click("#frames-open")
        look("frames")


def test_an_answer_moves_nothing(chat: ChatPage, world: World) -> None:
    """No layout shift: not when the dots come, not when the answer takes their place."""
    chat.page.evaluate(WATCH_SHIFTS)
    for number in (0, 1, 3):
        question = unique(f"길이 {number}")
        text = "긴 답변입니다.\n\n" * 3 * number or "짧은 답"
        cards = {"card_list": ["카드"] * number, "relatedQuestions": ["다음?"]}
        reply = Held(tool_answer({"answer": text, "login_required": False} | cards))
        world.llm.on(question, reply)
        chat.ask(question)
        chat.page.wait_for_timeout(700)  # what moves within half a second of a key does not count
        reply.release()
        expect(chat.answers.last.locator(".card")).to_have_count(number)
        expect(chat.page.locator("#typing")).to_be_hidden()
        chat.page.wait_for_timeout(300)
    login = unique("로그인")
    reply = Held(login_required_answer())
    world.llm.on(login, reply)
    chat.ask(login)
    chat.page.wait_for_timeout(700)
    reply.release()
    expect(chat.page.locator(".persona").first).to_be_visible()
    chat.page.wait_for_timeout(400)
    assert chat.page.evaluate("window.shifts") == []


def test_the_keyboard_goes_in_the_order_of_the_page(chat: ChatPage) -> None:
    """Tab visits everything there is, top to bottom, and each stop shows where it is."""
    page = chat.page
    chat.ask(unique("키보드"))
    expect(chat.answers).to_have_count(1)
    page.reload()
    chat.connected()
    stops = []
    for _ in range(80):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            """() => document.activeElement === document.body ? null : {
                name: document.activeElement.id || document.activeElement.className,
                place: [...document.querySelectorAll("*")].indexOf(document.activeElement),
                outline: getComputedStyle(document.activeElement).outlineStyle,
            }"""
        )
        if stop is None:
            break
        stops.append(stop)
    names = [stop["name"] for stop in stops]
    assert names[0] == "skip"
    assert {"fresh", "frames-open", "language", "question", "scroll", "thumb good"} <= set(names)
    assert {"prompt", "send", "frames"} <= set(names)
    assert [stop["place"] for stop in stops] == sorted(stop["place"] for stop in stops)
    assert [stop["name"] for stop in stops if stop["outline"] == "none"] == []


def test_the_first_stop_leads_to_the_question(chat: ChatPage) -> None:
    chat.page.keyboard.press("Tab")
    chat.page.keyboard.press("Enter")
    expect(chat.page.locator("#prompt")).to_be_focused()


def test_answers_are_read_out(chat: ChatPage) -> None:
    log = chat.page.locator("#log")
    expect(log).to_have_attribute("role", "log")
    expect(log).to_have_attribute("aria-live", "polite")
    expect(chat.page.locator("#state")).to_have_attribute("role", "status")
    chat.ask(unique("소리"))
    expect(chat.answers.locator(".sr")).to_have_text("챗봇")


def test_reduced_motion(open_chat: OpenChat, world: World) -> None:
    chat = open_chat(reduced_motion="reduce")
    question = unique("천천히")
    reply = Held(answer("네"))
    world.llm.on(question, reply)
    chat.ask(question)
    dot = chat.page.locator("#typing i").first
    expect(dot).to_be_visible()
    assert dot.evaluate("(node) => getComputedStyle(node).animationName") == "none"
    reply.release()
    chat.expect_answer("네")


@pytest.fixture
def docs(open_tab: Any, gateway: Any) -> Iterator[ChatPage]:
    """The documentation page."""
    page = ChatPage(open_tab(color_scheme="light"), gateway)
    page.page.goto(f"{gateway.base_url}/docs")
    expect(page.page.locator("#ws-frame")).to_be_visible()
    yield page
    assert page.problems == []


def test_the_documentation_shows_every_path(docs: ChatPage, screenshots: Path) -> None:
    paths = docs.gateway.http.get("/openapi.json").json()["paths"]
    shown = docs.page.locator("#rest > details > summary .path").all_inner_texts()
    assert sorted(shown) == sorted(path for path, methods in paths.items() for _ in methods)
    docs.page.screenshot(path=screenshots / "docs.png")


def test_the_documentation_is_for_everyone(docs: ChatPage, screenshots: Path) -> None:
    docs.page.evaluate("document.querySelectorAll('details').forEach((node) => (node.open = true))")
    for scheme in SCHEMES:
        docs.page.emulate_media(color_scheme=scheme)
        assert docs.page.evaluate(NAMELESS) == []
        assert docs.page.evaluate(LOW_CONTRAST, AA_CONTRAST) == []
    docs.page.set_viewport_size({"width": 320, "height": 640})
    assert overflow(docs.page) <= 0
    docs.page.screenshot(path=screenshots / "docs-320-dark.png")


def test_calls_and_frames_can_be_tried_out(docs: ChatPage, screenshots: Path) -> None:
    """The ids and the key of the console's connection are filled into the forms; with them it can be gone on with."""
    page = docs.page
    page.get_by_role("button", name="Connect", exact=True).click()
    frames = page.locator("#frames")
    expect(frames.locator("li")).to_have_count(2)
    page.locator("#websocket").get_by_role("button", name="Send", exact=True).click()
    expect(frames.locator("li").last).to_contain_text("re: ")
    page.screenshot(path=screenshots / "docs-console.png")

    page.locator("#post-api-chat-feedback > summary").click()
    form = page.locator("#post-api-chat-feedback form")
    form.get_by_role("button", name="Send").click()
    expect(form.locator(".status")).to_have_text("200")
    page.locator("#get-api-chat-history-session-id > summary").click()
    form = page.locator("#get-api-chat-history-session-id form")
    form.get_by_role("button", name="Send").click()
    expect(form.locator("pre").last).to_contain_text('"is_helpful": true')
    key, session_id = form.get_by_label("key").input_value(), form.get_by_label("session_id").input_value()
    page.get_by_role("button", name="Disconnect").click()
    expect(frames.locator("li").last).to_contain_text("closed")
    page.locator("#ws-session_id").fill(session_id)
    page.locator("#ws-key").fill(key)
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(frames.locator("li").last).to_contain_text('"resumed": true')
    assert form.get_by_label("key").input_value() == key
    docs.is_cut_off = True  # a refused call shows in the console, and has to
    form.get_by_label("key").fill("none")
    form.get_by_role("button", name="Send").click()
    expect(form.locator(".status")).to_have_text("404")
    form.get_by_label("limit").fill("0")
    form.get_by_role("button", name="Send").click()
    expect(form.locator(".status")).to_have_text("422")
