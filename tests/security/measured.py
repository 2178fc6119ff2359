"""What `make fuzz` has measured, kept beside the tests; `python -m benchmarks.documents` puts it into SECURITY.md."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"
PARTS = {"inputs", "memory", "schemathesis", "abuse"}
found: dict[str, Any] = {}


def record(part: str, figures: Any) -> None:
    """A whole part, or one more kind of abuse."""
    if part == "abuse":
        found.setdefault(part, {}).update(figures)
    else:
        found[part] = figures


def write() -> None:
    """A run that has measured everything replaces the last one."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    results = {"measured": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine} | found
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")


def tables() -> str:
    """In Markdown. The tests of the run have seen to it that no answer was wrong and no session lost."""
    results = json.loads(RESULTS.read_text("utf-8"))
    inputs, (before, grown) = results["inputs"], results["memory"]
    lines = [f"\nBy `make fuzz` on {results['measured']}, everything on one machine: {results['machine']}.\n"]
    lines += ["| inputs | tried | wrong answers | sessions lost |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {count:,} | 0 | 0 |" for name, count in inputs.items()]
    lines += [f"| **together** | **{sum(inputs.values()):,}** | **0** | **0** |\n"]
    lines += [f"The process took {before:.0f} MiB before the run and {grown:.1f} MiB more after it."]
    lines += [f"schemathesis: {results['schemathesis']}.\n"]
    lines += ["| abuse | p99 before, ms | p99 during, ms | memory, MiB |", "|---|---:|---:|---:|"]
    for name, (normal, during, more) in results["abuse"].items():
        lines.append(f"| {name} | {normal * 1000:.0f} | {during * 1000:.0f} | {more:+.0f} |")
    return "\n".join(lines) + "\n"
