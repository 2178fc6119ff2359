"""Processes that outlive a run which was killed (kill -9): it leaves a record of them, and the next run ends them."""

import contextlib
import json
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

END_SECONDS = 10  # for a process to end after it was told to; then it is killed
SAME_START_SECONDS = 2  # a process that started at another time only has the same number


def write_record(path: Path, processes: Iterable[tuple[int, signal.Signals]]) -> None:
    """Of each process the number, and the signal that ends it."""
    rows = []
    for pid, ending in processes:
        with contextlib.suppress(psutil.Error):
            rows.append({"pid": pid, "started": psutil.Process(pid).create_time(), "ending": int(ending)})
    path.write_text(json.dumps(rows))


def end_recorded(path: Path) -> None:
    """Ends what the record names, the last started first."""
    rows = []
    with contextlib.suppress(OSError, ValueError):
        rows = json.loads(path.read_text())
    for row in reversed(rows):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(row["pid"])
            if abs(process.create_time() - row["started"]) < SAME_START_SECONDS:
                end(process, row["ending"])
    path.unlink(missing_ok=True)


def end(process: psutil.Process, ending: int) -> None:
    """Sends the signal, waits until the process has ended, and kills it if that takes too long."""
    process.send_signal(ending)
    deadline = time.monotonic() + END_SECONDS
    while not _has_ended(process):
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.05)


def _has_ended(process: psutil.Process) -> bool:
    try:
        # It is not our child: its new parent may take its time to clear it away.
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
