"""One read at a time, whoever asks."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """What was read is good for `max_age` seconds; who comes while it is being read waits for it."""

    def __init__(self, read: Callable[[], Awaitable[T]], max_age: float) -> None:
        self._read = read
        self._max_age = max_age
        self._good_until = 0.0
        self._value: T
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Raises what `read` raises."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._good_until:
            return self._value
        if self._task is None:
            self._task = loop.create_task(self._refresh())
        return await asyncio.shield(self._task)

    async def _refresh(self) -> T:
        try:
            self._value = await self._read()
            self._good_until = asyncio.get_running_loop().time() + self._max_age
            return self._value
        finally:
            self._task = None
