"""docs/front-end.md: the code in it runs as it stands, on a page of another origin, against a real gateway."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.page.test_streaming import Told
from tests.support.gateway import ALLOWED_ORIGIN, Gateway
from tests.support.processes import ROOT
from tests.support.waiting import PATIENCE_SECONDS, eventually
from tests.support.world import World, unique

NAMES = ("front-end.md", "front-end.ko.md")
ENGLISH, KOREAN = (
    re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs" / name).read_text("utf-8"), re.M | re.S) for name in NAMES
)
TODAY, KEY, RESUMING, DELTAS, STOPPING = range(5)
# The front end's own part: it takes note of what it would show.
SHOW = """
    const shown = { connected: null, answers: [], errors: [], rows: [], drafts: [], fresh: [] };
    const showConnected = (value) => (shown.connected = value);
    const showAnswer = (frame) => shown.answers.push(frame);
    const showError = (...error) => shown.errors.push(error);
    const showRow = (row) => shown.rows.push(row);
    const showDraft = (message_id, text, tool_name) => shown.drafts.push([text, tool_name]);
    const showNewSession = (pending) => shown.fresh.push(pending);
"""

OpenPage = Callable[..., "FrontEnd"]


class FrontEnd:
    """A page with the code of the document, up to a step."""

    def __init__(self, page: Page, gateway: Gateway, step: int) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        code = [block.replace("https://chat.example.com", gateway.base_url) for block in ENGLISH[: step + 1]]
        scripts = "".join(f"<script>{block}</script>" for block in [SHOW, *code])
        page.route(
            f"{ALLOWED_ORIGIN}/", lambda route: route.fulfill(body=scripts, content_type="text/html; charset=utf-8")
        )
        page.goto(ALLOWED_ORIGIN)
        self.run("start()" if step >= RESUMING else "connect()")
        self.until("shown.connected")

    def run(self, code: str) -> Any:
        return self.page.evaluate(code)

    def until(self, condition: str) -> Any:
        """What the condition gives, once it is true."""
        return self.page.wait_for_function(condition, timeout=1000 * PATIENCE_SECONDS).json_value()

    def ask(self, question: str) -> str:
        """Ask, and return the id of the prompt."""
        return str(self.page.evaluate("(message) => ask(message)", question))

    def answer(self, message_id: str) -> Any:
        """The answer to a prompt, once it is there."""
        return self.until(f"shown.answers.find((frame) => frame.message_id === '{message_id}')")


@pytest.fixture
def open_page(open_tab: Callable[..., Page], gateway: Gateway) -> Any:
    """Opens the front end's page with the code of the document up to a step; no error is left unseen in it."""
    pages: list[FrontEnd] = []

    def make(step: int, of: Gateway = gateway) -> FrontEnd:
        pages.append(FrontEnd(open_tab(), of, step))
        return pages[-1]

    yield make
    assert [problem for page in pages for problem in page.problems] == []


def test_both_languages_have_the_same_code() -> None:
    """Apart from the comments."""
    assert len(ENGLISH) == len(KOREAN) == 5
    for english, korean in zip(ENGLISH, KOREAN, strict=True):
        assert re.sub("//.*[^;]$", "", english, flags=re.M) == re.sub("//.*[^;]$", "", korean, flags=re.M)


@pytest.mark.parametrize("step", range(5))
def test_every_step_asks_and_is_answered(open_page: OpenPage, step: int) -> None:
    """And shows an error with the prompt that it is about."""
    page, question = open_page(step), unique("질문")
    assert page.answer(page.ask(question))["message"] == f"re: {question}"
    refused = page.ask(" ")
    assert page.until("shown.errors[0]")[1] == refused


def test_the_key_opens_the_history(open_page: OpenPage) -> None:
    page, question = open_page(KEY), unique("기록")
    page.answer(page.ask(question))
    assert [row["content"] for row in page.run("loadHistory()")] == [question, f"re: {question}"]
    page.run("keep({ key: 'x' })")
    assert page.run("loadHistory()") == []


def test_a_session_survives_a_killed_gateway_and_a_reload(
    open_page: OpenPage, mortal_gateway: Gateway, world: World
) -> None:
    """What was asked meanwhile is answered, nothing is lost, and nothing comes twice."""
    page = open_page(RESUMING, mortal_gateway)
    before, meanwhile = unique("전에"), unique("그동안")
    page.answer(page.ask(before))
    session = page.run("kept.session_id")
    mortal_gateway.kill()
    page.until("!shown.connected")
    later = page.ask(meanwhile)
    mortal_gateway.start()
    page.answer(later)
    assert page.run("kept.session_id") == session
    page.page.reload()
    page.run("start()")
    page.until("shown.connected")
    texts = [before, f"re: {before}", meanwhile, f"re: {meanwhile}"]
    assert [row["content"] for row in page.run("shown.rows")] == texts
    assert page.run("[kept.pending, shown.answers]") == [[], []]
    assert [turn["answer"] for turn in world.turns(session)] == [texts[1], texts[3]]


def test_a_session_that_cannot_be_resumed_takes_its_questions_along(open_page: OpenPage) -> None:
    """Under new ids, since the old session may have stored the old ones."""
    page, question = open_page(RESUMING), unique("다시")
    page.run("keep({ key: 'x' }); isOnline = false")
    old = page.ask(question)
    page.run("socket.close()")
    [[prompt]] = page.until("shown.fresh.length && shown.fresh")
    assert prompt["message_id"] != old
    assert page.answer(prompt["message_id"])["message"] == f"re: {question}"


def test_an_answer_is_seen_growing(open_page: OpenPage, world: World) -> None:
    page, question, told = open_page(DELTAS), unique("천천히"), Told()
    world.llm.on(question, told)
    message_id = page.ask(question)
    told.tell({"tool_name": "query_faq_database"})
    page.until("shown.drafts.at(-1)?.[1] === 'query_faq_database'")
    for piece, whole in (("연회비가 😀", "연회비가 😀"), ("없는", "연회비가 😀없는")):
        told.say(piece)
        page.until(f"shown.drafts.at(-1)?.[0] === '{whole}'")
    told.end("연회비가 없는 카드")
    assert page.answer(message_id)["message"] == "연회비가 없는 카드"
    assert page.run("drafts.size") == 0


def test_an_answer_is_stopped(open_page: OpenPage, world: World) -> None:
    """Also where the stop had no connection to go by."""
    page = open_page(STOPPING)
    for is_offline in (False, True):
        question, told = unique("그만"), Told()
        world.llm.on(question, told)
        message_id = page.ask(question)
        told.say("여기까지")
        page.until("shown.drafts.at(-1)?.[0] === '여기까지'")
        if is_offline:
            page.run("isOnline = false; socket.close()")
        page.run(f"stop('{message_id}')")
        answer = page.answer(message_id)
        assert (answer["message"], answer["stopped"]) == ("여기까지", True)
    eventually(lambda: all(call.abandoned for call in world.llm.calls_with(query=question)), what="no longer asked")
