"""What is written, in characters as people see them: counted, cut, quoted, mended and refused."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import WebSocketRoute, expect

from tests.page.conftest import ChatPage, OpenChat
from tests.support.backends import Held, answer
from tests.support.gateway import Gateway
from tests.support.world import NewGateway, World, unique

FAMILY = "👨‍👩‍👧"  # one character, five code points, eight UTF-16 units
MAX_CHARS = 4000


def test_a_question_may_have_as_many_characters_as_the_gateway_takes(chat: ChatPage) -> None:
    """4,000 code points, whether or not one of them is an emoji of two UTF-16 units."""
    question = "🙂" * (MAX_CHARS - 1) + "?"
    chat.ask(question)
    chat.expect_answer(f"re: {question}")


def test_a_paste_that_is_too_long_is_cut_where_it_was_put_and_says_so(chat: ChatPage) -> None:
    prompt, hint = chat.page.locator("#prompt"), chat.page.locator("#hint")
    prompt.fill("앞뒤")
    prompt.evaluate("(node) => node.setSelectionRange(1, 1)")
    chat.page.keyboard.insert_text(FAMILY * (MAX_CHARS // 5 + 9))
    value = prompt.input_value()
    assert value == "앞" + FAMILY * ((MAX_CHARS - 2) // 5) + "뒤"
    expect(hint).to_contain_text("4,000자까지")
    chat.page.keyboard.press("Backspace")
    expect(hint).to_contain_text("자 남음")


def test_a_long_question_is_quoted_without_half_a_character(chat: ChatPage, world: World) -> None:
    first, second = "가" * 38 + FAMILY + unique("나"), unique("다음")
    reply = Held(answer("먼저 답"))
    world.llm.on(first, reply)
    chat.ask(first)
    chat.ask(second)
    reply.release()
    expect(chat.answers).to_have_count(2)
    expect(chat.answers.first.locator(".reply")).to_have_text("“" + "가" * 38 + "…”에 대한 답변")


def test_half_a_surrogate_pair_is_mended_before_it_is_sent(chat: ChatPage) -> None:
    """Also where a server has cut an emoji in half that is to be asked about."""
    chat.page.evaluate("document.querySelector('#prompt').value = '반쪽 \\ud83d'")
    chat.page.press("#prompt", "Enter")
    chat.expect_answer("re: 반쪽 \ufffd")
    assert json.loads(chat.sent[-1])["message"] == "반쪽 \ufffd"


def test_an_error_without_an_id_blames_no_prompt(
    open_tab: Any, open_chat: OpenChat, gateway: Gateway, world: World
) -> None:
    """It is said, and the prompt that waits gets its answer."""
    page = open_tab()
    sockets: list[WebSocketRoute] = []

    def between(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    page.route_web_socket("**/api/chat/ws**", between)
    question, reply = unique("기다림"), Held(answer("답이에요"))
    world.llm.on(question, reply)
    page.goto(gateway.base_url)
    chat = open_chat(page=page)
    chat.ask(question)
    world.llm.wait_called(query=question)
    for error in ("JSON format", "message: message_id is missing", "message: the frame is longer than 65536 bytes"):
        sockets[0].send(json.dumps({"error": f"Invalid {error}"}))
    expect(page.locator("#log .line")).to_have_count(3)
    expect(page.locator("#log .failed")).to_have_count(0)
    reply.release()
    chat.expect_answer("답이에요")


def test_of_several_prompts_the_one_that_is_too_long_is_refused(
    open_chat: OpenChat, world: World, new_gateway: NewGateway
) -> None:
    """Closed with 1009, the page blames the longest; the others are sent again and answered."""
    chat = open_chat(new_gateway(world, start="python", MAX_FRAME_BYTES="1024"))
    first, last = unique("먼저"), unique("나중")
    reply = Held(answer("먼저 답"))
    world.llm.on(first, reply)
    chat.ask(first)
    world.llm.wait_called(query=first)
    chat.ask("긴 질문 " * 200)
    chat.ask(last)
    expect(chat.page.locator("#log .failed")).to_have_count(1)
    reply.release()
    chat.expect_answer(f"re: {last}")
    expect(chat.page.locator("#log .failed .bubble")).to_contain_text("긴 질문")
    assert chat.answers.count() == 2
