"""Limits on how much may come in a given time."""

from __future__ import annotations

import math

MINUTE = 60.0  # seconds


class Window:
    """Counts what comes within `seconds` of the first; what comes later opens a window of its own.

    What exceeds `allowed` prolongs the window in proportion, so that nothing is gained by sending it at once.
    """

    __slots__ = ("_allowed", "_seconds", "counted", "ends")

    def __init__(self, seconds: float, allowed: float = math.inf) -> None:
        self._seconds = seconds
        self._allowed = allowed
        self.counted = 0
        self.ends = 0.0

    def count(self, now: float, amount: int = 1) -> int:
        """The count of the current window, this included."""
        if now >= self.ends:
            self.ends, self.counted = now + self._seconds, 0
        self.counted += amount
        if self.counted > self._allowed:
            self.ends += self._seconds * min(amount, self.counted - self._allowed) / self._allowed
        return self.counted
