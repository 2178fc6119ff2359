"""Firefox and WebKit, driven as a visitor does: what is clicked is what can be seen, by its role and its name.

Playwright, which drives Chromium, wants builds of its own of these two, or newer ones. The browsers that Debian has
speak the W3C's protocols: Firefox WebDriver BiDi, WebKitGTK WebDriver. Both are dark, and end with their profiles.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import eventually

KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "Control": "\ue009"}
SIZE = (1280, 800)

# The middle of the last element of this role and name, if a click there would reach it; else what is in the way.
FIND = """(role, name, inside) => {
    const kinds = { button: "button", link: "a[href]", textbox: "textarea, input:not([type=checkbox])",
        group: "details, fieldset", form: "form", region: "section, [role=region]", summary: "summary", article: "*" };
    const clean = (text) => (text ?? "").replace(/\\s+/g, " ").trim();
    const nameOf = (node) => clean(node.ariaLabel || node.labels?.[0]?.textContent
        || document.getElementById(node.getAttribute("aria-labelledby"))?.textContent || node.innerText);
    const named = (root, role, name) => {
        const seen = [...root.querySelectorAll(kinds[role])].filter((node) => node.checkVisibility());
        const among = (is) => seen.filter((node) => is(nameOf(node))).at(-1);
        return among((text) => text === name) ?? among((text) => text.includes(name));
    };
    const root = inside ? named(document, ...inside) : document;
    const node = root && named(root, role, name);
    if (!node) return `no ${role} “${name}”`;
    node.scrollIntoView({ block: "center", behavior: "instant" });
    const { x, y, width, height } = node.getBoundingClientRect();
    const point = [Math.round(x + width / 2), Math.round(y + height / 2)];
    const top = document.elementFromPoint(...point);
    if (node.disabled) return `${role} “${name}” is disabled`;
    return node.contains(top) ? point : `behind ${top?.outerHTML.slice(0, 80)}`;
}"""


class BrowserError(Exception):
    """The browser refused a command."""


class Browser(ABC):
    """One window of a browser. What a visitor does waits until it can be done."""

    name: str

    def __init__(self) -> None:
        self.problems: list[str] = []  # what the console had to complain of, as far as the browser tells

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End the browser, and whatever was started for it."""

    @abstractmethod
    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""

    @abstractmethod
    def reload(self) -> None:
        """Load the page again."""

    @abstractmethod
    def resize(self, width: int, height: int) -> None:
        """Give the page this many pixels."""

    @abstractmethod
    def screenshot(self, path: Path) -> None:
        """Write what is seen to a file."""

    @abstractmethod
    def evaluate(self, function: str, *arguments: Any) -> Any:
        """What a JavaScript function returns, as JSON."""

    @abstractmethod
    def _perform(self, *sources: dict[str, Any]) -> None:
        """Do what the W3C calls actions."""

    def find(self, role: str, name: str, *, inside: tuple[str, str] | None = None) -> tuple[int, int]:
        """Where something with this role and name can be clicked, once it can; `inside` of another, likewise named."""
        found: Any = None

        def look() -> bool:
            nonlocal found
            before, found = found, self.evaluate(FIND, role, name, inside)
            return isinstance(found, list) and found == before  # it no longer moves

        try:
            eventually(look)
        except AssertionError:
            raise AssertionError(f"{found}; the page says:\n{self.text()}") from None
        return found[0], found[1]

    def click(self, role: str, name: str, *, inside: tuple[str, str] | None = None) -> None:
        """Click in the middle of it."""
        x, y = self.find(role, name, inside=inside)
        move = {"type": "pointerMove", "x": x, "y": y}
        press, release = ({"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp"))
        self._perform({"type": "pointer", "id": "mouse", "actions": [move, press, release]})

    def press(self, *keys: str) -> None:
        """Press these keys, and let them go in the opposite order."""
        values = [KEYS.get(key, key) for key in keys]
        down = [{"type": "keyDown", "value": value} for value in values]
        up = [{"type": "keyUp", "value": value} for value in reversed(values)]
        self._perform({"type": "key", "id": "keyboard", "actions": down + up})

    def write(self, name: str, text: str, *, inside: tuple[str, str] | None = None) -> None:
        """Type `text` into a field, in place of what stands there."""
        self.click("textbox", name, inside=inside)
        self.press("Control", "a")
        keys = [{"type": kind, "value": character} for character in text for kind in ("keyDown", "keyUp")]
        self._perform({"type": "key", "id": "keyboard", "actions": keys})

    def text(self) -> str:
        """All that can be read on the page, and its title."""
        text = self.evaluate("() => `${document.title}\\n${document.body?.innerText ?? ''}`")
        assert isinstance(text, str)
        return text

    def sees(self, *texts: str) -> None:
        """Wait until all of these can be read."""
        missing: list[str] = []

        def look() -> bool:
            read = self.text()
            missing[:] = [text for text in texts if text not in read]
            return not missing

        with suppress(AssertionError):
            eventually(look)
        assert missing == [], self.text()


def program(names: tuple[str, ...]) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise FileNotFoundError(" or ".join(names))
    return found
