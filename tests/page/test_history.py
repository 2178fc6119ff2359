"""A conversation that is come back to: a long one, one of an hour ago by a clock that is wrong, one half unread."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.conftest import ChatPage
from tests.support.backends import Held, answer
from tests.support.gateway import Gateway
from tests.support.world import World, unique

ROWS = 500
KATHMANDU = ZoneInfo("Asia/Kathmandu")  # 45 minutes off every other zone
LONG_ANSWER = (
    "\n\n**혜택**은 이렇습니다.\n\n- 커피 10%\n- 배달 *5%*\n\n|카드|연회비|\n|-|-|\n|트래블|2만 원|\n\n"
    + "설명입니다. " * 20
)

FILL = """
    CREATE TEMP TABLE turn ON COMMIT DROP AS
        SELECT n, gen_random_uuid() AS prompt, gen_random_uuid() AS answer,
               now() - interval '1 h' + n * interval '2 s' AS at
        FROM generate_series(1, {turns}) AS n;
    INSERT INTO "Chat" (id, session_id, is_user, content, created_at)
        SELECT prompt, '{session}', true, '질문 ' || n, at FROM turn;
    INSERT INTO "Chat" (id, session_id, is_user, content, created_at)
        SELECT answer, '{session}', false, '답변 ' || n || E'\\n\\n' || '{text}', at + interval '1 s' FROM turn;
    INSERT INTO "ChatbotResponse" (chat_id, prompt_chat_id) SELECT answer, prompt FROM turn;
"""


def test_a_long_conversation_is_shown_from_its_end(chat: ChatPage, browser: Browser, world: World) -> None:
    """500 rows: the newest at once, the others above them without moving anything, no task of more than 100 ms."""
    world.chatdb.execute(FILL.format(turns=ROWS // 2, session=chat.session_id, text=LONG_ANSWER))
    chat.page.add_init_script(
        """addEventListener("DOMContentLoaded", () => {
            const log = document.querySelector("#log");
            window.grown = [];
            new MutationObserver(() => {
                window.grown.push([log.children.length, log.lastChild?.innerText.includes("답변 250")]);
            }).observe(log, { childList: true });
        });"""
    )
    browser.start_tracing(page=chat.page, categories=["toplevel"])
    chat.page.reload()
    expect(chat.answers).to_have_count(ROWS // 2)
    chat.connected()
    events = json.loads(browser.stop_tracing())["traceEvents"]
    grown = chat.page.evaluate("window.grown")
    assert grown[0][0] < 100
    assert all(is_end_there for _, is_end_there in grown)
    assert chat.texts()[0] == "질문 1"
    expect(chat.answers.last).to_be_in_viewport()
    assert max(event.get("tdur", 0) for event in events) < 100_000  # microseconds of the browser's own time


@pytest.fixture(params=[-3601, 3601])
def wrong_clock(request: pytest.FixtureRequest, open_tab: Callable[..., Page], gateway: Gateway) -> Iterator[ChatPage]:
    """The page in a browser whose clock is off by an hour and a second."""
    page = open_tab(timezone_id="Asia/Kathmandu")
    page.clock.install(time=time.time() + request.param)
    chat = ChatPage(page, gateway).open()
    yield chat
    assert chat.problems == []


def test_a_clock_that_is_off_shows_nowhere(wrong_clock: ChatPage, world: World) -> None:
    """Times are the server's, in the visitor's zone, and waiting is counted by no clock that can be set."""
    chat = wrong_clock
    question, reply = unique("몇 시"), Held(answer("지금이요"))
    world.llm.on(question, reply)
    chat.ask(question)
    world.llm.wait_called(query=question)

    def waited() -> int:
        text = chat.page.locator("#typing span").last.inner_text()
        return int("".join(letter for letter in text if letter.isdigit()) or -1)

    shown = chat.page.locator("#log .me time")
    for _ in range(2):
        expect(chat.page.locator("#typing")).to_be_visible()
        assert 0 <= waited() < 60
        at = datetime.fromisoformat(str(shown.get_attribute("datetime")))
        now = datetime.now(UTC)
        assert abs((now - at).total_seconds()) < 60
        minutes = {f"{moment.astimezone(KATHMANDU):%-I:%M}" for moment in (at, now - timedelta(seconds=60))}
        assert any(minute in shown.inner_text() for minute in minutes)
        chat.page.evaluate(
            "sessionStorage.setItem('chat-session', JSON.stringify(Object.assign("
            "JSON.parse(sessionStorage.getItem('chat-session')), { pending: [] })))"
        )
        chat.page.reload()
        chat.connected()
    reply.release()
    chat.expect_answer("지금이요")
