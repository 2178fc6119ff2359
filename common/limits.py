"""How much may come within a time."""

from __future__ import annotations


class Window:
    """Counts what comes within `seconds` of the first; what comes later opens a window of its own."""

    __slots__ = ("_seconds", "counted", "ends")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.counted = 0
        self.ends = 0.0

    def count(self, now: float, amount: int = 1) -> int:
        """What the present window has counted, this included."""
        if now >= self.ends:
            self.ends, self.counted = now + self._seconds, 0
        self.counted += amount
        return self.counted
