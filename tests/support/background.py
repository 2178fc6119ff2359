"""An event loop in a thread, where the stub backends, the proxies and database calls of a test run.

It goes on while a test blocks, so that tests need not be coroutines to talk to what is served here.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """One daemon thread with one running event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test-background", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 30.0) -> T:
        """Run a coroutine in the thread and return its result; TimeoutError after `seconds`."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    def call(self, function: Any, *args: Any) -> None:
        """Call a function in the thread, soon."""
        self.loop.call_soon_threadsafe(function, *args)


background = Background()
