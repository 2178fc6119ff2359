"""Background work with an owner: its exceptions are logged, and it can be waited for and cancelled."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from common.logs import fields

logger = logging.getLogger("gateway.tasks")


class TaskOwner:
    """Owns the tasks it starts. asyncio keeps only weak references to tasks, and tells nobody when one fails."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._tasks) + self._busy

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._idle.clear()
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._note_idle()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("task failed", exc_info=error, extra=fields(owner=self._name))

    def _note_idle(self) -> None:
        if not self._tasks and not self._busy:
            self._idle.set()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Counts work that is done in somebody else's task."""
        self._busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            self._note_idle()

    async def wait(self) -> None:
        """Until nothing is left to do; new work may be started meanwhile."""
        await self._idle.wait()

    async def cancel(self, within: float) -> None:
        """Cancels what is left and gives it `within` seconds to end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within)
