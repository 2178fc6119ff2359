"""Writes into the documents what runs have measured and what settings.py says: `python -m benchmarks.documents`.

Such a part of a document stands between `<!-- made: NAME -->` and `<!-- end -->`. With --check nothing is written, and
the exit status is 1 if a document is not what it would become; `make check` sees to that.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from benchmarks.capacity.__main__ import read_units, report
from benchmarks.capacity.model import Model, Visitors
from settings import Settings
from tests.security import measured

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "README.ko.md",
    "docs/configuration.md",
    "docs/capacity.md",
    "docs/deployment.md",
    "SECURITY.md",
)
_BLOCK = re.compile(r"(<!-- made: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)

# Figures of results.json: name, title in English and in Korean, digits
COSTS = (
    ("turns_50_cpu_ms", "CPU per turn with an LLM call, 50 sessions, ms", "LLM을 부르는 턴의 CPU, 세션 50, ms", 2),
    ("turns_200_cpu_ms", "CPU per turn with an LLM call, 200 sessions, ms", "LLM을 부르는 턴의 CPU, 세션 200, ms", 2),
    (
        "cached_50_cpu_ms",
        "CPU per turn answered from memory, 50 sessions, ms",
        "메모리에서 답하는 턴의 CPU, 세션 50, ms",
        3,
    ),
    ("turns_200_rate", "turns per second, 200 sessions", "초당 턴, 세션 200", 0),
    ("cached_50_rate", "turns per second answered from memory, 50 sessions", "메모리에서 답하는 초당 턴, 세션 50", 0),
    ("turns_200_p99_ms", "p99 with 200 sessions, ms", "세션 200의 p99, ms", 0),
    (
        "waited_1_added_p99_ms",
        "added to an LLM answer, one in flight, p99, ms",
        "LLM 답변에 더해지는 시간, 하나일 때 p99, ms",
        1,
    ),
    (
        "slow_added_p99_ms",
        "added to an LLM answer, 1,000 in flight, p99, ms",
        "LLM 답변에 더해지는 시간, 1,000개일 때 p99, ms",
        0,
    ),
    ("rest_faq_rate", "GET faq per second", "초당 GET faq", 0),
    ("start_mb", "memory at start, MB", "시작 메모리, MB", 0),
    ("idle_session_kb", "memory per idle session, KB", "쉬는 세션 하나의 메모리, KB", 0),
    ("passed_grown_mb", "memory grown after sessions came and went, MB", "세션이 오고 간 뒤 늘어난 메모리, MB", 1),
    ("start_ms", "exec to the first 200, ms", "실행부터 첫 200까지, ms", 0),
    ("turns_1_statements", "statements per turn, 1 session", "턴당 SQL 문, 세션 1", 2),
    ("turns_50_statements", "statements per turn, 50 sessions", "턴당 SQL 문, 세션 50", 2),
    ("turns_50_commits", "commits per turn, 50 sessions", "턴당 커밋, 세션 50", 2),
    (
        "push_1_p99_ms",
        "push to another instance, one login at a time, p99, ms",
        "다른 인스턴스로의 푸시, 한 번에 하나, p99, ms",
        0,
    ),
    (
        "push_60_p99_ms",
        "push to another instance, 60 logins at once, p99, ms",
        "다른 인스턴스로의 푸시, 한꺼번에 60, p99, ms",
        0,
    ),
)
# Rows of the faults that stand for the others, and what they are called in Korean
FAULTS = {
    "kill -9 in the middle of 200 streamed answers": "스트리밍 답변 200개 도중 kill -9",
    "rolling restart of three instances": "인스턴스 세 개를 차례로 재시작",
    "database stopped for 10 s": "데이터베이스를 10초 동안 정지",
    "resume storms in the middle of answers, 10 times": "답변 도중 한꺼번에 다시 접속, 10번",
}


def costs(language: str) -> str:
    """The table of what things cost."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))
    gateway, peer, better = results["gateway"], results["peer"], results["times_better"]
    korean = language == "ko"
    rows: list[tuple[str, ...]] = (
        [("항목", "게이트웨이", "FastAPI 비교 대상", "몇 배")]
        if korean
        else [("figure", "gateway", "FastAPI peer", "times better")]
    )
    for name, title, title_ko, digits in COSTS:
        cells = [_number(gateway.get(name), digits), _number(peer.get(name), digits), _number(better.get(name), 1)]
        rows.append((title_ko if korean else title, *cells))
    return _table(rows)


def best(language: str) -> str:
    """The best figure, in a sentence."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))
    cpu, times = results["gateway"]["turns_50_cpu_ms"], results["times_better"]["turns_50_cpu_ms"]
    count = len(_faults())
    if language == "ko":
        part = f"FastAPI로 만든 같은 서비스의 {times:.0f}분의 1"
        return f"한 턴에 드는 CPU는 {cpu:.1f} ms로 {part}이고, 장애 {count}가지를 일으켜도 아무것도 잃지 않았습니다."
    part = f"1/{times:.0f} of what the same service takes in FastAPI"
    return f"A turn takes {cpu:.1f} ms of CPU, {part}, and nothing was lost in {count} kinds of faults."


def faults(language: str) -> str:
    """Four rows, and the sum of all."""
    korean, found = language == "ko", _faults()
    rows: list[tuple[str, ...]] = [
        ("장애", "질문", "유실", "중복") if korean else ("fault", "prompts", "lost", "doubled")
    ]
    for name, name_ko in FAULTS.items():
        rows.append((name_ko if korean else name, *(f"{count:,}" for count in found[name])))
    sums = [sum(column) for column in zip(*found.values(), strict=True)]
    rows.append((f"모두 {len(found)}가지" if korean else f"all {len(found)}", *(f"{count:,}" for count in sums)))
    return _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """In Markdown; the first row is the head, and all columns but the first are numbers."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["", lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:], ""])


def _faults() -> dict[str, tuple[int, int, int]]:
    """Prompts, lost and doubled, pushes included, of each fault that was measured last."""
    lines = (ROOT / "tests" / "faults" / "results.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][2:]
    return {
        name: (int(sent), int(lost) + int(pushes_lost), int(doubled) + int(pushes_doubled))
        for name, sent, _, _, lost, doubled, _, pushes_lost, pushes_doubled, _ in cells
    }


def settings(language: str) -> str:
    """Every setting: its name, default and rule from settings.py, and what .env.example says of it."""
    rows = ["| setting | default | value | meaning |", "|---|---|---|---|"]
    meanings = _meanings()
    for spec in fields(Settings):
        name, rule = spec.name.upper(), spec.metadata["kind"][1].removeprefix("must be ")
        rows.append(f"| `{name}` | {_default(spec.default)} | {rule} | {meanings[name]} |")
    return "\n" + "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    if value is MISSING:
        return "required"
    if isinstance(value, tuple):
        value = ",".join(str(network.network_address) for network in value)
    elif isinstance(value, bool | float):
        value = str(value).lower() if isinstance(value, bool) else f"{value:g}"
    return "" if value is None else f"`{value}`"


def _meanings() -> dict[str, str]:
    """The comment above each variable; variables that stand together share it."""
    meanings, comment = dict[str, str](), list[str]()
    is_new = True
    for line in (ROOT / ".env.example").read_text("utf-8").splitlines():
        if variable := re.match(r"#?([A-Z][A-Z_]+)=", line):
            meanings[variable[1]], is_new = " ".join(comment), True
        elif not line:
            comment = []
        elif line.startswith("# ") and not line.startswith("# ---"):
            comment = [line[2:]] if is_new else [*comment, line[2:]]
            is_new = False
    return meanings


def capacity(language: str) -> str:
    """What a million visitors need."""
    return "\n```\n" + "\n".join(report(Model(read_units(), Visitors(1_000_000, 6, 0.8), 10_000))) + "\n```\n"


def instance(language: str) -> str:
    """What one instance bears."""
    found = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))["gateway"]
    connections = Settings.db_pool_size + Settings.faq_db_pool_size + 1
    return _table(
        [
            ("one instance", "measured"),
            ("turns per second with an LLM call", _number(found["turns_200_rate"], 0)),
            ("turns per second answered from memory", _number(found["cached_50_rate"], 0)),
            ("reads per second of the FAQ", _number(found["rest_faq_rate"], 0)),
            ("memory at start, MB", _number(found["start_mb"], 0)),
            ("memory of 10,000 open sessions, MB", _number(found["idle_session_kb"] * 10, 0)),
            ("connections to PostgreSQL", str(connections)),
        ]
    )


def checked(language: str) -> str:
    """The model beside what was measured."""
    found = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))["capacity"]["checked"]
    rows: list[tuple[str, ...]] = [("five instances, 50,000 sessions", "model", "measured", "model by measured")]
    for name, pair in found.items():
        said, measured = pair["model"], pair["measured"]
        rows.append((name, _number(said, 2), _number(measured, 2), _number(said / measured, 2)))
    return _table(rows)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


MADE: dict[str, Callable[[str], str]] = {
    "costs": costs, "best": best, "faults": faults, "settings": settings, "capacity": capacity, "checked": checked,
    "instance": instance, "attacks": lambda language: measured.tables(),
}  # fmt: skip


def renewed(document: Path) -> str:
    """What a document becomes."""
    language = "ko" if document.name.endswith(".ko.md") else "en"
    return _BLOCK.sub(lambda block: block[1] + MADE[block[2]](language) + block[4], document.read_text("utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.documents", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a document would change")
    is_check = parser.parse_args().check
    stale = [name for name in DOCUMENTS if renewed(ROOT / name) != (ROOT / name).read_text("utf-8")]
    for name in stale:
        if is_check:
            print(f"{name} is not what was measured or set last: run python -m benchmarks.documents", file=sys.stderr)
        else:
            (ROOT / name).write_text(renewed(ROOT / name), "utf-8")
    return 1 if stale and is_check else 0


if __name__ == "__main__":
    sys.exit(main())
