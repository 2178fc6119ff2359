"""Measures the gateway and its FastAPI peer, one after the other, under the same load, on this machine alone.

Prints a table; a full run also writes results.json and cpu_per_turn.svg beside this file.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

from benchmarks import report, servers
from benchmarks.measures import FULL, QUICK, Bench, Figures, Plan, measure, measure_pushes
from benchmarks.servers import Databases, Server, Stub, start_postgres
from benchmarks.streams import measure_streams
from tests.support.postgres import PostgresServer
from tests.support.processes import dismiss_guardian


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, for trying out; writes no files")
    parser.add_argument("--only", choices=("gateway", "peer"), help="one of the two; writes no files")
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("The benchmark reads /proc and uses several loopback addresses: it runs on Linux.")
    raise_file_limit()
    plan = QUICK if arguments.quick else FULL
    names = (arguments.only,) if arguments.only else ("gateway", "peer")
    try:
        results = run(plan, names)
    finally:
        dismiss_guardian()
    gateway, peer = results.get("gateway", {}), results.get("peer", {})
    print(report.table(gateway, peer))
    if arguments.quick:
        print(f"Rough figures: a quick run has {plan.slow_sessions} sessions where the table says 1,000.")
    for name, figures in results.items():
        failed = {figure: value for figure, value in figures.items() if figure.endswith("_errors") and value}
        if failed:
            print(f"{name}: not everything was answered: {failed}", file=sys.stderr)
    if not arguments.quick and not arguments.only:
        report.write_json(report.HERE / "results.json", gateway=gateway, peer=peer, is_quick=arguments.quick)
        report.draw_cpu_per_turn(report.HERE / "cpu_per_turn.svg", gateway=gateway, peer=peer)


def raise_file_limit() -> None:
    """Each session is a file, here and in the server; what is started here inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(plan: Plan, names: tuple[str, ...]) -> dict[str, Figures]:
    started_at = time.perf_counter()

    def say(what: str) -> None:
        print(f"{time.perf_counter() - started_at:6.1f} s  {what}", file=sys.stderr, flush=True)

    results: dict[str, Figures] = {}
    postgres = start_postgres()
    try:
        with Stub() as stub:
            for name in names:
                results[name] = measure_server(name, plan, postgres, stub, say)
            if "gateway" in names:
                say("gateway: streams")
                streamed = Databases(postgres)
                results["gateway"] |= measure_streams(streamed, stub, plan.repeats, plan.streams)
                streamed.drop()
        if "gateway" in names:
            say("gateway: pushes")
            results["gateway"] |= measure_pushes(plan, postgres)
    finally:
        postgres.close()
    say("done")
    return results


def measure_server(name: str, plan: Plan, postgres: PostgresServer, stub: Stub, say: servers.Say) -> Figures:
    databases = Databases(postgres)

    def new_server() -> Server:
        return servers.gateway(databases, stub.port) if name == "gateway" else servers.peer(databases, stub.port)

    figures = measure(Bench(plan, postgres, stub, databases, new_server), lambda part: say(f"{name}: {part}"))
    databases.drop()
    return figures


if __name__ == "__main__":
    main()
