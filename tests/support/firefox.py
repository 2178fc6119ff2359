"""Firefox, by WebDriver BiDi."""

from __future__ import annotations

import base64
import itertools
import json
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from tests.support.browser import SIZE, Browser, BrowserError, program
from tests.support.gateway import environment
from tests.support.processes import Process, free_port
from tests.support.waiting import PATIENCE_SECONDS


class Firefox(Browser):
    """Firefox without a window, by WebDriver BiDi."""

    programs = ("firefox-esr", "firefox")
    name = "Firefox"
    PREFERENCES: ClassVar[dict[str, str | int]] = {
        "app.update.enabled": False,
        "browser.aboutwelcome.enabled": False,
        "browser.newtab.preload": False,
        "browser.startup.page": 0,
        "datareporting.policy.dataSubmissionEnabled": False,
        "dom.ipc.processCount": 1,
        "dom.ipc.processPrelaunch.enabled": False,
        "extensions.systemAddon.update.enabled": False,
        "intl.accept_languages": "ko-KR",
        "network.captive-portal-service.enabled": False,
        "network.connectivity-service.enabled": False,
        "network.proxy.type": 0,
        "services.settings.server": "data:,#remote-settings-dummy/v1",
        "toolkit.telemetry.reportingpolicy.firstRun": False,
        "ui.prefersReducedMotion": 1,  # what moves is painted again and again
        "ui.systemUsesDarkTheme": 1,
    }

    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)
        port = free_port()
        with ExitStack() as stack:
            home = stack.enter_context(TemporaryDirectory(prefix="gateway-firefox-", ignore_cleanup_errors=True))
            lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in self.PREFERENCES.items()]
            (Path(home) / "user.js").write_text("\n".join(lines))
            command = [program(self.programs), "--headless", "--no-remote", "--profile", home]
            command += ["--remote-debugging-port", str(port)]
            process = Process(command, environment=environment({"HOME": home, "MOZ_CRASHREPORTER_DISABLE": "1"}))
            stack.callback(process.kill)
            self._socket = stack.enter_context(_connected(process, f"ws://127.0.0.1:{port}/session"))
            self._send("session.new", capabilities={})
            self._send("session.subscribe", events=["log.entryAdded"])
            self._context = self._send("browsingContext.getTree")["contexts"][0]["context"]
            self.resize(*SIZE)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End the browser."""
        self._stack.close()

    def _send(self, method: str, **params: Any) -> Any:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            reply = json.loads(self._socket.recv(PATIENCE_SECONDS))
            if reply.get("method") == "log.entryAdded" and reply["params"]["level"] in ("error", "warn"):
                self.problems.append(reply["params"]["text"])
            if reply.get("id") == number:
                if reply["type"] == "error":
                    raise BrowserError(f"{method}: {reply['message']}")
                return reply["result"]

    def _on_page(self, method: str, **params: Any) -> Any:
        return self._send(method, context=self._context, **params)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self._on_page("browsingContext.navigate", url=url, wait="complete")

    def reload(self) -> None:
        """Load the page again."""
        self._on_page("browsingContext.reload", wait="complete")

    def resize(self, width: int, height: int) -> None:
        """Give the page this many pixels."""
        self._on_page("browsingContext.setViewport", viewport={"width": width, "height": height})

    def screenshot(self, path: Path) -> None:
        """Write what is seen to a file."""
        path.write_bytes(base64.b64decode(self._on_page("browsingContext.captureScreenshot")["data"]))

    def evaluate(self, function: str, *arguments: Any) -> Any:
        """What a JavaScript function returns, as JSON."""
        called = f"JSON.stringify(({function})(...{json.dumps(arguments)}) ?? null)"
        target = {"context": self._context}
        reply = self._send("script.evaluate", expression=called, target=target, awaitPromise=False)
        if reply["type"] == "exception":
            raise BrowserError(reply["exceptionDetails"]["text"])
        return json.loads(reply["result"]["value"])

    def _perform(self, *sources: dict[str, Any]) -> None:
        self._on_page("input.performActions", actions=list(sources))


def _connected(process: Process, address: str) -> ClientConnection:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return connect(address, max_size=None, proxy=None, compression=None)
        except (OSError, InvalidHandshake):
            assert process.running() and time.monotonic() < deadline, process.output()
            time.sleep(0.05)
