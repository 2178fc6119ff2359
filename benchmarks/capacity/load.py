"""Visitors who watch their answers grow and ask at a given rate, whether the gateway keeps up or not.

`python -m benchmarks.capacity.load` takes commands as `benchmarks.load` does.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import suppress

from benchmarks import load
from benchmarks.load import COMMANDS, Figures, Visitor, in_parallel

OPENING_AT_ONCE = 50
TICK_SECONDS = 0.01
LEFT_SECONDS = 60.0
ANSWER, DRAFT = b'"sender"', b'"type":"delta"'


async def open_more(port: int, count: int) -> Figures:
    """So many more sessions, each with its answers streamed."""

    async def one() -> None:
        load.visitors.append(await load.connect(port, "?stream=true"))

    await in_parallel(OPENING_AT_ONCE, count, one)
    return {}


class Asked:
    """What became of the prompts."""

    def __init__(self) -> None:
        self.turns = self.pieces = self.errors = 0
        self.waiting: set[Visitor] = set()
        self.is_done = asyncio.Event()

    def on_frame(self, visitor: Visitor, payload: bytes) -> None:
        if DRAFT in payload:
            self.pieces += 1
        elif ANSWER in payload:
            self.turns += 1
            self._end(visitor)
        elif b'"error"' in payload:
            self.errors += 1
            self._end(visitor)

    def _end(self, visitor: Visitor) -> None:
        self.waiting.discard(visitor)
        if not self.waiting:
            self.is_done.set()


async def ask_on(rate: float, seconds: float, prompts: list[str]) -> Figures:
    """So many prompts a second, each by the next visitor; then the last answers are waited for."""
    asked, prompt = Asked(), itertools.cycle([prompt.encode() for prompt in prompts])
    visitors: Iterator[Visitor] = itertools.cycle(load.visitors)
    started = time.perf_counter()
    sent = 0
    while (passed := time.perf_counter() - started) < seconds:
        for _ in range(int(passed * rate) - sent):
            visitor = next(visitors)
            sent += 1
            if visitor not in asked.waiting:
                visitor.on_frame = asked.on_frame
                asked.waiting.add(visitor)
                visitor.ask(next(prompt))
        await asyncio.sleep(TICK_SECONDS)
    asked.is_done.clear()
    if asked.waiting:
        with suppress(TimeoutError):
            async with asyncio.timeout(LEFT_SECONDS):
                await asked.is_done.wait()
    return {"turns": asked.turns, "frames": asked.pieces, "errors": asked.errors + len(asked.waiting)}


COMMANDS |= {"open_more": open_more, "ask_on": ask_on}

if __name__ == "__main__":
    load.main()
