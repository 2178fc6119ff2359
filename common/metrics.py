"""What `/metrics` shows. With several workers in one container any of them shows the sum over all."""

import os
import platform
import struct
import tempfile
from contextlib import suppress
from multiprocessing import current_process
from pathlib import Path

# A worker is known by its name even while it runs the main module again; the parent it has is known only later.
if (given_folder := os.environ.pop("PROMETHEUS_MULTIPROC_DIR", "")) or current_process().name != "MainProcess":
    # Workers add up through files in a folder they share. The library reads its name when it is imported, so only this
    # module imports it. The supervisor's start time tells it from an earlier one with the same process id.
    supervisor = Path(f"/proc/{os.getppid()}/stat")
    started = "" if given_folder else supervisor.read_text().rpartition(")")[2].split()[19]
    folder = Path(given_folder or Path(tempfile.gettempdir(), f"gateway-metrics-{os.getppid()}-{started}"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.glob("gauge_live*.db"):
        if not Path("/proc", file.stem.rpartition("_")[2]).exists():
            file.unlink(missing_ok=True)  # of a worker that was killed
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from common import VERSION
from common.errors import REASONS

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
SHARED_FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
ROWS = (1, 2, 5, 10, 50, 200, 500)
SLOW = (*FAST, 10, 30, 60, 120, 300)


def _gauge(name: str, text: str, *labels: str, largest: bool = False) -> Gauge:
    return Gauge(name, text, labels, multiprocess_mode="livemax" if largest else "livesum")


sessions = _gauge("gateway_sessions", "Sessions whose socket is open here")
sessions_opened = Counter("gateway_sessions_opened", "Handshakes by result", ["result"])
prompts = Counter("gateway_prompts", "Prompts by outcome", ["outcome"])
turn_seconds = Histogram("gateway_turn_seconds", "Parts of a turn", ["part"], buckets=SLOW)
turns_in_hand = _gauge("gateway_turns_in_hand", "Turns and logins being worked on")
oldest_turn = _gauge("gateway_oldest_turn_seconds", "Age of the oldest turn in hand", largest=True)
tasks = _gauge("gateway_tasks", "Tasks that work in the background")
turns_taken_over = Counter("gateway_turns_taken_over", "Turns that another instance had left")
unstored_answers = _gauge("gateway_unstored_answers", "Answers that wait in memory for the database")
drafts = _gauge("gateway_drafts", "Answers being made by the LLM server")
first_delta = Histogram("gateway_first_delta_seconds", "From a prompt to the first text of its answer", buckets=SLOW)
deltas = Counter("gateway_deltas", "Pieces of answers sent while they were being made")
previewed_bytes = Counter("gateway_previewed_bytes", "Notices of drafts to other instances")
pushes = Counter("gateway_pushes", "Pushes by where their session was", ["way"])
caught_up = Counter("gateway_caught_up_answers", "Answers and pushes of other instances, read and sent here")
upstream_calls = Counter("gateway_upstream_calls", "Calls by server and result", ["server", "result"])
db_connections = _gauge("gateway_db_connections_in_use", "Connections of the pool in use", "database")
db_wait_seconds = Histogram("gateway_db_wait_seconds", "Time to get a connection", ["database"], buckets=FAST)
batch_rows = Histogram("gateway_batch_rows", "Rows in a shared statement", ["statement"], buckets=ROWS)
loop_lag = _gauge("gateway_event_loop_lag_seconds", "How late the event loop wakes what has slept", largest=True)
listen_age = _gauge("gateway_listen_age_seconds", "Age of the last sign from the LISTEN connection", largest=True)
build_info = _gauge("gateway_build_info", "Version of the gateway and of Python", "version", "python", largest=True)
# Known beforehand and there from the start: the rate of what has not happened yet is 0, not nothing
KNOWN: dict[Counter, str] = {
    sessions_opened: "new resumed refused_origin refused_draining refused_full refused_database",
    prompts: " ".join(["refused_invalid_message", *REASONS.values()]),
    pushes: "local remote",
    upstream_calls: "llm,ok llm,stopped llm,status llm,format llm,timeout llm,unreachable mcp,ok mcp,failed",
}
for counter, known in KNOWN.items():
    for labels in known.split():
        counter.labels(*labels.split(","))
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second line for each counter, of no use here
REGISTRY.unregister(prometheus_client.PLATFORM_COLLECTOR)  # build_info has it
build_info.labels(VERSION, platform.python_version()).set(1)


def render() -> bytes:
    """The metrics in Prometheus' text format."""
    if SHARED_FOLDER is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    for _ in range(2):
        with suppress(FileNotFoundError, struct.error):  # a worker has just removed its files, or made one
            return generate_latest(registry)
    return generate_latest(registry)


def forget_process() -> None:
    """A worker that ends takes its files with it; the last one the folder as well, unless that was given."""
    if SHARED_FOLDER is not None:
        for file in Path(SHARED_FOLDER).glob(f"*_{os.getpid()}.db"):
            file.unlink(missing_ok=True)
        if not given_folder:
            with suppress(OSError):
                Path(SHARED_FOLDER).rmdir()
