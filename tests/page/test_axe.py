"""axe-core, the rules by which others judge a page's accessibility, finds nothing: none of them, not even advice."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Literal

from playwright.sync_api import Page, expect

from tests.page.conftest import ChatPage
from tests.page.test_looks import SCHEMES, converse
from tests.support.world import World

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
FOUND = """(options) => axe.run({ resultTypes: ["violations"], ...options }).then(({ violations }) =>
    violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => [id, target, failureSummary])))"""
OPEN = "(which) => document.querySelectorAll('details').forEach((node) => (node.open = node.closest(which) !== null))"


def found(page: Page, **options: Any) -> Any:
    return page.evaluate(FOUND, options)


def contrast(page: Page, scheme: Literal["light", "dark"]) -> Any:
    """What is hard to read in the light, or in the dark."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    return found(page, runOnly=["color-contrast"])


def structure(page: Page) -> Any:
    """All the rest, which is the same in the light and in the dark."""
    return found(page, rules={"color-contrast": {"enabled": False}})


def test_the_chat_page(chat: ChatPage, world: World) -> None:
    """With a conversation that has something of everything, in both languages."""
    converse(chat, world)
    chat.page.evaluate(AXE)
    for language in ("ko", "en"):
        expect(chat.page.locator("html")).to_have_attribute("lang", language)
        assert (structure(chat.page), *(contrast(chat.page, scheme) for scheme in SCHEMES)) == ([], [], [])
        chat.page.get_by_role("button", name="English").or_(chat.page.get_by_role("button", name="한국어")).click()


def test_the_documentation(docs: ChatPage) -> None:
    """With all of it open, and a conversation in its console; also on a phone. Two paths have every colour."""
    page = docs.page
    page.get_by_role("button", name="Connect", exact=True).click()
    page.get_by_role("region", name="WebSocket").get_by_role("button", name="Send").click()
    expect(page.get_by_role("list", name="Frames")).to_contain_text("re: ")
    page.evaluate(AXE)
    page.evaluate(OPEN, "body")
    assert structure(page) == []
    page.set_viewport_size({"width": 320, "height": 640})
    assert structure(page) == []
    page.evaluate(OPEN, "#post-api-chat-feedback, #get-api-chat-history-session-id")
    assert (contrast(page, "light"), contrast(page, "dark")) == ([], [])
