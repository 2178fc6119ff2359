"""Background work with an owner: its exceptions are logged, and it can be waited for and cancelled."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from common.errors import DatabaseError
from common.logs import log


class TaskOwner:
    """Owns the tasks it starts. asyncio keeps only weak references to tasks, and tells nobody when one fails."""

    running = 0  # tasks of all owners

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        TaskOwner.running += 1
        task.add_done_callback(self._on_done)

    def repeat(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does it again and again. What has begun when it is cancelled is finished, so that nothing of it is lost."""
        self.start(self._repeat(seconds, work))

    async def _repeat(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            working = asyncio.create_task(work())
            try:
                await asyncio.shield(working)
            except DatabaseError:
                pass  # has been logged; the next time may do better
            except asyncio.CancelledError:
                await asyncio.wait([working])
                raise
            except Exception:
                log.exception("background work failed", work=work.__name__)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        TaskOwner.running -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", exc_info=error, owner=self._name)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Counts the caller's own task for as long as it is busy with this."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def wait(self) -> None:
        """Waits until nothing is left to do; new work may be started meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self, within: float) -> None:
        """Cancels what is left and gives it `within` seconds to end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
