"""What a crowd of visitors has left behind goes back to the operating system: the C library would keep it."""

import ctypes
import gc
from contextlib import suppress

FEW = 100
LOOKS = 5  # until what they had is free


class Memory:
    def __init__(self) -> None:
        self._most = self._quiet = 0

    def tidy(self, visitors: int) -> None:
        """To be called every second: gives back what is free, when three quarters of the most there were have gone."""
        self._most = max(self._most, visitors)
        self._quiet = self._quiet + 1 if visitors + FEW < self._most / 4 else 0
        if self._quiet == LOOKS:
            self._most = visitors
            gc.collect()
            with suppress(AttributeError, OSError):  # there is no glibc
                ctypes.CDLL(None).malloc_trim(0)
