"""A conversation on the chat page: asking, answers, cards, the menu, the login, feedback, the side panel."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import expect

from tests.page.conftest import PERSONAS, ChatPage, OpenChat
from tests.support.backends import CallBack, Held, Json, answer, login_required_answer, recommendation, tool_answer
from tests.support.card_qna import FAQS, TERMS
from tests.support.waiting import eventually
from tests.support.world import World, unique

CHAT_PAGE_BYTES = 200_000
FIRST_QUESTION_MS = 300


def test_a_question_is_answered_and_the_wait_is_shown(chat: ChatPage, world: World) -> None:
    """Dots and the seconds that have passed until the answer comes, then the answer in their place."""
    question = unique("안녕하세요")
    reply = Held(answer("무엇을 **도와**드릴까요?"))
    world.llm.on(question, reply)
    chat.ask(question)
    expect(chat.prompts).to_have_text([question])
    expect(chat.page.locator("#typing")).to_contain_text("답변을 준비하고 있습니다")
    expect(chat.page.locator("#typing")).to_contain_text("1초")
    reply.release()
    row = chat.expect_answer("무엇을 도와드릴까요?")
    expect(row.locator("strong")).to_have_text("도와")
    expect(chat.page.locator("#typing")).to_be_hidden()
    expect(chat.page.locator("#prompt")).to_be_focused()


def test_answers_to_several_prompts_say_what_they_answer(chat: ChatPage, world: World) -> None:
    first, second = unique("먼저"), unique("나중")
    reply = Held(answer("먼저 답"))
    world.llm.on(first, reply)
    chat.ask(first)
    chat.ask(second)
    reply.release()
    expect(chat.answers.locator(".text")).to_have_text(["먼저 답", f"re: {second}"])
    expect(chat.answers.nth(0).locator(".reply")).to_contain_text(first)
    expect(chat.answers.nth(1).locator(".reply")).to_have_count(0)


def test_the_menu_asks_questions_and_terms(chat: ChatPage, world: World) -> None:
    """They come from the REST API, most viewed first, and are answered from memory."""
    most_viewed = max(FAQS, key=lambda faq: faq.views or 0)
    calls = len(world.llm.calls)
    expect(chat.page.locator("#faq .question").first).to_have_text(most_viewed.question)
    chat.page.locator("#faq .question").first.click()
    chat.expect_answer(most_viewed.answer)
    chat.page.locator("#terms .chip", has_text="리볼빙").click()
    chat.expect_answer(TERMS[0].definition)
    assert len(world.llm.calls) == calls
    chat.page.locator("#faq .link").click()
    expect(chat.page.locator("#faq .question")).to_have_count(len(FAQS))


def test_cards_and_related_questions(chat: ChatPage, world: World) -> None:
    """A card may be a name or an object; a related question is asked by a click."""
    question, related = unique("카드 추천"), unique("연회비는")
    card = {"name": "트래블원", "summary": "여행에 좋아요", "annual_fee": 20000, "benefits": ["라운지", "마일리지"]}
    content = {"answer": "이런 카드요", "card_list": ["카드의정석2", card], "relatedQuestions": [related]}
    world.llm.on(question, tool_answer(content | {"login_required": False}))
    chat.ask(question)
    row = chat.expect_answer("이런 카드요")
    expect(row.locator(".tool")).to_have_text("카드 추천")
    expect(row.locator(".card h3")).to_have_text(["카드의정석2", "트래블원"])
    expect(row.locator(".card").nth(1)).to_contain_text("20,000")
    expect(row.locator(".card").nth(1)).to_contain_text("라운지")
    row.locator(".related button").click()
    chat.expect_answer(f"re: {related}")
    assert chat.prompts.last.inner_text() == related


def test_login_with_the_push_after_it(chat: ChatPage, world: World) -> None:
    question = unique("내 소비에 맞는 카드")
    world.llm.on(question, login_required_answer("로그인이 필요해요"))
    tied = CallBack(chat.gateway.base_url, recommendation("커피를 많이 드시네요", ["카페 카드"]))
    world.mcp.on_session(chat.session_id, Json({}, 500), tied)
    chat.ask(question)
    asking = chat.expect_answer("로그인이 필요해요")
    persona = asking.locator(".persona", has_text=PERSONAS[1])
    expect(asking.locator(".persona")).to_have_count(len(PERSONAS))

    chat.is_cut_off = True  # the first try fails, which the console notes
    persona.click()
    expect(asking.locator(".login .note")).to_have_attribute("data-t", "login.failed")
    persona.click()
    push = chat.expect_answer("커피를 많이 드시네요")
    expect(push.locator(".card h3")).to_have_text(["카페 카드"])
    expect(asking.locator(".login .note")).to_contain_text(f"{PERSONAS[1]} 님으로 로그인했습니다")
    expect(chat.page.locator("#persona")).to_have_text(PERSONAS[1])
    assert tied.answers[0][0] == 200
    # The newest answer is the one to be rated.
    expect(asking.locator(".rating")).to_be_hidden()
    expect(push.locator(".rating")).to_be_visible()


def test_feedback_can_be_given_changed_and_taken_back(chat: ChatPage, world: World) -> None:
    question = unique("평가")
    chat.ask(question)
    row = chat.expect_answer(f"re: {question}")
    good, bad = row.locator(".thumb.good"), row.locator(".thumb.bad")

    def stored(value: bool | None) -> None:
        eventually(lambda: world.feedback(chat.session_id) == [value], what=f"feedback {value}")
        expect(good).to_have_attribute("aria-pressed", str(value is True).lower())
        expect(bad).to_have_attribute("aria-pressed", str(value is False).lower())

    good.click()
    stored(True)
    bad.click()
    stored(False)
    bad.click()
    stored(None)
    good.click()
    stored(True)
    chat.page.reload()
    chat.connected()
    expect(chat.answers.locator(".thumb.good")).to_have_attribute("aria-pressed", "true")


def test_what_a_server_said_is_never_markup(chat: ChatPage, world: World) -> None:
    question = unique("위험")
    text = (
        "<img src=x onerror=alert(1)> <script>alert(2)</script> [나쁨](javascript:alert(3))"
        " [좋음](https://example.com/a_(b)) **굵게**는 `코드`\n\n1. 하나\n2. 둘\n   - 속\n\n|가|나|\n|-|-|\n|1|2|"
    )
    content: dict[str, Any] = {"answer": text, "card_list": ["<b>카드</b>"], "relatedQuestions": ["<i>질문</i>"]}
    world.llm.on(question, tool_answer(content | {"login_required": False}))
    chat.ask(question)
    row = chat.answers.last
    expect(row.locator(".card h3")).to_have_text("<b>카드</b>")
    expect(row.locator(".text")).to_contain_text("<script>alert(2)</script>")
    expect(row.locator(".text a")).to_have_attribute("href", "https://example.com/a_(b)")
    expect(row.locator("img, script, .text b, i")).to_have_count(0)
    expect(row.locator(".text strong")).to_have_text("굵게")
    expect(row.locator(".text ol > li > ul > li")).to_have_text("속")
    expect(row.locator(".text td")).to_have_text(["1", "2"])


def test_a_failing_llm_server_can_be_asked_again(chat: ChatPage, world: World) -> None:
    question = unique("다시")
    world.llm.on(question, Json({}, 503), answer("이제 돼요"))
    chat.ask(question)
    row = chat.expect_answer("LLM 서버 오류 (HTTP 503)")
    row.get_by_role("button", name="다시 시도").click()
    chat.expect_answer("이제 돼요")


def test_a_refused_prompt_says_why_and_can_be_sent_again(open_chat: OpenChat, world: World, new_gateway: Any) -> None:
    chat = open_chat(new_gateway(world, PROMPTS_PER_MINUTE="1"))
    chat.ask(unique("하나"))
    expect(chat.answers).to_have_count(1)
    chat.ask(unique("둘"))
    failed = chat.page.locator("#log .failed")
    expect(failed).to_contain_text("메시지를 너무 빨리 보내고 있습니다")
    chat.sent.clear()
    failed.get_by_role("button", name="다시 보내기").click()
    chat.eventually(lambda: chat.sent)
    expect(failed).to_contain_text("메시지를 너무 빨리 보내고 있습니다")


def test_a_new_conversation(chat: ChatPage) -> None:
    """It is asked for once something has been said, and leaves nothing of the old one."""
    old = chat.session_id
    chat.ask(unique("처음"))
    expect(chat.answers).to_have_count(1)
    chat.page.click("#fresh")
    chat.page.click("#fresh-yes")
    expect(chat.answers).to_have_count(0)
    chat.eventually(lambda: chat.session_id not in (old, ""))
    chat.ask(unique("새로"))
    expect(chat.answers).to_have_count(1)


def test_the_side_panel_shows_what_passes(chat: ChatPage) -> None:
    question = unique("프레임")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    frames = chat.page.locator("#frames > li")
    expect(frames.filter(has_text="/api/qna/faq")).to_have_count(1)
    sent, got = chat.page.locator("#frames .sent").last, chat.page.locator("#frames .got").last
    assert json.loads(sent.locator("pre").inner_text()) == json.loads(chat.sent[-1])
    assert json.loads(got.locator("pre").inner_text())["message"] == f"re: {question}"
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sent.get_by_role("button", name="복사").click()
    chat.eventually(lambda: chat.page.evaluate("navigator.clipboard.readText()") == chat.sent[-1])
    chat.page.click("#frames-open")
    expect(chat.page.locator("#inspector")).to_be_hidden()


def test_english(chat: ChatPage) -> None:
    """All of the page changes, what is already on it as well, and stays so."""
    chat.ask(unique("영어"))
    expect(chat.answers).to_have_count(1)
    chat.page.click("#language")
    expect(chat.page).to_have_title("Card assistant")
    expect(chat.page.locator("html")).to_have_attribute("lang", "en")
    expect(chat.page.locator("#state")).to_have_text("Connected")
    expect(chat.answers.get_by_role("button", name="Not helpful")).to_be_visible()
    chat.page.reload()
    chat.connected()
    expect(chat.page.locator("#state")).to_have_text("Connected")


def test_the_page_is_small(open_tab: Any, gateway: Any) -> None:
    """All files of the chat page together, uncompressed."""
    sizes: dict[str, int] = {}
    page = open_tab()
    page.on("response", lambda response: sizes.setdefault(response.url, 0))
    page.goto(gateway.base_url)
    expect(page.locator("#state")).to_have_attribute("data-t", "state.online")
    files = [url for url in sizes if "/web/" in url or url == gateway.base_url + "/"]  # not the REST calls
    total = sum(len(gateway.http.get(url).content) for url in files)
    assert len(files) > 5
    assert total < CHAT_PAGE_BYTES
    # All are asked for at once, and not one after the other as each is found in the last.
    html = gateway.http.get("/").text
    assert [url for url in files if "/web/" in url and url.removeprefix(gateway.base_url) not in html] == []


def test_the_first_question_is_there_at_once(open_tab: Any, gateway: Any) -> None:
    """Within 300 ms of the navigation; the best of some, since the machine may be busy with something else."""
    page = open_tab()
    page.add_init_script(
        """new MutationObserver(() => {
            if (document.querySelector(".example")) window.shown ??= performance.now();
        }).observe(document, { childList: true, subtree: true })"""
    )

    def shown() -> float:
        page.goto(gateway.base_url)
        expect(page.locator(".example").first).to_be_visible()
        return float(page.evaluate("window.shown"))

    assert any(shown() < FIRST_QUESTION_MS for _ in range(10))
