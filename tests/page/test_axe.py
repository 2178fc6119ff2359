"""axe-core, the rules by which others judge a page's accessibility, finds nothing: none of them, not even advice."""

from __future__ import annotations

from importlib.resources import files

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import ChatPage
from tests.page.test_looks import SCHEMES, converse
from tests.support.world import World

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
FOUND = """() => axe.run({ resultTypes: ["violations"] }).then(({ violations }) =>
    violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => [id, target, failureSummary])))"""


def assert_nothing_is_found(page: Page) -> None:
    """Neither in the light nor in the dark."""
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert page.evaluate(FOUND) == [], scheme


def test_the_chat_page(chat: ChatPage, world: World) -> None:
    """With a conversation that has something of everything, in both languages."""
    converse(chat, world)
    chat.page.evaluate(AXE)
    assert_nothing_is_found(chat.page)
    chat.page.get_by_role("button", name="English").click()
    expect(chat.page).to_have_title("Card assistant")
    assert_nothing_is_found(chat.page)


@pytest.mark.parametrize("width", [1280, 320])
def test_the_documentation(docs: ChatPage, width: int) -> None:
    """With all of it open, and a conversation in its console."""
    page = docs.page
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_role("button", name="Connect", exact=True).click()
    page.get_by_role("region", name="WebSocket").get_by_role("button", name="Send").click()
    expect(page.get_by_role("list", name="Frames")).to_contain_text("re: ")
    page.evaluate("document.querySelectorAll('details').forEach((node) => (node.open = true))")
    page.evaluate(AXE)
    assert_nothing_is_found(page)
