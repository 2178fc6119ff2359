"""WebKitGTK, by WebDriver."""

from __future__ import annotations

import base64
import json
import re
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from tests.support.browser import SIZE, Browser, BrowserError, program
from tests.support.gateway import environment
from tests.support.network import NO_TLS
from tests.support.processes import Process, free_port
from tests.support.waiting import PATIENCE_SECONDS, eventually


class WebKit(Browser):
    """WebKitGTK's small browser on a screen that nobody sees, by WebDriver."""

    programs = ("WebKitWebDriver",)
    name = "WebKit"
    # Without these a window is never narrower than the buttons above the page.
    NARROW = "* { min-width: 0; padding: 0; margin: 0; border-width: 0; }"

    def __init__(self) -> None:
        super().__init__()
        with ExitStack() as stack:
            home = stack.enter_context(TemporaryDirectory(prefix="gateway-webkit-", ignore_cleanup_errors=True))
            style = Path(home) / ".config/gtk-3.0/gtk.css"
            style.parent.mkdir(parents=True)
            style.write_text(self.NARROW)
            (style.parent / "settings.ini").write_text("[Settings]\ngtk-enable-animations=0\n")
            screen = f"{SIZE[0]}x{SIZE[1] + 100}x24"
            server = Process(
                [program(("Xvfb",)), "-displayfd", "1", "-nolisten", "tcp", "-screen", "0", screen],
                environment=environment({}),
            )
            stack.callback(server.kill)
            display = eventually(lambda: re.findall(r"^\d+$", server.output(), re.M), what="a screen")
            values = {"HOME": home, "DISPLAY": f":{display[0]}", "NO_AT_BRIDGE": "1"}
            values["WEBKIT_DISABLE_DMABUF_RENDERER"] = "1"  # costs twice the CPU where there is no GPU
            port = free_port()
            driver = Process([program(self.programs), f"--port={port}"], environment=environment(values))
            stack.callback(driver.kill)
            self._http = stack.enter_context(
                httpx.Client(
                    base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False, verify=NO_TLS
                )
            )
            options = {"binary": _mini_browser(), "args": ["--automation", "--dark-mode"]}
            capabilities = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
            self._session = ""
            eventually(self._is_ready, what="the driver")
            session = self._send("POST", "/session", {"capabilities": capabilities})["sessionId"]
            self._session = f"/session/{session}"
            stack.callback(self._send, "DELETE", "")
            self.resize(*SIZE)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End the browser, its driver and its screen."""
        self._stack.close()

    def _is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return bool(self._send("GET", "/status"))
        return False

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        value = self._http.request(method, self._session + path, json=body).json()["value"]
        if isinstance(value, dict) and "error" in value:
            raise BrowserError(f"{path}: {value['message']}")
        return value

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self._send("POST", "/url", {"url": url})

    def reload(self) -> None:
        """Load the page again."""
        self._send("POST", "/refresh", {})

    def resize(self, width: int, height: int) -> None:
        """Give the page this many pixels."""
        above = self.evaluate("() => outerHeight - innerHeight")
        self._send("POST", "/window/rect", {"x": 0, "y": 0, "width": width, "height": height + above})
        eventually(lambda: self.evaluate("() => innerWidth") == width, what=f"{width} pixels")

    def screenshot(self, path: Path) -> None:
        """Write what is seen to a file."""
        path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))

    def evaluate(self, function: str, *arguments: Any) -> Any:
        """What a JavaScript function returns, as JSON."""
        called = f"return JSON.stringify(({function})(...{json.dumps(arguments)}) ?? null)"
        return json.loads(self._send("POST", "/execute/sync", {"script": called, "args": []}))

    def _perform(self, *sources: dict[str, Any]) -> None:
        self._send("POST", "/actions", {"actions": list(sources)})


def _mini_browser() -> str:
    folders = sorted(Path("/usr").glob("lib*/**/webkit2gtk-4.*/MiniBrowser"))
    if not folders:
        raise FileNotFoundError("MiniBrowser")
    return str(folders[-1])
