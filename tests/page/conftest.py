"""A headless Chromium, and the chat page in it as a visitor sees it.

Without a browser these tests are skipped, unless CI=true, where that is a failure. CHROMIUM names the program if it
is none of the usual ones. Screenshots are written to .pytest_cache/d/screenshots. For Firefox and WebKit there is
test_browsers.py.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.support.gateway import Gateway
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.world import NewGateway, NewWorld, World, add_personas

# The first is the same browser without the windows that nobody would see, which cost a sixth of the CPU.
PROGRAMS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--renderer-process-limit=1",
    # The address bar's pop-ups, pages of their own in every window, cost more than the page under test. A page that a
    # test makes up has no address, and would need the visitor's leave to call a gateway on this machine.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
]
PERSONAS = ("김하늘", "이바다", "박별")
WAIT_MS = 1000 * PATIENCE_SECONDS

OpenChat = Callable[..., "ChatPage"]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this package; gone with it, since its event loop would be in others' way."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        message = f"no browser: none of {', '.join(PROGRAMS)} is installed, and CHROMIUM names no other"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def world(new_world: NewWorld) -> World:
    """Databases and backends for all tests of this package."""
    return new_world()


@pytest.fixture(scope="package")
def gateway(world: World) -> Iterator[Gateway]:
    """One gateway for the tests of this package that do not end it."""
    with Gateway(world.settings | {"PROMPTS_PER_MINUTE": "1000"}) as gateway:
        add_personas(world.chatdb, *PERSONAS)
        yield gateway


@pytest.fixture
def mortal_gateway(world: World, gateway: Gateway, new_gateway: NewGateway) -> Gateway:
    """A gateway on the same databases that a test may end and start again."""
    return new_gateway(world)


@pytest.fixture(scope="session")
def screenshots(request: pytest.FixtureRequest) -> Path:
    """Where screenshots are kept, to be looked at."""
    return Path(request.config.cache.mkdir("screenshots"))


class ChatPage:
    """The chat page in one tab. `problems` are what a page must never have: console errors, foreign requests."""

    def __init__(self, page: Page, gateway: Gateway) -> None:
        self.page = page
        self.gateway = gateway
        self.problems: list[str] = []
        self.is_cut_off = False  # a lost connection shows in the console, and has to
        self.sent: list[str] = []  # the frames that the page sent
        self.sockets: list[str] = []  # the addresses of the sockets that it opened
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", lambda request: self._see(request.url))
        page.on("websocket", self._watch)

    def _hear(self, kind: str, text: str) -> None:
        is_expected = self.is_cut_off and ("WebSocket" in text or "Failed to load resource" in text)
        if kind in ("error", "warning") and not is_expected:
            self.problems.append(f"{kind}: {text}")

    def _see(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "data" and parts.netloc != urlsplit(self.gateway.base_url).netloc:
            self.problems.append(f"a request to {url}")

    def _watch(self, socket: Any) -> None:
        self._see(socket.url)
        self.sockets.append(socket.url)
        socket.on("framesent", lambda data: self.sent.append(str(data)))

    def open(self, path: str = "/") -> ChatPage:
        """Go to the page and wait until it is connected."""
        self.page.goto(self.gateway.base_url + path)
        return self.connected()

    def connected(self) -> ChatPage:
        """Wait until the page says that it is connected."""
        expect(self.page.locator("#state")).to_have_attribute("data-t", "state.online")
        return self

    def says(self, state: str) -> None:
        """Wait until the page tells the visitor of this state of the connection."""
        expect(self.page.locator("#banner #why")).to_have_attribute("data-t", f"state.{state}")
        expect(self.page.locator("#banner")).to_be_visible()

    def ask(self, question: str) -> None:
        """Type a question and send it with Enter."""
        self.page.fill("#prompt", question)
        self.page.press("#prompt", "Enter")

    @property
    def prompts(self) -> Locator:
        return self.page.locator("#log .me .bubble")

    @property
    def answers(self) -> Locator:
        return self.page.locator("#log .bot")

    def texts(self) -> list[str]:
        """What was said so far, from top to bottom."""
        return self.page.locator("#log :is(.me .bubble, .bot .text)").all_inner_texts()

    def expect_answer(self, text: str) -> Locator:
        """Wait until the newest answer has this text, and return its row."""
        expect(self.answers.last.locator(".text")).to_have_text(text)
        return self.answers.nth(self.answers.count() - 1)

    def eventually(self, check: Callable[[], object]) -> None:
        """Wait until this is true; meanwhile what happens in the browser is heard of."""
        deadline = time.monotonic() + WAIT_MS / 1000
        while not check():
            assert time.monotonic() < deadline, "not within the time"
            self.page.wait_for_timeout(20)

    @property
    def session_id(self) -> str:
        """The session that the page goes on with after a reload; empty where there is none yet."""
        return str(self.page.evaluate("JSON.parse(sessionStorage.getItem('chat-session')).id ?? ''"))


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an empty tab in a context of its own: `open_tab(width=…, height=…, **context options)`."""
    contexts: list[BrowserContext] = []

    def make(*, width: int = 1280, height: int = 800, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, locale="ko-KR", **options)
        contexts.append(context)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def open_chat(open_tab: Callable[..., Page], gateway: Gateway) -> Iterator[OpenChat]:
    """Opens the chat page: `open_chat(gateway=…, width=…, **context options)`; its problems fail the test."""
    chats: list[ChatPage] = []

    def make(of: Gateway = gateway, *, page: Page | None = None, **options: Any) -> ChatPage:
        chat = ChatPage(page or open_tab(**options), of)
        chats.append(chat)
        return chat.open() if page is None else chat.connected()

    yield make
    assert [problem for chat in chats for problem in chat.problems] == []


@pytest.fixture
def chat(open_chat: OpenChat) -> ChatPage:
    """The chat page on a desktop, connected, with a conversation that has not begun."""
    return open_chat()


@pytest.fixture
def docs(open_tab: Callable[..., Page], gateway: Gateway) -> Iterator[ChatPage]:
    """The documentation page; its problems fail the test."""
    docs = ChatPage(open_tab(color_scheme="light"), gateway)
    docs.page.goto(f"{gateway.base_url}/docs")
    expect(docs.page.get_by_role("button", name="Connect", exact=True)).to_be_visible()
    yield docs
    assert docs.problems == []
