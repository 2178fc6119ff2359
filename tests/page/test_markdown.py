"""An answer's Markdown on the page: what becomes of it, and what no answer can do to the page."""

from __future__ import annotations

import hashlib
import json
import re

from playwright.sync_api import expect

from tests.page.conftest import ChatPage
from tests.support.backends import answer, tool_answer
from tests.support.processes import ROOT
from tests.support.world import World, unique

VENDOR = ROOT / "web" / "vendor"

RENDER = """async (sources) => {
    const { markdown } = await import("/web/markdown.js");
    return sources.map((source) => {
        const into = document.createElement("div");
        into.append(markdown(source));
        return into.innerHTML;
    });
}"""

# One pattern again and again, as it is drawn; returns whether it says that there is more.
DRAW = """async ([pattern, size]) => {
    const { markdown } = await import("/web/markdown.js");
    const into = document.createElement("div");
    into.className = "text";
    document.querySelector("#log").replaceChildren(into);
    into.append(markdown(pattern.repeat(size / pattern.length)));
    into.getBoundingClientRect();
    return [into.querySelectorAll("*").length, Boolean(into.querySelector("[data-t='cut.answer']"))];
}"""


def link(href: str, text: str = "") -> str:
    return f'<a href="{href}" target="_blank" rel="noopener noreferrer">{text or href}</a>'


RENDERED = {
    # Masked numbers, names and addresses keep their stars.
    "1234-****-****-5678": "<p>1234-****-****-5678</p>",
    "**1234-****-****-5678**": "<p><strong>1234-****-****-5678</strong></p>",
    "카드 **** **** **** 5678, 9410-12**-****-1234": "<p>카드 **** **** **** 5678, 9410-12**-****-1234</p>",
    "010-****-5678로 **중요한** 문자": "<p>010-****-5678로 <strong>중요한</strong> 문자</p>",
    "900101-1****** 900101-2******": "<p>900101-1****** 900101-2******</p>",
    "홍*동님과 김*수님": "<p>홍*동님과 김*수님</p>",
    "홍**, 김** 고객님": "<p>홍**, 김** 고객님</p>",
    "**홍*동님**": "<p><strong>홍*동님</strong></p>",
    "ho**@example.com과 ki**@example.com": "<p>ho**@example.com과 ki**@example.com</p>",
    "2*3*4": "<p>2*3*4</p>",
    "__init__": "<p>__init__</p>",
    # Emphasis is emphasis.
    "**도담카드(신용)**를": "<p><strong>도담카드(신용)</strong>를</p>",
    "**이용 시** 할인, **홍**님": "<p><strong>이용 시</strong> 할인, <strong>홍</strong>님</p>",
    "이*강조*는": "<p>이<em>강조</em>는</p>",
    "***x***": "<p><em><strong>x</strong></em></p>",
    "_x_": "<p><em>x</em></p>",
    "~~지난~~ 혜택": "<p><s>지난</s> 혜택</p>",
    "__중요__": "<p><strong>중요</strong></p>",
    r"\*별\*": "<p>*별*</p>",
    # Blocks.
    "~~~\n코드 **그대로**\n~~~": '<pre tabindex="0">코드 **그대로**</pre>',
    "# 큰 제목\n글\n---\n끝": "<h3>큰 제목</h3><p>글</p><hr><p>끝</p>",
    "1. 하나\n2. 둘\n   - 속": "<ol><li>하나</li><li>둘<ul><li>속</li></ul></li></ol>",
    "3) 셋": '<ol start="3"><li>셋</li></ol>',
    "> 인용\n> 두 줄": "<blockquote><p>인용<br>두 줄</p></blockquote>",
    "|가|나|\n|-|-:|\n|1 \\| 2|3<br>4|": (
        '<div class="table" tabindex="0"><table><thead><tr><th>가</th><th align="right">나</th></tr></thead>'
        '<tbody><tr><td>1 | 2</td><td align="right">3<br>4</td></tr></tbody></table></div>'
    ),
    # Links: whole ones, of kinds that do no harm.
    "[약관](https://example.com/a_(b))": f"<p>{link('https://example.com/a_(b)', '약관')}</p>",
    "(https://example.com/a_(b))": f"<p>({link('https://example.com/a_(b)')})</p>",
    "https://example.com에서": f"<p>{link('https://example.com')}에서</p>",
    "[나쁨](javascript:alert(3)) <b>굵게</b>": "<p>[나쁨](javascript:alert(3)) &lt;b&gt;굵게&lt;/b&gt;</p>",
    "![그림](https://example.com/a.png)": f"<p>{link('https://example.com/a.png', '그림')}</p>",
}

PATTERNS = [
    *("*", "**a", "[", "](", "[a](b) ", "`*_~", "``` ", "> ", "- ", "  \n- ", "1. ", "|-", "a|b\n|-|-\n", "    a\n"),
    *("http://", "https://a.b/ ", "&amp;", "<br>", "\\", "~~", "\n", "가*", "홍*동 ", "**가"),
]
SIZES = (20_000, 1_000_000)


def test_markdown_becomes_elements(chat: ChatPage) -> None:
    assert dict(zip(RENDERED, chat.page.evaluate(RENDER, list(RENDERED)), strict=True)) == RENDERED


def test_any_answer_is_drawn_within_bounds(chat: ChatPage) -> None:
    """In at most 200 ms of the browser's own time, with a bounded number of elements; what is cut says so."""
    devtools = chat.page.context.new_cdp_session(chat.page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")

    for size, patterns in zip(SIZES, (PATTERNS, ("|a", "가*", "\n")), strict=True):
        for pattern in patterns:
            before = busy()
            elements, is_cut = chat.page.evaluate(DRAW, [pattern, size])
            assert busy() - before < 0.2, (pattern, size)
            assert elements < 2500, (pattern, size)
            assert is_cut or size < 1_000_000, pattern


def test_an_answer_beyond_all_bounds_breaks_nothing(chat: ChatPage, world: World) -> None:
    """130,000 cards and a row of 200,000 cells: what is shown says that there is more, also after a reload."""
    cards, cells = unique("카드가 많은"), unique("칸이 많은")
    content = {"answer": "많아요", "card_list": ["a"] * 130_000, "relatedQuestions": ["?"] * 1000}
    world.llm.on(cards, tool_answer(content | {"login_required": False}))
    world.llm.on(cells, answer("|a" * 200_000 + "\n" + "|-" * 200_000))
    for question in (cards, cells):
        chat.ask(question)
    expect(chat.answers).to_have_count(2)
    for _ in range(2):
        first, second = chat.answers.nth(0), chat.answers.nth(1)
        expect(first.locator(".card")).to_have_count(30)
        expect(first.locator(".cards > .note")).to_have_text("외 129,970장이 더 있습니다.")
        assert first.locator(".related button").count() == 10
        expect(second.locator(".text .note")).to_contain_text("답변이 길어 여기까지만")
        assert chat.page.locator("#scroll *").count() < 10_000
        chat.page.reload()
        chat.connected()
        expect(chat.answers).to_have_count(2)
    question = unique("그래도")
    chat.ask(question)
    chat.expect_answer(f"re: {question}")


def test_what_is_taken_from_others_is_what_its_checksums_say() -> None:
    """With a licence for each package, and the versions that are pinned."""
    for line in (VENDOR / "SHA256SUMS").read_text().splitlines():
        checksum, name = line.split()
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == checksum, name
    lock = json.loads((ROOT / "requirements" / "web" / "package-lock.json").read_text())["packages"]
    versions = {path.removeprefix("node_modules/"): package.get("version") for path, package in lock.items()}
    banner = (VENDOR / "markdown-it.js").read_text().splitlines()[0]
    for name in ("markdown-it", "markdown-it-cjk-friendly"):
        assert f"{name} {versions[name]}" in banner
    licensed = dict(re.findall(r"^([\w.-]+) (\d+\.\d+\.\d+)$", (VENDOR / "LICENSES.txt").read_text(), re.MULTILINE))
    assert licensed == {
        name: version for name, version in versions.items() if name and "esbuild" not in name and name != "argparse"
    }


def test_a_growing_text_keeps_the_stars_of_masks(chat: ChatPage) -> None:
    """A mask that is not whole is held back; bold that is open around one is closed."""
    grown = {
        "**연회비는": "연회비는",
        "**홍*동님": "홍*동님",
        "1234-****-56": "1234-****-56",
        "끝 010-****-": "끝 010-****-",
    }
    texts = chat.page.evaluate(
        """async (parts) => {
            const { markdown } = await import("/web/markdown.js");
            const { settled } = await import("/web/draft.js");
            return parts.map((part) => markdown(settled(part)).textContent);
        }""",
        list(grown),
    )
    assert texts == list(grown.values())
