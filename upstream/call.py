"""What a caller brings to a call: a way to stop it, and a place for what comes before the answer."""

import asyncio
from typing import Any, Protocol, Self


class Stopped(Exception):
    """The call was stopped by its caller, and has no answer."""


class Sink(Protocol):
    """Where the pieces of an answer go while it is being made. Neither may wait."""

    def delta(self, text: str) -> None:
        """Some more text, which is not empty."""

    def tool(self, name: str) -> None:
        """A tool that is being used."""


class Call:
    """One call, once: `with call.within(seconds)`. It may be stopped from anywhere, also before it has begun.

    As with asyncio.timeout, at half its cost, the task is cancelled only while it is in the block, and what comes
    out of that is no cancellation.
    """

    def __init__(self) -> None:
        self.is_stopped = False
        self._is_cut = False
        self._seconds = 0.0
        self._timer: asyncio.Handle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def within(self, seconds: float) -> Self:
        self._seconds = seconds
        return self

    def __enter__(self) -> None:
        """Raises Stopped."""
        if self.is_stopped:
            raise Stopped
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._cut)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises Stopped and TimeoutError."""
        assert self._timer is not None and self._task is not None
        task, self._task = self._task, None
        self._timer.cancel()
        if self._is_cut and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Stopped if self.is_stopped else TimeoutError

    def _cut(self) -> None:
        assert self._task is not None
        self._is_cut = True
        self._task.cancel()

    def stop(self) -> None:
        """Ends the call at once; nothing if it has ended, or its time is up."""
        if self._timer is None:
            self.is_stopped = True
        elif self._task is not None and not self._is_cut:
            self.is_stopped = True
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_soon(self._cut)
