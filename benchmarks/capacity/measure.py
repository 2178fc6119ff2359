"""What one of each thing costs, measured on one instance; and what five instances with 50,000 sessions really take."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks import servers
from benchmarks.capacity.model import Units
from benchmarks.servers import Databases, Load, Server, Stub, cpu_seconds, memory_bytes
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port

QUESTION = "해외에서 쓸 카드 하나 추천해 주세요"
JSON_MS, PIECES, PIECE_MS = 200, 100, 50
QUIET, BUSY = 10.0, 300.0  # prompts a second of an instance
STREAMING = 12.0  # streamed answers begun a second: some sixty at once
SESSIONS = 4000
WINDOW = 20.0  # seconds; a session is asked for a sign of life once in so many
Say = Callable[[str], None]


@dataclass(frozen=True)
class Window:
    """What was spent in some seconds: CPU in seconds."""

    seconds: float
    gateway: float
    postgres: float
    statements: int
    commits: int
    wal: int
    stored: int
    done: dict[str, float] = field(default_factory=dict)


class Place:
    """So many instances, what they need, and visitors of theirs."""

    def __init__(self, instances: int) -> None:
        with ExitStack() as stack:
            self.postgres: PostgresServer = servers.start_postgres()
            stack.callback(self.postgres.close)
            stub = stack.enter_context(Stub())
            self.databases = Databases(self.postgres)
            self.gateways: list[Server] = [
                servers.gateway(self.databases, stub.port, free_port()) for _ in range(instances)
            ]
            for gateway in self.gateways:
                stack.enter_context(gateway)
            # One for each instance, since a process may have only so many open files.
            self._loads = [stack.enter_context(Load("benchmarks.capacity.load")) for _ in self.gateways]
            self._threads = stack.enter_context(ThreadPoolExecutor(instances))
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def memory_mb(self) -> float:
        """Of all instances."""
        return sum(memory_bytes(gateway.pid) for gateway in self.gateways) / 1e6

    def open(self, count: int) -> Window:
        """Opens so many sessions, spread over all instances."""
        return self._watch("open_more", within=600, count=count // len(self.gateways))

    def ask(self, rate: float, seconds: float, *prompts: str) -> Window:
        """Has visitors ask at this rate."""
        return self._watch("ask_on", rate=rate / len(self.gateways), seconds=seconds, prompts=prompts)

    def rest(self, seconds: float) -> Window:
        """Lets nobody say anything."""
        return self._watch("pause", seconds=seconds)

    def _watch(self, what: str, **arguments: Any) -> Window:
        def one(pair: tuple[Load, Server]) -> dict[str, float]:
            port = {"port": pair[1].port} if what == "open_more" else {}
            return pair[0].do(what, **port, **arguments)

        self.databases.reset_counters()
        before, started = self._spent(), time.perf_counter()
        done = sum(map(Counter, self._threads.map(one, zip(self._loads, self.gateways, strict=True))), Counter[str]())
        seconds = time.perf_counter() - started
        statements, commits = self.databases.counters()
        gateway, postgres, wal, stored = (b - a for a, b in zip(before, self._spent(), strict=True))
        return Window(seconds, gateway, postgres, statements, commits, int(wal), int(stored), dict(done))

    def _spent(self) -> tuple[float, float, int, int]:
        """PostgreSQL's own counting of these is in it, which is little beside what is counted."""
        chatdb = self.databases.chatdb
        wal = chatdb.value("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        stored = chatdb.value(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c"
            " WHERE relname IN ('Chat', 'ChatbotResponse') AND relkind = 'r'"
        )
        gateways = sum(cpu_seconds(gateway.pid) for gateway in self.gateways)
        return gateways, cpu_seconds(servers.postgres_pid(self.postgres)), int(wal), int(stored)


@contextmanager
def place(instances: int) -> Iterator[Place]:
    made = Place(instances)
    try:
        yield made
    finally:
        made.close()


def measure_units(say: Say, rounds: int = 3) -> Units:
    """Takes some six minutes."""
    with place(1) as one:
        say("one instance, nobody there")
        one.rest(3)
        start_mb, alone = one.memory_mb(), one.rest(WINDOW)
        say(f"{SESSIONS} sessions come")
        opened = one.open(SESSIONS)
        one.rest(3)
        held_mb = one.memory_mb()
        say("they say nothing")
        silent = one.rest(2 * WINDOW)
        tries: dict[str, list[Window]] = {"quiet": [], "busy": [], "streamed": []}
        json, stream = f"[{JSON_MS}] {QUESTION}", f"{{{PIECES}x{PIECE_MS}}} {QUESTION}"
        one.ask(BUSY, 3, json)
        for number in range(rounds):
            say(f"they ask, {number + 1} of {rounds}")
            tries["quiet"].append(one.ask(QUIET, WINDOW, json))
            tries["busy"].append(one.ask(BUSY, WINDOW / 2, json))
            tries["streamed"].append(one.ask(STREAMING, WINDOW, stream))
    return _units(start_mb, held_mb, alone, opened, silent, tries)


def _units(
    start_mb: float, held_mb: float, alone: Window, opened: Window, silent: Window, tries: dict[str, list[Window]]
) -> Units:
    def each(name: str, of: Callable[[Window], float], silent_rate: float) -> float:
        """What a turn takes beyond what the sessions take that say nothing; the median of the windows."""
        return statistics.median((of(w) - silent_rate * w.seconds) / w.done["turns"] for w in tries[name])

    gateway, postgres = silent.gateway / silent.seconds, silent.postgres / silent.seconds
    statements, commits = silent.statements / silent.seconds, silent.commits / silent.seconds
    quiet_ms = each("quiet", lambda w: w.gateway * 1000, gateway * 1000)
    streamed_ms = each("streamed", lambda w: w.gateway * 1000, gateway * 1000)
    return Units(
        quiet_rate=QUIET,
        busy_rate=BUSY,
        turn_quiet_ms=quiet_ms,
        turn_busy_ms=each("busy", lambda w: w.gateway * 1000, gateway * 1000),
        turn_quiet_db_ms=each("quiet", lambda w: w.postgres * 1000, postgres * 1000),
        turn_busy_db_ms=each("busy", lambda w: w.postgres * 1000, postgres * 1000),
        statements_quiet=each("quiet", lambda w: w.statements, statements),
        statements_busy=each("busy", lambda w: w.statements, statements),
        commits_quiet=each("quiet", lambda w: w.commits, commits),
        commits_busy=each("busy", lambda w: w.commits, commits),
        piece_us=(streamed_ms - quiet_ms) / PIECES * 1000,
        session_us=(gateway - alone.gateway / alone.seconds) / SESSIONS * 1e6,
        instance_ms=alone.gateway / alone.seconds * 1000,
        instance_db_ms=alone.postgres / alone.seconds * 1000,
        instance_statements=alone.statements / alone.seconds,
        instance_commits=alone.commits / alone.seconds,
        session_kb=(held_mb - start_mb) * 1000 / SESSIONS,
        instance_mb=start_mb,
        open_ms=opened.gateway * 1000 / SESSIONS,
        open_db_ms=opened.postgres * 1000 / SESSIONS,
        wal_bytes=each("quiet", lambda w: w.wal, silent.wal / silent.seconds),
        wal_streamed_bytes=each("streamed", lambda w: w.wal, silent.wal / silent.seconds),
        stored_bytes=each("quiet", lambda w: w.stored, 0.0),
        stored_streamed_bytes=each("streamed", lambda w: w.stored, 0.0),
    )


def measure_many(instances: int, sessions: int, rate: float, streamed: float, say: Say) -> tuple[Window, float]:
    """What so many really take while they ask at this rate, and the memory in MB."""
    with place(instances) as many:
        say(f"{sessions} sessions come to {instances} instances")
        many.open(sessions)
        memory = many.memory_mb()
        parts = round(streamed * 10)
        prompts = [f"{{{PIECES}x{PIECE_MS}}} {QUESTION}"] * parts + [f"[{JSON_MS}] {QUESTION}"] * (10 - parts)
        say(f"they ask {rate:.0f} times a second")
        many.ask(rate, 5, *prompts)
        return many.ask(rate, 3 * WINDOW, *prompts), memory
