"""Lives a day in an hour: sessions, logins, streams, stops, resumes, feedback and faults, without a pause.

`make soak` runs three instances; MINUTES=2 is the short form. The first instance is left alone, and has to be as small
at the end as it was when it was warm; the others are killed and replaced all the time. Nothing may be lost, doubled or
shown wrongly, and nothing of the visitors may be left when they have gone: otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields

import psutil

from benchmarks.__main__ import raise_file_limit
from benchmarks.soak.day import ANSWER_SECONDS, Day, recommend, think
from tests.observability.scrape import scrape
from tests.support.backends import LlmStub, McpStub
from tests.support.card_qna import build_card_qna
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.processes import dismiss_guardian
from tests.support.waiting import become
from tests.support.world import World, add_personas

INSTANCES = 3
SAMPLES = 40
MEMORY_GROWS = 1.1  # times what it was in the second quarter, at most
CONNECTIONS = 9  # of an instance to ChatDB: the pool's, and LISTEN's
IDLE_FILES = 30  # more than at the start: pools, and connections to the LLM server


@dataclass(frozen=True)
class Sample:
    """What the instance that is left alone holds, and what stands in ChatDB."""

    memory_mb: int
    files: int
    tasks: int
    sessions: int
    turns: int
    drafts: int
    turn_rows: int
    instance_rows: int
    connections: int


def look(cluster: Cluster, process: psutil.Process) -> Sample:
    """How it stands now."""
    metrics, chatdb = scrape(cluster[0]), cluster.world.chatdb
    names = ("tasks", "sessions", "turns_in_hand", "drafts")
    rows = chatdb.fetchrow(
        'SELECT (SELECT count(*) FROM "Turn") AS turns, (SELECT count(*) FROM "Instance") AS instances,'
        " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())"
    )
    return Sample(
        process.memory_info().rss >> 20,
        process.num_fds(),
        *(int(metrics.value(f"gateway_{name}")) for name in names),
        *rows.values(),
    )


async def live(cluster: Cluster, minutes: float, visitors: int) -> tuple[Day, list[Sample]]:
    """The day, the samples of it, and one more of when everybody has gone."""
    process = psutil.Process(cluster[0].process.pid)
    await become(lambda: scrape(cluster[0]).value("gateway_tasks"), what="its gauges are set, which is once a second")
    idle = await asyncio.to_thread(look, cluster, process)
    day, samples = Day(cluster, fault_seconds=minutes * 60 / max(8, 2 * minutes)), [idle]
    print("   s  " + "  ".join(field.name for field in fields(Sample)), flush=True)
    started = time.monotonic()
    everybody = [asyncio.create_task(day.come_and_go()) for _ in range(visitors)]
    everybody.append(asyncio.create_task(day.break_things()))
    while (passed := time.monotonic() - started) < minutes * 60 and not any(task.done() for task in everybody):
        await asyncio.sleep(minutes * 60 / SAMPLES)
        samples.append(await day.ask_database(look, cluster, process))
        cluster.world.llm.calls.clear()
        cluster.world.mcp.calls.clear()
        show(passed, samples[-1])
    day.over.set()
    await asyncio.gather(*everybody)

    async def is_empty() -> bool:
        samples.append(await day.ask_database(look, cluster, process))
        left = samples[-1]
        is_gone = not (left.sessions or left.turns or left.drafts or left.turn_rows) and left.tasks <= idle.tasks
        is_bounded = left.files <= idle.files + IDLE_FILES and left.connections <= INSTANCES * CONNECTIONS
        return is_gone and is_bounded and left.instance_rows == INSTANCES

    try:
        await become(is_empty, ANSWER_SECONDS, "nothing of the visitors is left")
    except AssertionError as error:
        day.problems.append(f"{error}: {samples[-1]}, and before they came {idle}")
    show(time.monotonic() - started, samples[-1])
    return day, samples


def show(seconds: float, sample: Sample) -> None:
    """A line of the table."""
    cells = (f"{value:>{len(name)}}" for name, value in asdict(sample).items())
    print(f"{seconds:4.0f}  " + "  ".join(cells), flush=True)


def growth(samples: list[Sample]) -> float:
    """The memory of the last quarter by that of the second one, medians."""
    quarter = len(samples) // 4
    first, last = samples[quarter : 2 * quarter], samples[-quarter:]
    return statistics.median(s.memory_mb for s in last) / statistics.median(s.memory_mb for s in first)


@contextmanager
def surroundings() -> Iterator[Cluster]:
    """Three instances and all that is around them."""
    server = PostgresServer()
    try:
        with LlmStub() as llm, McpStub() as mcp:
            llm.default, mcp.default = think, recommend
            world = World(server.database(), build_card_qna(server.database()), llm, mcp)
            with Cluster(world, INSTANCES, start="python", PROMPTS_PER_MINUTE="10000", HTTPX_TIMEOUT="5") as cluster:
                add_personas(world.chatdb, "김하늘")
                yield cluster
    finally:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--visitors", type=int, default=50, help="how many at a time (default: 50)")
    options = parser.parse_args()
    raise_file_limit()
    logging.disable(logging.ERROR)  # the stub servers complain of calls that are stopped, as they should be
    try:
        with surroundings() as cluster:
            day, samples = asyncio.run(live(cluster, options.minutes, options.visitors))
    finally:
        dismiss_guardian()
    if (grown := growth(samples)) > MEMORY_GROWS:
        day.problems.append(f"memory grew to {grown:.2f} times what it was")
    print(", ".join(f"{name} {value}" for name, value in day.counts.items()), f"memory x {grown:.2f}", sep=", ")
    for problem in day.problems:
        print(problem, file=sys.stderr)
    return 1 if day.problems else 0


if __name__ == "__main__":
    sys.exit(main())
