"""Background work with an owner: its exceptions are logged, and it can be waited for and cancelled."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from common.logs import log


class TaskOwner:
    """Owns the tasks it starts. asyncio keeps only weak references to tasks, and tells nobody when one fails."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._done = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks) + self._busy

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._done.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", exc_info=error, owner=self._name)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Counts work that is done in a task of the caller's own."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._done.set()

    async def wait(self) -> None:
        """Waits until nothing is left to do; new work may be started meanwhile."""
        while len(self):
            self._done.clear()
            await self._done.wait()

    async def cancel(self, within: float) -> None:
        """Cancels what is left and gives it `within` seconds to end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within)
