"""The worst minutes: who is thrown out comes back after the page's own pauses, through as many doors as are left."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

# As in web/session.js
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
HELLO_SECONDS = 15.0  # a handshake that is not answered within this is given up
SCALE = 100  # visitors that one of the simulation stands for, above 100,000


@dataclass(frozen=True)
class Storm:
    """Who is thrown out when, and what takes them back.

    `thrown_out` has seconds and numbers of visitors, `handshakes` is how many a second all doors together bear, and
    until `closed_until` none does.
    """

    name: str
    thrown_out: list[tuple[float, int]]
    handshakes: float
    closed_until: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Seconds from the first who was thrown out until so many were back, and handshakes tried in the worst second."""

    half_back: float
    nearly_all_back: float  # 99 of 100
    all_back: float
    peak: int


def play(storm: Storm, seed: int = 1) -> Outcome:
    """Lets it happen."""
    chance = random.Random(seed)
    total = sum(count for _, count in storm.thrown_out)
    weight = SCALE if total > 1000 * SCALE else 1
    attempts: list[tuple[float, int]] = []  # when, and how many attempts of this visitor have failed
    for at, count in storm.thrown_out:
        attempts += [(at + _pause(0, chance), 0) for _ in range(count // weight)]
    heapq.heapify(attempts)
    free_at, back, tried = 0.0, list[float](), Counter[int]()
    while attempts:
        at, failures = heapq.heappop(attempts)
        tried[int(at)] += weight
        if at < storm.closed_until:
            heapq.heappush(attempts, (at + _pause(failures + 1, chance), failures + 1))
        elif free_at - at > HELLO_SECONDS:  # the queue at the doors is too long, and this one costs nothing
            heapq.heappush(attempts, (at + HELLO_SECONDS + _pause(failures + 1, chance), failures + 1))
        else:
            free_at = max(free_at, at) + weight / storm.handshakes
            back.append(free_at)
    back.sort()
    start = storm.thrown_out[0][0]
    half, nearly = back[len(back) // 2], back[int(len(back) * 0.99)]
    return Outcome(half - start, nearly - start, back[-1] - start, max(tried.values()))


def _pause(failures: int, chance: random.Random) -> float:
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**failures) * (0.5 + chance.random())


def storms(sessions: int, instances: int, open_ms: float, open_db_ms: float, postgres_cores: float) -> Iterator[Storm]:
    """Five of them. A handshake takes `open_ms` of an instance's core, and `open_db_ms` of PostgreSQL's cores."""

    def doors(left: int) -> float:
        return min(left * 1000 / open_ms, postgres_cores * 1000 / open_db_ms)

    each = sessions // instances
    zone = max(1, instances // 3)
    yield Storm("one instance dies", [(0.0, each)], doors(max(1, instances - 1)))
    yield Storm("one of three zones dies", [(0.0, zone * each)], doors(max(1, instances - zone)))
    rolling = [(n * 30.0, each) for n in range(instances)]
    yield Storm("rolling deploy, 30 s an instance", rolling, doors(max(1, instances - 1)))
    yield Storm("all visitors are cut off at once", [(0.0, sessions)], doors(instances))
    yield Storm("… while the database fails over, 30 s", [(0.0, sessions)], doors(instances), closed_until=30.0)
