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
from benchmarks.load import COMMANDS, NUMBER, Figures, Visitor, in_parallel, percentiles

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
    """What became of the prompts; how long each piece of an answer was on its way, and the first one of each answer."""

    def __init__(self) -> None:
        self.turns = self.frames = self.errors = 0
        self.delays: list[float] = []
        self.first: dict[Visitor, float] = {}
        self.waiting: set[Visitor] = set()
        self.is_done = asyncio.Event()

    def on_frame(self, visitor: Visitor, payload: bytes) -> None:
        if DRAFT in payload:
            self.frames += 1
            now = time.monotonic_ns()
            delays = [(now - int(sent_at)) / 1e9 for sent_at in NUMBER.findall(payload)]
            self.first.setdefault(visitor, delays[0])
            self.delays += delays
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

    async def result(self) -> Figures:
        """When the last answer has come, or has taken too long. Times in milliseconds."""
        self.is_done.clear()
        if self.waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEFT_SECONDS):
                    await self.is_done.wait()
        counted = {"turns": self.turns, "frames": self.frames, "errors": self.errors + len(self.waiting)}
        delays = {f"delay_{name}": value for name, value in percentiles(self.delays).items()}
        return counted | delays | {f"first_{name}": v for name, v in percentiles([*self.first.values()]).items()}


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
    return await asked.result()


async def ask_once(prompts: list[str], spread: float) -> Figures:
    """Every visitor asks once, within `spread` seconds."""
    asked, prompt = Asked(), itertools.cycle([prompt.encode() for prompt in prompts])
    for visitor in load.visitors:
        visitor.on_frame = asked.on_frame
        asked.waiting.add(visitor)
        visitor.ask(next(prompt))
        await asyncio.sleep(spread / len(load.visitors))
    return await asked.result()


COMMANDS |= {"open_more": open_more, "ask_on": ask_on, "ask_once": ask_once}

if __name__ == "__main__":
    load.main()
