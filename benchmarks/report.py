"""The table, the JSON and the picture of a run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGES = ("starlette", "uvicorn", "uvloop", "asyncpg", "aiohttp", "httpx", "fastapi", "sqlmodel", "sqlalchemy")

Figures = dict[str, float]


@dataclass(frozen=True)
class Figure:
    name: str
    title: str
    unit: str
    digits: int = 2
    is_better_high: bool = False


def _turn_figures(name: str, title: str) -> list[Figure]:
    rate = Figure(f"{name}_rate", f"{title}: turns per second", "1/s", 0, is_better_high=True)
    return [
        Figure(f"{name}_cpu_ms", f"{title}: CPU per turn", "ms", 3),
        *([rate] if name != "slow" else []),  # there it is the LLM server that sets the pace
        Figure(f"{name}_p50_ms", f"{title}: latency p50", "ms"),
        Figure(f"{name}_p99_ms", f"{title}: latency p99", "ms"),
    ]


def _rest_figures(name: str) -> list[Figure]:
    return [
        Figure(f"rest_{name}_rate", f"GET {name}, 50 connections: requests per second", "1/s", 0, is_better_high=True),
        Figure(f"rest_{name}_cpu_us", f"GET {name}, 50 connections: CPU per request", "µs", 0),
    ]


def _stream_figures(count: int) -> list[Figure]:
    return [
        Figure(f"stream_{count}_piece_us", f"{count} streamed answers at once: CPU of a piece above JSON", "µs", 0),
        Figure(f"stream_{count}_unseen_us", "… that nobody watches", "µs", 0),
        Figure(f"stream_{count}_frames", "… frames of an answer", "", 0),
        Figure(f"stream_{count}_delay_p99_ms", "… delay of a piece, coalescing apart: p99", "ms"),
        Figure(f"stream_{count}_first_p99_ms", "… delay of the first piece: p99", "ms"),
    ]


TURNS = {
    "turns_1": "LLM turn, 1 session",
    "turns_50": "LLM turn, 50 sessions",
    "turns_200": "LLM turn, 200 sessions",
    "slow": "LLM takes 1 s, 1,000 sessions",
    "cached_50": "cached turn, 50 sessions",
}
FIGURES = [
    *(figure for name, title in TURNS.items() for figure in _turn_figures(name, title)),
    Figure("waited_1_added_p50_ms", "added to an LLM answer, 1 in flight: p50", "ms"),
    Figure("waited_1_added_p99_ms", "added to an LLM answer, 1 in flight: p99", "ms"),
    Figure("slow_added_p50_ms", "added to an LLM answer, 1,000 in flight: p50", "ms"),
    Figure("slow_added_p99_ms", "added to an LLM answer, 1,000 in flight: p99", "ms"),
    *_rest_figures("health"),
    *_rest_figures("faq"),
    *_rest_figures("personas"),
    Figure("start_mb", "memory at start", "MB", 1),
    Figure("idle_session_kb", "memory per idle session", "kB", 1),
    Figure("passed_grown_mb", "memory grown after sessions came and went", "MB", 1),
    Figure("passed_sessions", "… how many sessions those were", "", 0, is_better_high=True),
    Figure("start_ms", "exec to the first 200", "ms", 0),
    Figure("turns_1_statements", "statements per LLM turn, 1 session", ""),
    Figure("turns_50_statements", "statements per LLM turn, 50 sessions", ""),
    Figure("turns_1_commits", "commits per LLM turn, 1 session", ""),
    Figure("turns_50_commits", "commits per LLM turn, 50 sessions", ""),
    Figure("turns_50_postgres_cpu_ms", "PostgreSQL's CPU per LLM turn, 50 sessions", "ms", 3),
    *(figure for count in (50, 200, 500) for figure in _stream_figures(count)),
    Figure("push_1_p50_ms", "push to another instance, 1 login at a time: p50", "ms"),
    Figure("push_1_p99_ms", "push to another instance, 1 login at a time: p99", "ms"),
    Figure("push_60_p50_ms", "push to another instance, 60 logins at once: p50", "ms"),
    Figure("push_60_p99_ms", "push to another instance, 60 logins at once: p99", "ms"),
]


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def ratio(figure: Figure, gateway: Figures, peer: Figures) -> float | None:
    """How many times better the gateway is."""
    ours, theirs = gateway.get(figure.name), peer.get(figure.name)
    if ours is None or theirs is None or ours <= 0 or theirs <= 0 or not figure.unit:
        return None
    return ours / theirs if figure.is_better_high else theirs / ours


def table(gateway: Figures, peer: Figures) -> str:
    """In Markdown."""
    rows: list[tuple[str, ...]] = [("figure", "unit", "gateway", "peer", "times better")]
    for figure in FIGURES:
        if figure.name in gateway or figure.name in peer:
            times = ratio(figure, gateway, peer)
            numbers = (_number(figures.get(figure.name), figure.digits) for figures in (gateway, peer))
            rows.append((figure.title, figure.unit, *numbers, "" if times is None else f"{times:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    rule = ("-" * widths[0], "-" * widths[1], *("-" * (width - 1) + ":" for width in widths[2:]))
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append(f"| {' | '.join(left + right)} |")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def write_json(path: Path, *, gateway: Figures, peer: Figures, is_quick: bool) -> None:
    ratios = {figure.name: ratio(figure, gateway, peer) for figure in FIGURES}
    content = {
        "machine": machine(),
        "quick": is_quick,
        "gateway": _rounded(gateway),
        "peer": _rounded(peer),
        "times_better": _rounded({name: times for name, times in ratios.items() if times is not None}),
    }
    update_json(path, content)


def update_json(path: Path, content: dict[str, Any]) -> None:
    """Writes what was measured; what another run has measured stays."""
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(before | content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _rounded(figures: Figures) -> Figures:
    return {name: round(value, 4) for name, value in figures.items()}


BAR, GAP, LEFT, WIDTH, RIGHT = 16, 14, 230, 460, 130
COLOURS = {"gateway": "#0f766e", "peer": "#94a3b8"}


def draw_cpu_per_turn(path: Path, *, gateway: Figures, peer: Figures) -> None:
    """Bars that are read in light and dark pages alike."""
    bars = [(title, gateway[f"{name}_cpu_ms"], peer[f"{name}_cpu_ms"]) for name, title in TURNS.items()]
    longest = max(value for _, *values in bars for value in values)
    top = 56
    height = top + len(bars) * (2 * BAR + GAP)
    width = LEFT + WIDTH + RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="13" role="img" aria-labelledby="title">',
        '<title id="title">CPU per turn, gateway and FastAPI peer</title>',
        "<style>text{fill:#334155}@media(prefers-color-scheme:dark){text{fill:#cbd5e1}}</style>",
        '<text x="0" y="16" font-size="15" font-weight="600">CPU of the server per turn, in ms (less is better)</text>',
    ]
    for number, (name, label) in enumerate((("gateway", "this gateway"), ("peer", "FastAPI + SQLModel peer"))):
        x = LEFT + number * 130
        parts.append(f'<rect x="{x}" y="28" width="12" height="12" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{x + 18}" y="39">{label}</text>')
    for number, (title, ours, theirs) in enumerate(bars):
        y = top + number * (2 * BAR + GAP)
        parts.append(f'<text x="{LEFT - 12}" y="{y + BAR + 4}" text-anchor="end">{escape(title)}</text>')
        notes = (f"{ours:.2f} ({theirs / ours:.1f} times less)", f"{theirs:.2f}")
        for row, (name, value, note) in enumerate(zip(COLOURS, (ours, theirs), notes, strict=True)):
            length = max(value / longest * WIDTH, 1)
            bar_y = y + row * BAR
            parts.append(
                f'<rect x="{LEFT}" y="{bar_y}" width="{length:.1f}" height="{BAR - 2}" fill="{COLOURS[name]}"/>'
            )
            parts.append(f'<text x="{LEFT + length + 6:.1f}" y="{bar_y + BAR - 4}">{note}</text>')
    path.write_text("\n".join([*parts, "</svg>", ""]), "utf-8")
