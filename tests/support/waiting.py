"""Waiting for something that becomes true, always with a bound."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# So long a test waits for what must come, and nowhere less: a busy machine is slow, and that is no fault.
PATIENCE_SECONDS = 30.0
POLL_SECONDS = (0.01, 0.1)  # from asking often at first to seldom when it takes long


def eventually(check: Callable[[], T], seconds: float = PATIENCE_SECONDS, what: str = "") -> T:
    """The first true value of `check`, asked again and again for at most `seconds`.

    For tests that are no coroutines. Raises AssertionError, naming `what` was awaited.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or check} (last: {value!r})")
        time.sleep(_pause(deadline - seconds))


async def become(check: Callable[[], object], seconds: float = PATIENCE_SECONDS, what: str = "") -> None:
    """Wait until `check`, which may be a coroutine function, gives a true value; like `eventually`, in a coroutine."""
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or check} (last: {value!r})")
        await asyncio.sleep(_pause(deadline - seconds))


def _pause(since: float) -> float:
    shortest, longest = POLL_SECONDS
    return min(longest, shortest + (time.monotonic() - since) / 10)
