"""The chat page and the documentation, where they are served: nothing foreign runs in them, and nothing frames them."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.gateway import Gateway
from tests.support.processes import ROOT
from tests.support.world import NewWorld

WEB = sorted(path for path in (ROOT / "web").rglob("*") if path.is_file())
PAGES = [path for path in WEB if path.suffix == ".html"]
ADDRESS = re.compile(r"(?:https?|wss?|ftp):\\?/\\?/([\w.-]+)|(?<![:\w'\"`/])//([\w-]+\.[\w.-]+)")
# Names that are never asked for: namespaces, and examples in the descriptions.
NAMES = re.compile(r"www\.w3\.org|(?:[\w-]+\.)*example(?:\.com|\.org)?|127\.0\.0\.1|localhost|spec\.openapis\.org")


@pytest.fixture(scope="module", params=["development", "production"])
def gateway(request: pytest.FixtureRequest, new_world: NewWorld, default_gateway: Gateway) -> Iterator[Gateway]:
    if request.param == "development":
        yield default_gateway
        return
    with Gateway(new_world().settings | {"ENVIRONMENT": "production", "CHAT_PAGE": "true"}) as gateway:
        yield gateway


def directives(policy: str) -> dict[str, list[str]]:
    """A Content-Security-Policy by directive."""
    parts = [part.split() for part in policy.split(";") if part.strip()]
    names = [name for name, *_ in parts]
    assert len(names) == len(set(names)), "only the first of two of a name counts"
    return {name: sources for name, *sources in parts}


SERVED = ["/", "/docs", "/docs/", "/openapi.json", "/asyncapi.json", *(f"/{path.relative_to(ROOT)}" for path in WEB)]


def test_everything_served_to_a_browser_has_the_strict_headers(gateway: Gateway) -> None:
    for path in SERVED:
        answer = gateway.http.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin"), path
        policy = directives(answer.headers["content-security-policy"])
        assert policy["default-src"] == ["'none'"]
        assert policy["script-src"] == policy["style-src"] == ["'self'"]
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
        assert set(policy["img-src"]) <= {"'self'", "data:"}
        assert set(policy["connect-src"]) <= {"'self'", "ws:", "wss:"}
        assert set(policy) <= {
            "default-src",
            "script-src",
            "style-src",
            "frame-ancestors",
            "base-uri",
            "form-action",
        } | {"img-src", "connect-src"}


def test_in_production_the_root_is_name_and_version(new_world: NewWorld) -> None:
    """Without the chat page and its files; the documentation is served all the same, with all that it loads."""
    loaded, left = {"docs.html"}, ["docs.html"]
    while left:
        text = (ROOT / "web" / left.pop()).read_text("utf-8")
        found = set(re.findall(r"""(?:/web/|from "\./|import "\./|import\("\./)([\w./-]+)""", text)) - loaded
        loaded |= found
        left += found
    with Gateway(new_world().settings | {"ENVIRONMENT": "production"}) as gateway:
        for path in WEB:
            name = path.relative_to(ROOT / "web").as_posix()
            assert gateway.http.get(f"/web/{name}").status_code == (200 if name in loaded else 404), name
        body = gateway.http.get("/").json()
        assert isinstance(body["name"], str)
        assert re.match(r"\d+\.\d+", body["version"])
        assert gateway.http.get("/docs").headers["content-type"].startswith("text/html")


def test_a_page_that_has_not_changed_keeps_its_headers(gateway: Gateway) -> None:
    for path in ("/docs", "/web/docs.js"):
        tag = gateway.http.get(path).headers.get("etag")
        answer = gateway.http.get(path, headers={"if-none-match": tag or "x"})
        assert answer.status_code in (200, 304)
        assert "content-security-policy" in answer.headers


def test_nothing_beside_the_page_files_is_served(gateway: Gateway) -> None:
    for name in (
        "..%2fsettings.py",
        "%2e%2e/settings.py",
        "..%5csettings.py",
        ".",
        "",
        "%2f%2fetc%2fpasswd",
        "../.env",
    ):
        answer = gateway.http.get(f"{gateway.base_url}/web/{name}")
        assert answer.status_code == 404, name


class Inline(HTMLParser):
    """What a page would run or style without a file of its own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        self.found += [f"<{tag} {name}>" for name in names if name.startswith("on") or name in ("style", "srcdoc")]
        self.found += [
            f"<{tag} {value}>" for _, value in attrs if (value or "").strip().lower().startswith("javascript:")
        ]
        self.found += [f"<{tag}>" for _ in range(tag in ("style", "iframe", "object", "embed", "base", "meta-refresh"))]
        if tag == "meta" and "http-equiv" in names:
            self.found.append("<meta http-equiv>")
        self._in = tag if tag == "script" else None
        if tag == "script" and "src" not in names:
            self.found.append("<script>")

    def handle_data(self, data: str) -> None:
        if self._in and data.strip():
            self.found.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in = None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_has_anything_inline(page: Path) -> None:
    assert Inline(page.read_text("utf-8")).found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_loads_or_links_to_is_there(page: Path) -> None:
    links = re.findall(r"""\b(?:src|href)=["']([^"'#]+)""", page.read_text("utf-8"))
    assert links
    assert [link for link in links if not link.startswith("data:") and link not in SERVED] == []


@pytest.mark.parametrize("file", [file for file in WEB if file.suffix != ".txt"], ids=lambda file: file.name)
def test_no_file_names_an_outside_address(file: Path) -> None:
    text = file.read_text("utf-8")
    hosts = [match[1] or match[2] for match in ADDRESS.finditer(text)]
    assert [host for host in hosts if not NAMES.fullmatch(host)] == []


def test_no_script_makes_markup_or_code_of_text() -> None:
    """What the bot or a visitor says is put into the page as text."""
    risky = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setHTMLUnsafe")
    for file in WEB:
        if file.suffix == ".js":
            assert not risky.search(file.read_text("utf-8")), file.name
