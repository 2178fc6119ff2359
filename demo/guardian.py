"""Ends what a run has started, when the run itself is gone. A program of its own, started by demo/processes.py.

It reads lines from standard input: `+PID SIGNAL` for a process that was started, with the signal that ends
it at once, `-PID` when it has ended, `=PATH` for a directory that was made. At the end of the input, which
comes however the run ends, kill -9 included, whatever is left is ended and removed.
"""

import os
import shutil
import signal
import sys
import time

END_SECONDS = 10  # for a process to end after its signal; then it is killed


def main() -> None:
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
        send(pid, number)
    deadline = time.monotonic() + END_SECONDS
    while any(send(pid, 0) for pid in processes):
        if time.monotonic() > deadline:
            for pid in processes:
                send(pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def send(pid: int, number: int) -> bool:
    """Whether there was somebody to get it."""
    try:
        os.killpg(pid, number)  # with its children: each process was started as the leader of a group
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
