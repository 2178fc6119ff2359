"""The chat page when connections break, gateways die, tabs are reloaded and sessions end."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Page, Request, expect

from tests.page.conftest import ChatPage, OpenChat
from tests.support.backends import Held, answer
from tests.support.background import background
from tests.support.chat import receive
from tests.support.gateway import Gateway, Start
from tests.support.keys import protocols
from tests.support.network import TcpProxy
from tests.support.waiting import eventually
from tests.support.world import NewGateway, World, unique


def test_a_gateway_killed_during_an_answer(open_chat: OpenChat, world: World, mortal_gateway: Gateway) -> None:
    """The page says so, reconnects, and the answer arrives without a click; nothing is said twice."""
    chat = open_chat(mortal_gateway)
    before, question, later = unique("먼저"), unique("중간"), unique("끊긴 뒤")
    chat.ask(before)
    chat.expect_answer(f"re: {before}")
    session_id = chat.session_id
    reply = Held(answer("다시 왔어요"))
    world.llm.on(question, reply)
    chat.ask(question)
    world.llm.wait_called(query=question)

    chat.is_cut_off = True
    mortal_gateway.kill()
    chat.says("waiting")
    expect(chat.page.locator("#typing")).to_contain_text("다시 연결되면")
    chat.ask(later)
    expect(chat.page.locator("#log .me").last).to_contain_text("연결되면 보냅니다")
    reply.release()
    mortal_gateway.start()

    chat.connected()
    expect(chat.page.locator("#banner")).to_be_hidden()
    chat.expect_answer(f"re: {later}")
    assert chat.texts() == [before, f"re: {before}", question, later, "다시 왔어요", f"re: {later}"]
    assert chat.session_id == session_id
    query = parse_qs(urlsplit(chat.sockets[-1]).query)
    assert query["session_id"] == [session_id]
    assert "+" in query["since"][0]  # escaped, or it would have come as a space
    assert [len(world.llm.calls_with(query=prompt)) for prompt in (before, later)] == [1, 1]
    assert [turn["prompt"] for turn in world.turns(session_id)] == [before, question, later]


def test_a_gateway_told_to_stop_during_an_answer(open_chat: OpenChat, world: World, mortal_gateway: Gateway) -> None:
    """It finishes what it has; a prompt that it refuses meanwhile is answered after the restart."""
    chat = open_chat(mortal_gateway)
    first, second = unique("하나"), unique("둘")
    reply = Held(answer("아직 됐어요"))
    world.llm.on(first, reply)
    chat.ask(first)
    world.llm.wait_called(query=first)
    chat.is_cut_off = True
    mortal_gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: mortal_gateway.http.get("/api/health/ready").status_code == 503, what="not ready any more")
    chat.ask(second)
    expect(chat.page.locator("#log .me").last).to_contain_text("연결되면 보냅니다")
    reply.release()
    chat.expect_answer("아직 됐어요")
    chat.says("restarting")
    mortal_gateway.wait()
    mortal_gateway.start()
    chat.expect_answer(f"re: {second}")
    assert chat.texts() == [first, second, "아직 됐어요", f"re: {second}"]


def test_a_reload_keeps_the_conversation(chat: ChatPage, world: World) -> None:
    question, waiting = unique("기억"), unique("아직")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    reply = Held(answer("늦은 답"))
    world.llm.on(waiting, reply)
    chat.ask(waiting)
    world.llm.wait_called(query=waiting)
    session_id = chat.session_id
    chat.page.reload()
    chat.connected()
    assert chat.session_id == session_id
    expect(chat.page.locator("#typing")).to_be_visible()
    reply.release()
    chat.expect_answer("늦은 답")
    assert chat.texts() == [question, f"re: {question}", waiting, "늦은 답"]
    chat.page.reload()
    chat.connected()
    assert chat.texts() == [question, f"re: {question}", waiting, "늦은 답"]


def test_a_history_that_cannot_be_had_at_first(chat: ChatPage) -> None:
    """It comes as soon as it can be had, whatever has been said meanwhile."""
    before, meanwhile = unique("남아 있나요"), unique("그사이")
    chat.ask(before)
    chat.expect_answer(f"re: {before}")
    chat.is_cut_off = True
    chat.page.route("**/api/chat/history/*", lambda route: route.abort())
    chat.page.reload()
    chat.connected()
    chat.ask(meanwhile)
    chat.expect_answer(f"re: {meanwhile}")
    chat.page.unroute("**/api/chat/history/*")
    expect(chat.prompts).to_have_text([before, meanwhile])
    assert chat.texts() == [before, f"re: {before}", meanwhile, f"re: {meanwhile}"]


def test_two_tabs_on_one_session(chat: ChatPage, open_chat: OpenChat) -> None:
    """The newer one has it; the older one says so, stays away, and can take it back."""
    question, elsewhere = unique("여기"), unique("저기")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    with chat.page.expect_popup() as popup:
        chat.page.evaluate("window.open(location.href)")
    other = open_chat(page=popup.value)
    chat.says("taken")
    assert other.session_id == chat.session_id
    other.ask(elsewhere)
    other.expect_answer(f"re: {elsewhere}")
    sockets = len(chat.sockets)
    chat.page.wait_for_timeout(2000)  # longer than the first pauses
    assert len(chat.sockets) == sockets
    assert chat.texts() == [question, f"re: {question}"]

    chat.page.get_by_role("button", name="여기서 계속하기").click()
    chat.connected()
    other.says("taken")
    assert chat.texts() == [question, f"re: {question}", elsewhere, f"re: {elsewhere}"]


def test_a_session_that_is_gone_becomes_a_new_one(open_chat: OpenChat, world: World, mortal_gateway: Gateway) -> None:
    """The visitor is told, and an unanswered prompt is asked again, under another id."""
    chat = open_chat(mortal_gateway)
    question, waiting = unique("옛날"), unique("기다림")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    session_id = chat.session_id
    chat.is_cut_off = True
    mortal_gateway.kill()
    chat.says("waiting")
    chat.ask(waiting)
    world.chatdb.execute(f"DELETE FROM \"ChatSession\" WHERE session_id = '{session_id}'")
    mortal_gateway.start()
    chat.expect_answer(f"re: {waiting}")
    assert chat.session_id != session_id
    expect(chat.page.locator("#log .line")).to_have_text("이전 대화를 이어 갈 수 없어 새 대화를 시작했습니다.")
    chat.page.reload()
    chat.connected()
    assert chat.texts() == [waiting, f"re: {waiting}"]


def test_a_conversation_whose_session_is_unknown_starts_anew(chat: ChatPage) -> None:
    unknown = {"id": "00000000-0000-4000-8000-000000000000", "since": "2026-01-01T00:00:00.000000+00:00", "pending": []}
    chat.page.evaluate("(value) => sessionStorage.setItem('chat-session', value)", json.dumps(unknown))
    chat.is_cut_off = True  # the history of an unknown session is a 404
    chat.page.reload()
    chat.connected()
    assert chat.session_id != unknown["id"]
    chat.ask(unique("새 시작"))
    expect(chat.answers).to_have_count(1)


def test_the_key_is_kept_for_the_tab_and_stands_in_no_address(chat: ChatPage) -> None:
    """A reload fetches the history and goes on with the session, without anything of it in an address."""
    question = unique("열쇠")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    session_id, key = chat.session_id, chat.page.evaluate("JSON.parse(sessionStorage.getItem('chat-session')).key")
    requests: list[Request] = []
    chat.page.on("request", lambda request: requests.append(request))  # noqa: PLW0108  # playwright needs a function
    chat.page.reload()
    chat.connected()
    assert (chat.session_id, chat.texts()) == (session_id, [question, f"re: {question}"])
    shown = [request.headers["authorization"] for request in requests if "/history/" in request.url]
    assert shown == [f"Bearer {key}"]
    assert chat.page.evaluate("JSON.parse(sessionStorage.getItem('chat-session')).key") == key
    addresses = [request.url for request in requests] + chat.sockets
    assert not [address for address in addresses if key in address]


def test_a_conversation_kept_without_a_key_starts_anew(chat: ChatPage) -> None:
    """As a tab has it that was open before there were keys; the new session has one, and goes on after a reload."""
    chat.ask(unique("옛날"))
    expect(chat.answers).to_have_count(1)
    old = chat.session_id
    chat.page.evaluate(
        "() => { const kept = JSON.parse(sessionStorage.getItem('chat-session')); delete kept.key;"
        " sessionStorage.setItem('chat-session', JSON.stringify(kept)); }"
    )
    chat.is_cut_off = True  # the history that is not given is a 404
    chat.page.reload()
    chat.connected()
    chat.eventually(lambda: chat.session_id not in (old, ""))
    new, question = chat.session_id, unique("새로")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    chat.page.reload()
    chat.connected()
    assert (chat.session_id, chat.texts()) == (new, [question, f"re: {question}"])


def test_too_many_prompts_in_a_row_pause_the_page(open_chat: OpenChat, world: World, new_gateway: NewGateway) -> None:
    """Closed with 1008 it waits, and says so, instead of coming back at once."""
    chat = open_chat(new_gateway(world, PROMPTS_PER_MINUTE="1"))
    for number in range(4):
        chat.ask(unique(f"빨리 {number}"))
    chat.says("limited")
    sockets = len(chat.sockets)
    chat.page.wait_for_timeout(2000)
    assert len(chat.sockets) == sockets
    chat.page.get_by_role("button", name="지금 연결").click()
    chat.connected()


@pytest.mark.parametrize("start", ["uvicorn", "python"])
def test_a_prompt_that_is_too_long_for_the_gateway(
    open_chat: OpenChat, world: World, new_gateway: NewGateway, start: Start
) -> None:
    """Refused by an error without an id or by closing with 1009, it is not sent for ever; what follows is answered."""
    chat = open_chat(new_gateway(world, start=start, MAX_FRAME_BYTES="1024"))
    chat.ask("긴 질문 " * 200)
    expect(chat.page.locator("#log .failed")).to_contain_text("보낼 수 없는 메시지입니다")
    question = unique("짧은 질문")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")
    assert len([frame for frame in chat.sent if "긴 질문" in frame]) == 1


def test_without_the_internet(chat: ChatPage) -> None:
    """It says so at once, and comes back by itself."""
    chat.is_cut_off = True
    chat.page.context.set_offline(True)
    chat.says("offline")
    question = unique("오프라인")
    chat.ask(question)
    chat.page.context.set_offline(False)
    chat.connected()
    chat.expect_answer(f"re: {question}")


def test_the_pauses_between_attempts_grow(open_chat: OpenChat, mortal_gateway: Gateway) -> None:
    """No WebSocket is opened that cannot succeed, since Firefox would hold the next ones back, up to a minute."""
    chat = open_chat(mortal_gateway)
    chat.is_cut_off = True
    chat.page.evaluate("Math.random = () => 0")  # which shortens each pause to half
    attempts: list[float] = []

    def note(request: Request) -> None:
        if "/api/health" in request.url:
            attempts.append(time.monotonic())

    chat.page.on("request", note)
    sockets = len(chat.sockets)
    mortal_gateway.kill()
    chat.says("waiting")
    chat.eventually(lambda: len(attempts) == 4)
    first, second, third = (later - earlier for earlier, later in pairwise(attempts))
    assert first < second < third
    assert len(chat.sockets) == sockets
    expect(chat.page.locator("#countdown")).to_contain_text("초")
    mortal_gateway.start()
    chat.page.locator("#reconnect").dispatch_event("click")  # which is gone if it has come back by itself
    chat.connected()


class Through:
    """The gateway as it is reached through a proxy."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.base_url = f"http://127.0.0.1:{proxy.port}"


@pytest.fixture
def frail(open_tab: Callable[..., Page], gateway: Gateway) -> Iterator[tuple[ChatPage, TcpProxy]]:
    """A conversation whose connection can fall silent without an end, in a tab whose clock the test moves."""
    with TcpProxy(gateway.port) as proxy:
        page = open_tab()
        page.clock.install()
        chat = ChatPage(page, Through(proxy))  # type: ignore[arg-type]
        chat.is_cut_off = True
        chat.open()
        question = unique("살아 있나요")
        chat.ask(question)
        chat.expect_answer(f"re: {question}")
        yield chat, proxy
        proxy.mend()
    assert chat.problems == []


def test_a_connection_that_is_dead_and_does_not_say_so(frail: tuple[ChatPage, TcpProxy]) -> None:
    """It is noticed within 45 s of a prompt without a sign of life; the prompt is answered on the next one."""
    chat, proxy = frail
    proxy.freeze()
    question = unique("들리나요")
    chat.ask(question)
    chat.page.clock.run_for(25_000)
    expect(chat.page.locator("#state")).to_have_attribute("data-t", "state.online")
    chat.page.clock.run_for(20_000)
    chat.says("waiting")
    proxy.mend()
    chat.connected()
    chat.expect_answer(f"re: {question}")
    expect(chat.answers).to_have_count(2)


def test_an_attempt_that_was_given_up_and_arrives_late_takes_nothing_away(
    frail: tuple[ChatPage, TcpProxy], gateway: Gateway
) -> None:
    """The gateway takes it for the newest socket; the page knows that it was its own."""
    chat, proxy = frail
    proxy.freeze()
    chat.ask(unique("늦게 오는 연결"))
    chat.page.clock.run_for(45_000)
    chat.says("waiting")
    proxy.mend()
    chat.connected()
    kept = chat.page.evaluate("JSON.parse(sessionStorage['chat-session'])")

    async def arrive_late() -> None:
        query = urlencode({"session_id": kept["id"], "since": "2000-01-01T00:00:00Z"})
        async with gateway.connect(query=query, subprotocols=protocols(kept["key"])) as late:
            assert (await receive(late))["resumed"] is True

    with chat.page.expect_websocket():
        background.run(arrive_late())
    chat.connected()
    chat.ask(question := unique("그래도"))
    chat.expect_answer(f"re: {question}")


def test_a_dead_connection_is_noticed_when_the_tab_is_looked_at_again(frail: tuple[ChatPage, TcpProxy]) -> None:
    chat, proxy = frail
    proxy.freeze()
    chat.page.clock.fast_forward(60_000)
    expect(chat.page.locator("#state")).to_have_attribute("data-t", "state.online")
    chat.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(chat.page.locator("#state")).not_to_have_attribute("data-t", "state.online")
    proxy.mend()
    chat.connected()


def test_a_server_that_is_slow_and_not_dead_is_looked_after_ever_more_rarely(
    frail: tuple[ChatPage, TcpProxy], world: World
) -> None:
    chat, _ = frail
    question, reply = unique("느린"), Held(answer("느긋하게"))
    world.llm.on(question, reply)
    chat.ask(question)
    world.llm.wait_called(query=question)
    sockets = len(chat.sockets)
    for _ in range(18):
        chat.page.clock.run_for(10_000)
        chat.connected()
    assert len(chat.sockets) - sockets == 2
    reply.release()
    chat.expect_answer("느긋하게")
    assert len(world.llm.calls_with(query=question)) == 1
