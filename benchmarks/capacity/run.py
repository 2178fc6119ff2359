"""The measuring runs, each with its surroundings."""

from __future__ import annotations

import sys
import time

from benchmarks.__main__ import raise_file_limit
from benchmarks.capacity.measure import Say, Window, measure_many, measure_units
from benchmarks.capacity.model import Units
from tests.support.processes import dismiss_guardian


def _say() -> Say:
    raise_file_limit()
    started = time.perf_counter()
    return lambda what: print(f"{time.perf_counter() - started:6.1f} s  {what}", file=sys.stderr, flush=True)


def run_units() -> Units:
    try:
        return measure_units(_say())
    finally:
        dismiss_guardian()


def run_many(instances: int, sessions: int, rate: float, streamed: float) -> tuple[Window, float]:
    try:
        return measure_many(instances, sessions, rate, streamed, _say())
    finally:
        dismiss_guardian()
