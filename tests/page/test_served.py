"""The documentation and the page at `/`, which need no internet."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.support.gateway import Gateway
from tests.support.world import NewWorld

OUTSIDE = re.compile(
    r"(?:https?:)?//(?!127\.0\.0\.1|localhost|www\.w3\.org/|json-schema\.org/|spdx\.org/)[\w.-]+\.\w{2,}"
)


class Links(HTMLParser):
    """What an HTML page loads or points to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.loaded: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "poster", "srcset") and value:
                self.found.append(value)
                if name == "src" or tag == "link":
                    self.loaded.append(value)


@pytest.fixture(scope="module")
def production_gateway(new_world: NewWorld) -> Iterator[Gateway]:
    with Gateway(new_world().settings | {"ENVIRONMENT": "production"}) as gateway:
        yield gateway


def assert_stands_alone(gateway: Gateway, path: str) -> None:
    """The page and everything it loads come from the gateway itself."""
    page = gateway.http.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    links = Links(page.text)
    for link in links.found:
        assert not re.match(r"(?i)(https?:)?//", link), link
    for link in links.loaded:
        if link.startswith("data:"):
            continue
        part = gateway.http.get(urljoin(path, link))
        assert part.status_code == 200, link
        if "css" in part.headers["content-type"] or "javascript" in part.headers["content-type"]:
            assert not OUTSIDE.search(part.text), f"{link}: {OUTSIDE.search(part.text)}"


def test_the_documentation_stands_alone(default_gateway: Gateway) -> None:
    assert_stands_alone(default_gateway, "/docs")


def openapi(gateway: Gateway) -> dict[str, Any]:
    response = gateway.http.get("/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == "application/json"
    description: dict[str, Any] = json.loads(response.content)
    return description


def test_openapi_describes_every_path(default_gateway: Gateway) -> None:
    description = openapi(default_gateway)
    assert description["openapi"].startswith("3.")
    assert description["info"]["title"]
    assert description["info"]["version"]
    methods = {(path.rstrip("/"), method) for path, item in description["paths"].items() for method in item}
    assert {
        ("/api/health", "get"),
        ("/api/chat/feedback", "post"),
        ("/api/chat/personas", "get"),
        ("/api/login/personas", "get"),
        ("/api/chat/history/{session_id}", "get"),
        ("/api/login", "post"),
        ("/api/login/persona_id", "post"),
        ("/api/qna/faq", "get"),
        ("/api/qna/terms", "get"),
    } <= methods


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/api/chat/feedback", "post", {"200", "404", "422"}),
        ("/api/chat/history/{session_id}", "get", {"200", "404", "422"}),
        ("/api/login", "post", {"200", "404", "422", "502"}),
        ("/api/login/persona_id", "post", {"200", "404", "422"}),
        ("/api/qna/faq", "get", {"200", "422"}),
        ("/api/qna/terms", "get", {"200", "422"}),
    ],
)
def test_openapi_names_the_errors(default_gateway: Gateway, path: str, method: str, statuses: set[str]) -> None:
    paths = openapi(default_gateway)["paths"]
    operation = paths.get(path) or paths[path + "/"]
    assert statuses <= set(operation[method]["responses"])


def test_every_reference_in_openapi_leads_somewhere(default_gateway: Gateway) -> None:
    description = openapi(default_gateway)
    for reference in re.findall(r'"\$ref":\s*"([^"]+)"', json.dumps(description)):
        assert reference.startswith("#/"), reference
        place: Any = description
        for step in reference.removeprefix("#/").split("/"):
            place = place[step.replace("~1", "/").replace("~0", "~")]


def test_in_development_there_is_a_page_to_chat_that_stands_alone(default_gateway: Gateway) -> None:
    assert_stands_alone(default_gateway, "/")


def test_in_production_the_root_is_name_and_version(production_gateway: Gateway) -> None:
    response = production_gateway.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == "application/json"
    body = response.json()
    assert isinstance(body["name"], str)
    assert re.match(r"\d+\.\d+", body["version"])


def test_in_production_the_documentation_is_served_too(production_gateway: Gateway) -> None:
    assert_stands_alone(production_gateway, "/docs")
    assert openapi(production_gateway)["paths"]
