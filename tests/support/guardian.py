"""Ends what a test run has started, when the test run itself is gone. Run as a program of its own.

It reads lines from standard input: `+PID SIGNAL` for a process that was started, with the signal that ends
it at once, `-PID` when it has ended, `=PATH` for a directory that was made. At the end of the input, which
comes however the test run ends, kill -9 included, whatever is left is killed and removed.
"""

import os
import shutil
import signal
import sys
import time


def main() -> None:
    """Keep the list until the input ends, then clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    processes: dict[int, int] = {}
    paths: list[str] = []
    for line in sys.stdin:
        kind, value = line[:1], line[1:].rstrip("\n")
        if kind == "+":
            pid, number = value.split()
            processes[int(pid)] = int(number)
        elif kind == "-":
            processes.pop(int(value), None)
        elif kind == "=":
            paths.append(value)
    for pid, number in reversed(processes.items()):
        _kill(pid, number)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(_kill(pid, 0) for pid in processes):
        time.sleep(0.05)
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def _kill(pid: int, number: int) -> bool:
    try:
        os.killpg(pid, number)  # with its children: each process was started as the leader of a group
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
