"""Limits on how much may come in a given time."""

import math
from dataclasses import dataclass

MINUTE = 60.0  # seconds


@dataclass(slots=True)
class Window:
    """Counts what comes within `seconds` of the first; what comes later opens a window of its own.

    What exceeds `allowed` prolongs the window in proportion, so that nothing is gained by sending it at once.
    """

    seconds: float
    allowed: float = math.inf
    counted: int = 0
    ends: float = 0.0

    def count(self, now: float, amount: int = 1) -> int:
        """The count of the current window, this included."""
        if now >= self.ends:
            self.ends, self.counted = now + self.seconds, 0
        self.counted += amount
        if self.counted > self.allowed:
            self.ends += self.seconds * min(amount, self.counted - self.allowed) / self.allowed
        return self.counted
