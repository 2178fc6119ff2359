"""The measures. Each drives a server with a load and returns figures by name; `report.FIGURES` says what they mean."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import servers
from benchmarks.servers import Databases, Load, Server, Stub, cpu_seconds
from tests.support.card_qna import FAQS
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port

Figures = dict[str, float]

QUESTION = "해외에서 쓸 카드 하나 추천해 주세요"
SLOW_MS = 1000
SHORT_MS = 10


@dataclass(frozen=True)
class Plan:
    """How long and how much.

    What is driven for a while is driven `repeats` times for `seconds`, and the time in which it cost least CPU counts:
    the one that other programs disturbed least. `passing_seconds` is the limit for sessions that come and go.
    """

    seconds: float
    repeats: int
    warm_up: float
    starts: int
    slow_sessions: int
    idle_sessions: int
    passing_sessions: int
    passing_seconds: float
    settle: float
    login_rounds: int
    streams: tuple[int, ...]


FULL = Plan(
    seconds=3.0,
    repeats=4,
    warm_up=1.0,
    starts=7,
    slow_sessions=1000,
    idle_sessions=10_000,
    passing_sessions=20_000,
    passing_seconds=120.0,
    settle=3.0,
    login_rounds=8,
    streams=(50, 200, 500),
)
QUICK = Plan(
    seconds=0.5,
    repeats=1,
    warm_up=0.2,
    starts=1,
    slow_sessions=100,
    idle_sessions=300,
    passing_sessions=300,
    passing_seconds=2.0,
    settle=0.3,
    login_rounds=1,
    streams=(50,),
)


@dataclass(frozen=True)
class Bench:
    """Where the measures take place. `new_server` makes the server that is measured, not started yet."""

    plan: Plan
    postgres: PostgresServer
    stub: Stub
    databases: Databases
    new_server: Callable[[], Server]


def measure(bench: Bench, say: Callable[[str], None]) -> Figures:
    figures: Figures = {}
    for part in (measure_start, measure_turns, measure_rest, measure_idle, measure_passing):
        say(part.__name__.removeprefix("measure_"))
        figures |= part(bench)
    return figures


def measure_start(bench: Bench) -> Figures:
    seconds, memory = [], []
    for _ in range(bench.plan.starts):
        server = bench.new_server()
        try:
            seconds.append(server.start())
            memory.append(server.memory_bytes())
        finally:
            server.__exit__()
    return {"start_ms": min(seconds) * 1000, "start_mb": statistics.median(memory) / 1e6}


def measure_turns(bench: Bench) -> Figures:
    """In rounds, so that the windows of each measure are apart, and a minute in which the machine is slow hits few."""
    measures = (
        (1, [f"[{SHORT_MS}] {QUESTION}"], 0.0, "waited_1"),
        (1, [QUESTION], 0.0, "turns_1"),
        (50, [QUESTION], 0.0, "turns_50"),
        (50, [faq.question for faq in FAQS], 0.0, "cached_50"),
        (200, [QUESTION], 0.0, "turns_200"),
        (bench.plan.slow_sessions, [f"[{SLOW_MS}] {QUESTION}"], SLOW_MS / 1000, "slow"),
    )
    tries: dict[str, list[Figures]] = {name: [] for *_, name in measures}
    with bench.new_server() as server, Load() as load:
        load.do("read", port=server.port, path="/api/qna/faq?top_k=100", connections=1, seconds=0.1)
        for _ in range(bench.plan.repeats):
            for sessions, prompts, spread, name in measures:
                load.do("open", port=server.port, count=sessions)
                load.do("turns", prompts=prompts, seconds=bench.plan.warm_up, spread=spread)
                tries[name].append(_take_turns(bench, server, load, prompts, spread))
            load.do("close")
    best = {name: min(found, key=lambda one: one["cpu_ms"]) for name, found in tries.items()}
    return {f"{name}_{key}": value for name, figures in best.items() for key, value in figures.items()}


def _take_turns(bench: Bench, server: Server, load: Load, prompts: list[str], spread: float) -> Figures:
    watched = {
        "": server.pid,
        "load_": load.pid,
        "stub_": bench.stub.pid,
        "postgres_": servers.postgres_pid(bench.postgres),
    }
    bench.databases.reset_counters()
    before = {what: cpu_seconds(pid) for what, pid in watched.items()}
    done = load.do("turns", prompts=prompts, seconds=bench.plan.seconds, spread=spread)
    cpu = {what: cpu_seconds(pid) - before[what] for what, pid in watched.items()}
    statements, commits = bench.databases.counters()
    turns = done["turns"] or 1
    return {
        **{f"{what}cpu_ms": cpu[what] / turns * 1000 for what in watched},
        "rate": done["rate"],
        "p50_ms": done.get("p50", 0.0),
        "p99_ms": done.get("p99", 0.0),
        "added_p50_ms": done.get("added_p50", 0.0),
        "added_p99_ms": done.get("added_p99", 0.0),
        "statements": statements / turns,
        "commits": commits / turns,
        "errors": done["errors"],
        "turns": done["turns"],
    }


def _named(name: str, figures: Figures) -> Figures:
    return {f"{name}_{key}": value for key, value in figures.items()}


def measure_rest(bench: Bench) -> Figures:
    figures: Figures = {}
    paths = {"health": "/api/health", "faq": "/api/qna/faq", "personas": "/api/chat/personas"}
    with bench.new_server() as server, Load() as load:
        for name, path in paths.items():
            load.do("read", port=server.port, path=path, connections=50, seconds=bench.plan.warm_up)
            tries = [_read(bench, server, load, path) for _ in range(bench.plan.repeats)]
            figures |= _named(f"rest_{name}", min(tries, key=lambda one: one["cpu_us"]))
    return figures


def _read(bench: Bench, server: Server, load: Load, path: str) -> Figures:
    before = server.cpu_seconds(), cpu_seconds(load.pid)
    done = load.do("read", port=server.port, path=path, connections=50, seconds=bench.plan.seconds)
    return {
        "cpu_us": (server.cpu_seconds() - before[0]) / done["requests"] * 1e6,
        "load_cpu_us": (cpu_seconds(load.pid) - before[1]) / done["requests"] * 1e6,
        "rate": done["rate"],
        "p99_ms": done["p99"],
        "errors": done["errors"],
    }


def measure_idle(bench: Bench) -> Figures:
    """Sessions that have said nothing yet."""
    count = bench.plan.idle_sessions
    with bench.new_server() as server, Load() as load:
        load.do("open", port=server.port, count=10)
        load.do("pause", seconds=bench.plan.settle)
        before = server.memory_bytes()
        cpu_before = server.cpu_seconds()
        load.do("open", within=300.0, port=server.port, count=10 + count)
        cpu = server.cpu_seconds() - cpu_before
        load.do("pause", seconds=bench.plan.settle)
        held = server.memory_bytes()
        load.do("close", within=300.0)
        load.do("pause", seconds=bench.plan.settle)
        return {
            "idle_session_kb": (held - before) / count / 1000,
            "idle_left_mb": (server.memory_bytes() - before) / 1e6,
            "open_cpu_ms": cpu / count * 1000,
        }


def measure_passing(bench: Bench) -> Figures:
    """Sessions that come, take a turn and go."""
    with bench.new_server() as server, Load() as load:
        before = server.memory_bytes()
        passed = load.do(
            "come_and_go",
            port=server.port,
            sessions=bench.plan.passing_sessions,
            at_once=100,
            seconds=bench.plan.passing_seconds,
            prompt=QUESTION,
        )
        load.do("pause", seconds=bench.plan.settle)
        after = server.memory_bytes()
    return {"passed_mb": after / 1e6, "passed_grown_mb": (after - before) / 1e6, "passed_sessions": passed["sessions"]}


def measure_pushes(plan: Plan, postgres: PostgresServer) -> Figures:
    """Three gateways: the socket on one, the login on the next, and the MCP server asks the third."""
    databases = Databases(postgres)
    ports = [free_port() for _ in range(3)]
    figures: Figures = {}
    with ExitStack() as stack:
        stub = stack.enter_context(Stub(tuple(ports)))
        for port in ports:
            stack.enter_context(servers.gateway(databases, stub.port, port))
        load = stack.enter_context(Load())
        for at_once, rounds in ((1, 25 * plan.login_rounds), (60, plan.login_rounds)):
            tries = [load.do("log_in", ports=ports, at_once=at_once, rounds=rounds) for _ in range(plan.repeats)]
            figures |= {f"push_{at_once}_{key}": sum(one[key] for one in tries) for key in ("logins", "errors")}
            done = sorted(tries, key=lambda one: one["p99"])[len(tries) // 2]  # a tail: the best says too little
            figures |= {f"push_{at_once}_{key}_ms": done[key] for key in ("p50", "p99")}
    databases.drop()
    return figures
