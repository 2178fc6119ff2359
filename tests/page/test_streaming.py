"""The chat page while an answer is being made: it grows, moves nothing, and can be stopped."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.conftest import ChatPage, OpenChat
from tests.page.test_looks import AA_CONTRAST, LOW_CONTRAST, NAMELESS, SCHEMES, WATCH_SHIFTS, overflow
from tests.support.backends import Call, Receive, Send, Stream, answer, event
from tests.support.background import background
from tests.support.gateway import Gateway
from tests.support.waiting import eventually
from tests.support.world import World, unique

LONG = "한 줄입니다.\n\n" * 60
RICH = (
    "**도담카드**의 `혜택`이에요.\n\n- **커피** 10%\n- 배달 *5%*\n\n1. 하나\n2. **둘**\n\n"
    "|카드|연회비|\n|-|-|\n|트래블|2만 원|\n|모닝컵|없음|\n\n끝 [안내](https://example.com)"
)


class Told:
    """An LLM server's stream that says what the test tells it, when the test tells it."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, text: str) -> None:
        self.tell({"delta": text})

    def end(self, text: str, tool: dict[str, Any] | None = None) -> None:
        self.tell({"answer": text, "tool_response": tool})
        background.call(self._pieces.put_nowait, b"")

    def tell(self, value: object) -> None:
        background.call(self._pieces.put_nowait, event(value))

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(self._caller_gone(receive))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while not gone.done():
            piece = asyncio.create_task(self._pieces.get())
            await asyncio.wait([piece, gone], return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                piece.cancel()
                call.abandoned = True
                return
            await send({"type": "http.response.body", "body": piece.result(), "more_body": bool(piece.result())})
            if not piece.result():
                break
        gone.cancel()

    async def _caller_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


def asked(chat: ChatPage, world: World, *replies: Any) -> tuple[str, Told]:
    """Asks a question; what is answered first is what the test tells."""
    question, told = unique("질문"), Told()
    world.llm.on(question, told, *replies)
    chat.ask(question)
    return question, told


def grown(chat: ChatPage, text: str) -> None:
    expect(chat.page.locator("#draft .text")).to_have_text(text)


def test_an_answer_grows_and_is_replaced_by_the_whole(chat: ChatPage, world: World) -> None:
    page = chat.page
    draft, typing = page.locator("#draft"), page.locator("#typing")
    question, told = asked(chat, world)
    told.tell({"tool_name": "query_faq_database"})
    expect(typing).to_contain_text("FAQ를 찾는 중…")
    told.say("**연회비**는 ")
    grown(chat, "연회비는")
    expect(typing).to_contain_text("답변을 쓰고 있습니다")
    expect(draft.locator(".tool")).to_have_text("자주 묻는 질문")
    told.say("**해마다")
    grown(chat, "연회비는 해마다")
    expect(draft.locator("strong")).to_have_text(["연회비", "해마다"])
    expect(draft.locator("button, time")).to_have_count(0)
    expect(chat.answers).to_have_count(0)
    top = draft.locator(".text").bounding_box()

    content = {"answer": "**연회비**는 해마다 나와요."}
    told.end("", {"tool_name": "query_faq_database", "tool_response_content": content})
    row = chat.expect_answer("연회비는 해마다 나와요.")
    expect(draft).to_have_count(0)
    expect(typing).to_be_hidden()
    expect(row.locator(".rating")).to_be_visible()
    now = row.locator(".text").bounding_box()
    assert top and now and (now["x"], now["y"]) == (top["x"], top["y"]), "it stays where it was"
    assert chat.texts() == [question, "연회비는 해마다 나와요."]
    assert "stream=true" in chat.sockets[-1]


def test_a_growing_answer_is_not_read_out_piece_by_piece(chat: ChatPage, world: World) -> None:
    """It says that it is busy, outside of what is read out; whole, it is added there, once."""
    _, told = asked(chat, world)
    told.say("조금")
    grown(chat, "조금")
    expect(chat.page.locator("#draft")).to_have_attribute("aria-busy", "true")
    expect(chat.page.locator("[aria-live] #draft, [role=status] #draft")).to_have_count(0)
    chat.page.evaluate(
        """() => {
            window.added = [];
            new MutationObserver((records) => window.added.push(...records.flatMap((one) => [...one.addedNodes])))
                .observe(document.getElementById("log"), { childList: true, subtree: true, characterData: true });
        }"""
    )
    told.say("조금 더")
    grown(chat, "조금조금 더")
    assert chat.page.evaluate("window.added.length") == 0
    told.end("조금조금 더")
    chat.expect_answer("조금조금 더")
    assert chat.page.evaluate("window.added.length") == 1


def test_an_answer_is_drawn_ten_times_a_second_at_most(chat: ChatPage, world: World) -> None:
    question = unique("빨리")
    pieces: list[bytes | float] = []
    for number in range(150):
        pieces += [event({"delta": f"{number} 번째, "}), 0.01]
    world.llm.on(question, Stream([*pieces, event({"answer": "끝", "tool_response": None})]))
    chat.page.evaluate(
        """() => {
            window.drawn = [];
            const isText = ({ target }) => (target.closest ? target : target.parentElement)?.closest("#draft");
            new MutationObserver((records) => records.some(isText) && window.drawn.push(performance.now()))
                .observe(document.body, { childList: true, subtree: true, characterData: true });
        }"""
    )
    chat.ask(question)
    chat.expect_answer("끝")
    drawn = chat.page.evaluate("window.drawn")
    assert len(drawn) > 5
    assert len(drawn) - 1 <= 10 * (drawn[-1] - drawn[0]) / 1000 + 1


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_a_stop_keeps_what_was_made(chat: ChatPage, world: World, way: str) -> None:
    question, told = asked(chat, world)
    told.say("여기까지 ")
    told.say("**썼어요")
    grown(chat, "여기까지 썼어요")
    stop, send = chat.page.locator("#stop"), chat.page.locator("#send")
    expect(send).to_be_hidden()
    if way == "button":
        chat.page.get_by_role("button", name="답변 중지").click()
    else:
        chat.page.keyboard.press("Escape")
    row = chat.expect_answer("여기까지 썼어요")
    expect(row.locator("strong")).to_have_text("썼어요")  # as it looked when it was stopped
    expect(row.locator(".meta")).to_contain_text("중지됨")
    expect(row.locator(".rating")).to_be_visible()
    expect(chat.page.locator("#draft")).to_have_count(0)
    expect(stop).to_be_hidden()
    expect(send if way == "button" else chat.page.locator("#prompt")).to_be_focused()
    eventually(lambda: world.llm.calls_with(query=question)[0].abandoned, what="the LLM server is left")
    chat.page.reload()
    chat.connected()
    expect(chat.answers.locator(".meta")).to_contain_text("중지됨")
    assert chat.texts() == [question, "여기까지 썼어요"]
    chat.ask(unique("다음"))
    expect(chat.answers).to_have_count(2)
    expect(chat.answers.last.locator(".meta")).not_to_contain_text("중지됨")


def test_a_stop_ends_one_answer_and_what_waits_goes_on(chat: ChatPage, world: World) -> None:
    """A question can be sent while another is answered, so that both buttons are there once there is a text."""
    _, told = asked(chat, world)
    told.say("첫째")
    grown(chat, "첫째")
    second = unique("둘째")
    chat.page.fill("#prompt", second)
    expect(chat.page.locator("#stop")).to_be_visible()
    chat.page.locator("#send").click()
    expect(chat.prompts).to_have_count(2)
    chat.page.keyboard.press("Escape")
    expect(chat.answers.locator(".text")).to_have_text(["첫째", f"re: {second}"])
    expect(chat.page.locator("#stop")).to_be_hidden()
    assert sum('"stop"' in frame for frame in chat.sent) == 1


def test_escape_closes_a_question_before_it_stops_an_answer(chat: ChatPage, world: World) -> None:
    _, told = asked(chat, world)
    told.say("아직")
    grown(chat, "아직")
    chat.page.click("#fresh")
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("#confirm")).to_be_hidden()
    told.end("다 됐어요")
    chat.expect_answer("다 됐어요")
    assert not [frame for frame in chat.sent if '"stop"' in frame]


def test_a_reload_goes_on_with_what_has_been_made(chat: ChatPage, world: World) -> None:
    question, told = asked(chat, world)
    told.say("먼저 ")
    grown(chat, "먼저")
    chat.page.reload()
    chat.connected()
    grown(chat, "먼저")
    told.say("나중")
    grown(chat, "먼저 나중")
    told.end("먼저 나중 끝")
    chat.expect_answer("먼저 나중 끝")
    assert chat.texts() == [question, "먼저 나중 끝"]
    assert len(world.llm.calls_with(query=question)) == 1


def test_a_new_conversation_leaves_nothing_of_a_growing_answer(chat: ChatPage, world: World) -> None:
    _, told = asked(chat, world)
    told.say("옛것")
    grown(chat, "옛것")
    chat.page.click("#fresh")
    chat.page.click("#fresh-yes")
    expect(chat.page.locator("#draft")).to_have_count(0)
    _, next_told = asked(chat, world)
    next_told.say("새것")
    grown(chat, "새것")
    told.end("옛것")
    next_told.end("새것")
    chat.expect_answer("새것")


def test_an_answer_begins_anew_where_its_gateway_was_killed(
    open_chat: OpenChat, world: World, mortal_gateway: Gateway
) -> None:
    chat = open_chat(mortal_gateway)
    again = Told()
    question, told = asked(chat, world, again)
    told.say("처음 쓴 것")
    grown(chat, "처음 쓴 것")
    chat.is_cut_off = True
    mortal_gateway.kill()
    chat.says("waiting")
    expect(chat.page.locator("#typing")).to_contain_text("다시 연결되면")
    mortal_gateway.start()
    chat.connected()
    again.say("다시")
    grown(chat, "다시")
    again.end("다시 썼어요")
    chat.expect_answer("다시 썼어요")
    assert chat.texts() == [question, "다시 썼어요"]


def test_a_stop_without_a_connection_is_kept_for_the_next_one(
    open_chat: OpenChat, world: World, mortal_gateway: Gateway
) -> None:
    chat = open_chat(mortal_gateway)
    _, told = asked(chat, world, Told())
    told.say("끊기기 전")
    grown(chat, "끊기기 전")
    chat.is_cut_off = True
    mortal_gateway.kill()
    chat.says("waiting")
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("#stop")).to_have_attribute("aria-disabled", "true")
    mortal_gateway.start()
    chat.expect_answer("답변이 중지되었습니다.")
    expect(chat.answers.last.locator(".meta")).to_contain_text("중지됨")


def test_nothing_shifts_while_an_answer_grows(chat: ChatPage, world: World) -> None:
    """No layout shift from the first piece to the whole answer, lists, tables and cards included."""
    _, told = asked(chat, world)
    chat.page.wait_for_timeout(600)  # what moves within half a second of a key does not count
    chat.page.evaluate(WATCH_SHIFTS)
    for piece in RICH.split("\n"):
        told.say(piece + "\n")
        expect(chat.page.locator("#draft")).to_be_visible()
        chat.page.wait_for_timeout(110)  # a drawing each
    content = {"answer": RICH, "card_list": ["카드", "카드"], "relatedQuestions": ["다음?"], "login_required": False}
    told.end("", {"tool_name": "get_card_recommendation", "tool_response_content": content})
    expect(chat.answers.locator(".card")).to_have_count(2)
    chat.page.wait_for_timeout(200)
    assert chat.page.evaluate("window.shifts") == []


def test_the_reader_decides_where_the_conversation_is_scrolled_to(chat: ChatPage, world: World) -> None:
    page, scroll = chat.page, chat.page.locator("#scroll")
    box = scroll.bounding_box()
    assert box

    def place() -> tuple[float, float]:
        """How far from the top, and from the end."""
        top, below = scroll.evaluate(
            "(node) => [node.scrollTop, node.scrollHeight - node.scrollTop - node.clientHeight]"
        )
        return top, below

    _, told = asked(chat, world)
    told.say("한 줄입니다.\n\n" * 3)
    expect(page.locator("#draft p")).to_have_count(3)
    told.say("한 줄입니다.\n\n" * 3)
    expect(page.locator("#draft p")).to_have_count(6)
    assert place()[1] < 2, "who is at the end stays there"
    told.say(LONG)
    expect(page.locator("#draft p")).to_have_count(66)
    first = page.locator("#draft").bounding_box()
    assert first and box["y"] <= first["y"] < box["y"] + 40, "the first line does not leave the screen by itself"

    page.mouse.move(box["x"] + 100, box["y"] + 100)
    before = place()[0] - 40
    page.mouse.wheel(0, -40)
    chat.eventually(lambda: place()[0] == before)
    for count in (126, 186):
        told.say(LONG)
        expect(page.locator("#draft p")).to_have_count(count)
        assert place()[0] == before
    expect(page.locator("#latest")).to_be_hidden()  # what is new begins on the screen
    told.end(LONG * 3)
    expect(chat.answers.locator(".text p")).to_have_count(180)
    assert place()[0] == before


def test_who_has_scrolled_up_is_not_pulled_down(chat: ChatPage, world: World) -> None:
    page, scroll = chat.page, chat.page.locator("#scroll")
    before = unique("앞선")
    world.llm.on(before, answer(LONG))
    chat.ask(before)
    expect(chat.answers.locator(".text p")).to_have_count(60)
    _, told = asked(chat, world)
    told.say("하나")
    grown(chat, "하나")
    box = scroll.bounding_box()
    assert box
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.wheel(0, -60)  # still near the end
    below = "(node) => node.scrollHeight - node.scrollTop - node.clientHeight"
    chat.eventually(lambda: scroll.evaluate(below) >= 60)
    top = scroll.evaluate("(node) => node.scrollTop")
    told.say(" 둘")
    grown(chat, "하나 둘")
    assert scroll.evaluate("(node) => node.scrollTop") == top
    page.mouse.wheel(0, -2000)
    expect(page.locator("#draft")).not_to_be_in_viewport()
    told.say(" 셋")
    expect(page.locator("#latest")).to_be_visible()
    page.click("#latest")
    expect(page.locator("#draft")).to_be_in_viewport()
    told.say("\n\n" + LONG)
    expect(page.locator("#draft p")).to_have_count(61)
    told.end("하나 둘 셋")
    chat.expect_answer("하나 둘 셋")


@pytest.mark.parametrize("width", [1280, 320])
def test_names_contrast_and_room_while_an_answer_grows(
    open_chat: OpenChat, world: World, screenshots: Path, width: int
) -> None:
    chat = open_chat(width=width, height=800 if width > 400 else 640)
    page = chat.page

    def look(name: str) -> None:
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=screenshots / f"{name}-{width}-{scheme}.png")
            assert page.evaluate(NAMELESS) == []
            assert page.evaluate(LOW_CONTRAST, AA_CONTRAST) == []
            assert overflow(page) <= 0

    _, told = asked(chat, world)
    told.tell({"tool_name": "get_card_recommendation"})
    expect(page.locator("#typing")).to_contain_text("카드를 고르는 중…")
    look("tool")
    told.say(RICH)
    expect(page.locator("#draft a")).to_have_text("안내")
    page.fill("#prompt", "다음 질문")
    look("growing")
    page.click("#language")
    page.keyboard.press("Escape")
    expect(chat.answers.locator(".meta")).to_contain_text("Stopped")
    look("stopped")


def test_no_half_of_a_mark_is_seen_of_a_growing_text(chat: ChatPage) -> None:
    """Whatever has come of it; what was drawn stays in place, and is in the end what the whole text is."""
    seen, same, kept = chat.page.evaluate(
        """async (whole) => {
            const [{ markdown }, { renew, settled }] =
                await Promise.all([import("/web/markdown.js"), import("/web/draft.js")]);
            const into = document.createElement("div");
            const seen = [];
            for (let length = 1; length <= whole.length; length += 1) {
                renew(into, markdown(settled(whole.slice(0, length))));
                seen.push(into.textContent);
                if (length === 20) window.first = into.querySelector("strong");
            }
            const fresh = document.createElement("div");
            fresh.append(markdown(whole));
            return [seen, into.isEqualNode(fresh), into.contains(window.first)];
        }""",
        RICH,
    )
    assert [text for text in seen if "**" in text or "|" in text or "- " in text] == []
    assert same
    assert kept


def test_odd_growing_text_takes_no_time(chat: ChatPage) -> None:
    milliseconds = chat.page.evaluate(
        """async (parts) => {
            const { settled } = await import("/web/draft.js");
            const started = performance.now();
            parts.forEach((part) => settled(part.repeat(200_000 / part.length) + "x"));
            return performance.now() - started;
        }""",
        ["|", "|\n", "\n", "*", " ", "\n ", "- ", "1", "|:\n|", "\n|-"],
    )
    assert milliseconds < 2000


def test_deltas_share_a_row_in_the_side_panel(chat: ChatPage, world: World) -> None:
    _, told = asked(chat, world)
    for text in ("하나", "하나둘", "하나둘셋"):
        told.say(text[-1])
        expect(chat.page.locator("#frames .got").last).to_contain_text(text[-1])
    told.end("하나둘셋")
    chat.expect_answer("하나둘셋")
    rows = [json.loads(text) for text in chat.page.locator("#frames .got pre").all_inner_texts()]
    assert [row.get("type") for row in rows[-3:]] == ["start", "delta", None]


def test_the_console_of_the_documentation_shows_and_stops_an_answer(
    open_tab: Any, gateway: Gateway, world: World
) -> None:
    page = open_tab()
    page.goto(f"{gateway.base_url}/docs")
    frames, stop = page.locator("#frames"), page.get_by_role("button", name="Stop", exact=True)
    page.get_by_label("stream (optional)").check()
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(frames.locator("li").last).to_contain_text('"stream": true')
    expect(stop).to_be_disabled()
    frame = json.loads(page.locator("#ws-frame").input_value())
    question, told = unique("콘솔"), Told()
    world.llm.on(question, told)
    page.fill("#ws-frame", json.dumps(frame | {"message": question}))
    page.locator("#websocket").get_by_role("button", name="Send", exact=True).click()
    told.say("콘솔에서")
    expect(frames.locator("li").last).to_contain_text('"delta"')
    stop.click()
    expect(frames.locator("li").last).to_contain_text('"stopped": true')
