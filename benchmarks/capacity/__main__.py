"""Says what so many visitors need, each figure with its formula, what gives out first, and how bad it can get.

It rests on results.json beside the benchmarks, whose unit costs are measured on one instance (--measure); --check runs
five instances with 50,000 sessions and says how far the model was off, with status 1 if that is more than a quarter.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.capacity.model import POSTGRES_CORES, Model, Units, Visitors
from benchmarks.capacity.storm import play, storms
from benchmarks.report import HERE, machine, update_json

RESULTS = HERE / "results.json"
MAX_SESSIONS = 10_000
CHECKED_INSTANCES, CHECKED_SESSIONS = 5, 50_000
FAR_OFF = 0.25


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="visitors at the same time (default: 1000000)")
    parser.add_argument("--prompts-per-hour", type=float, default=6.0, help="of each visitor (default: 6)")
    parser.add_argument("--streamed", type=float, default=0.8, help="share of answers that are streamed (default: 0.8)")
    parser.add_argument("--max-sessions", type=int, default=MAX_SESSIONS, help="of an instance (default: 10000)")
    parser.add_argument("--measure", action="store_true", help="first measure the unit costs: six minutes, Linux")
    parser.add_argument("--check", action="store_true", help="measure five instances with 50,000 sessions instead")
    options = parser.parse_args()
    if options.sessions < 1 or options.prompts_per_hour <= 0 or not 0 <= options.streamed <= 1:
        parser.error("sessions and prompts must be above 0, and the streamed share from 0 to 1")
    if options.measure:
        from benchmarks.capacity.run import run_units  # noqa: PLC0415  # it needs what only measuring needs

        update_json(RESULTS, {"capacity": {"machine": machine(), "units": asdict(run_units())}})
    units = read_units()
    if options.check:
        return check(units, options.prompts_per_hour, options.streamed)
    visitors = Visitors(options.sessions, options.prompts_per_hour, options.streamed)
    model = Model(units, visitors, options.max_sessions)
    print("\n".join(report(model)))
    return 0


def read_units() -> Units:
    """The unit costs as they were measured last."""
    return Units(**json.loads(RESULTS.read_text("utf-8"))["capacity"]["units"])


def report(model: Model) -> Iterator[str]:
    """What the visitors need, and their worst minutes."""
    visitors, units = model.visitors, model.units
    hourly = f"{visitors.prompts_per_hour:g} prompts an hour"
    yield f"{visitors.sessions:,} sessions, {hourly}, {visitors.streamed:.0%} streamed"
    yield ""
    for line in model.lines():
        yield f"{line.name:12} {line.value:12,.{0 if line.value >= 100 else 2}f} {line.unit:12} = {line.formula}"
    yield ""
    yield f"Of what one PostgreSQL is taken to bear (commits, connections, NOTIFYs, {POSTGRES_CORES:g} cores):"
    for name, share in model.shares():
        yield f"  {name:20} {share:8.1%}"
    first, share = model.shares()[0]
    yield f"So {first} give out first, at about {visitors.sessions / share:,.0f} sessions."
    yield ""
    yield f"{'The worst minutes':36} half back  99 % back  all back  handshakes in the worst second"
    for storm in storms(visitors.sessions, model.instances, units.open_ms, units.open_db_ms, POSTGRES_CORES):
        came = play(storm)
        times = (f"{seconds:8.0f} s" for seconds in (came.half_back, came.nearly_all_back, came.all_back))
        yield f"{storm.name:35} {' '.join(times)} {came.peak:18,}"


def check(units: Units, prompts_per_hour: float, streamed: float) -> int:
    """Compares the model with what really happens, when nobody comes or goes."""
    from benchmarks.capacity.run import run_many  # noqa: PLC0415  # it needs what only measuring needs

    wanted = CHECKED_SESSIONS * prompts_per_hour / 3600
    real, memory_mb = run_many(CHECKED_INSTANCES, CHECKED_SESSIONS, wanted, streamed)
    turns = real.done["turns"] / real.seconds  # fewer than wanted, since the last answers are waited for
    visitors = Visitors(
        CHECKED_SESSIONS,
        turns / CHECKED_SESSIONS * 3600,
        streamed,
        logins_per_hour=0,
        visit_minutes=math.inf,
        resumes_per_hour=0,
    )
    model = Model(units, visitors, MAX_SESSIONS, CHECKED_INSTANCES)
    pairs = {
        "gateway, cores": (model.gateway_cores, real.gateway / real.seconds),
        "PostgreSQL, cores": (model.postgres_cores, real.postgres / real.seconds),
        "memory, MB": (CHECKED_INSTANCES * units.instance_mb + CHECKED_SESSIONS * units.session_kb / 1000, memory_mb),
        "statements a second": (model.statements, real.statements / real.seconds),
        "commits a second": (model.commits, real.commits / real.seconds),
        "WAL, MB a second": (model.wal_bytes / 1e6, real.wal / real.seconds / 1e6),
        "stored, MB a second": (model.stored_bytes / 1e6, real.stored / real.seconds / 1e6),
    }
    for name, (said, measured) in pairs.items():
        print(f"{name:22} model {said:10.2f}  measured {measured:10.2f}  {said / measured:6.2f}")
    before = json.loads(RESULTS.read_text("utf-8"))["capacity"]
    checked = {name: {"model": round(a, 3), "measured": round(b, 3)} for name, (a, b) in pairs.items()}
    update_json(RESULTS, {"capacity": before | {"checked": checked}})
    far = [name for name, (said, measured) in pairs.items() if abs(said / measured - 1) > FAR_OFF]
    print(f"more than a quarter off: {', '.join(far)}" if far else "The model is within a quarter of all of these.")
    return 1 if far or real.done.get("errors") else 0


if __name__ == "__main__":
    sys.exit(main())
