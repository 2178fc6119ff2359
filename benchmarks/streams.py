"""What a streamed answer costs beside the same answer as one JSON reply, and how long a piece is on its way."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks import servers
from benchmarks.servers import Databases, Load, Server, Stub

PIECES, PAUSE_MS = 100, 20
QUESTION = "해외에서 쓸 카드 하나 추천해 주세요"
STREAM, JSON = f"{{{PIECES}x{PAUSE_MS}}} {QUESTION}", f"[{PIECES * PAUSE_MS}] {QUESTION}"
AT_ONCE = (50, 200, 500)
# Shorter than the pause between two pieces: none waits for the next, and what is left is delay.
NO_COALESCING = {"DELTA_SECONDS": "0.01"}

Figures = dict[str, float]


@dataclass(frozen=True)
class Asked:
    cpu: float
    done: Figures


def measure_streams(databases: Databases, stub: Stub, rounds: int, at_once: tuple[int, ...] = AT_ONCE) -> Figures:
    """So many answers at once, of 100 pieces 20 ms apart: microseconds of CPU of a piece, milliseconds of delay."""
    figures: Figures = {}
    for count in at_once:
        name = f"stream_{count}"
        with servers.gateway(databases, stub.port) as server:
            unseen = _windows(server, "open", count, rounds)
            shown = _windows(server, "open_more", count, rounds)
        figures[f"{name}_unseen_us"] = _piece_us(unseen, count)
        figures[f"{name}_piece_us"] = _piece_us(shown, count)
        figures[f"{name}_frames"] = statistics.median(one.done["frames"] for _, one in shown) / count
        figures[f"{name}_errors"] = sum(one.done["errors"] for pair in (*unseen, *shown) for one in pair)
        with servers.gateway(databases, stub.port, None, **NO_COALESCING) as server:
            at_once_shown = [stream.done for _, stream in _windows(server, "open_more", count, rounds)]
        for key in ("delay_p50", "delay_p99", "first_p99"):
            figures[f"{name}_{key}_ms"] = statistics.median(done[key] for done in at_once_shown)
    return figures


def _windows(server: Server, opening: str, count: int, rounds: int) -> list[tuple[Asked, Asked]]:
    """The answers as JSON, then streamed, `rounds` times, after one to warm up."""
    with Load("benchmarks.capacity.load") as load:
        load.do(opening, within=300.0, port=server.port, count=count)
        pairs = [(_ask(server, load, JSON), _ask(server, load, STREAM)) for _ in range(rounds + 1)]
        load.do("close", within=300.0)
    return pairs[1:]


def _ask(server: Server, load: Load, prompt: str) -> Asked:
    before = server.cpu_seconds()
    done = load.do("ask_once", prompts=[prompt], spread=PAUSE_MS / 1000)
    return Asked(server.cpu_seconds() - before, done)


def _piece_us(pairs: list[tuple[Asked, Asked]], count: int) -> float:
    return statistics.median(stream.cpu - json.cpu for json, stream in pairs) / count / PIECES * 1e6
