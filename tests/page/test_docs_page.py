"""The documentation page as a reader uses it: what is where, and how it is found."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.page.conftest import ChatPage
from tests.support.world import NewGateway, World


def test_a_call_is_tried_before_its_responses_are_read(docs: ChatPage) -> None:
    """Of every path: what goes in, the form to try it, what comes out."""
    page = docs.page
    page.evaluate("document.querySelectorAll('#rest > details').forEach((node) => (node.open = true))")
    responses = page.get_by_role("heading", name="Responses")
    forms = page.get_by_role("form", name="Try ")
    expect(responses).to_have_count(forms.count())
    for heading, form in zip(responses.all(), forms.all(), strict=True):
        below, above = heading.bounding_box(), form.bounding_box()
        assert below and above and above["y"] + above["height"] <= below["y"]


def test_the_version_and_the_way_to_the_chat(docs: ChatPage) -> None:
    described = docs.gateway.http.get("/openapi.json").json()["info"]["version"]
    contents = docs.page.get_by_role("navigation")
    expect(contents).to_contain_text(f"Version {described}")
    contents.get_by_role("link", name="Open the chat").click()
    docs.connected()


def test_no_way_to_a_chat_that_is_not_served(
    open_tab: Callable[..., Page], world: World, new_gateway: NewGateway
) -> None:
    page = open_tab()
    with page.expect_response(lambda response: response.request.method == "HEAD") as asked:
        page.goto(new_gateway(world, ENVIRONMENT="production").base_url + "/docs")
    assert asked.value.headers["content-type"] == "application/json"
    expect(page.get_by_role("navigation")).to_contain_text("Version")
    expect(page.get_by_role("link", name="Open the chat")).to_have_count(0)


def test_the_search_goes_through_everything(docs: ChatPage) -> None:
    """All of the words, anywhere in a path's description; the contents follow, and Enter goes there."""
    page = docs.page
    contents = page.get_by_role("navigation").locator("li").filter(has=page.locator("a[href^='#']"))
    everything = contents.count()
    field = page.get_by_role("searchbox", name="Search")
    field.fill("persona MCP")
    found = contents.filter(visible=True)
    expect(found.filter(has_text="/login").first).to_be_visible()
    expect(found.filter(has_text="/qna")).to_have_count(0)
    expect(page.get_by_role("heading", name="Questions")).to_be_hidden()
    expect(page.get_by_role("search")).to_contain_text(f"{found.count()} of {everything} found")
    field.fill("top_k terms")
    field.press("Enter")
    expect(page.get_by_role("form", name="Try GET /api/qna/terms")).to_be_in_viewport()
    field.fill("4001")
    expect(found).to_have_text(["Close codes"])
    field.fill("no such word")
    expect(page.get_by_role("search")).to_contain_text(f"0 of {everything} found")
    field.fill("")
    expect(found).to_have_count(everything)
