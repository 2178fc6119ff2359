"""ChatDB's time, also while ChatDB is away: the machine's own clock may be wrong."""

import time
from datetime import datetime, timedelta


class Clock:
    """Goes on from the time that ChatDB said last, and never runs backwards."""

    def __init__(self, said: datetime) -> None:
        self._said, self._heard_at = said, time.monotonic()

    def set(self, said: datetime) -> None:
        self._said, self._heard_at = max(said, self.now()), time.monotonic()

    def now(self) -> datetime:
        return self._said + timedelta(seconds=time.monotonic() - self._heard_at)
