"""Processes whose output is kept, and free ports."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo.processes import apart, dismiss_guardian, guard, temporary_directory, unguard

__all__ = ["ROOT", "Process", "dismiss_guardian", "free_port", "temporary_directory"]

ROOT = Path(__file__).resolve().parents[2]

_given_ports: dict[int, socket.socket] = {}


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on, outside the range of outgoing connections.

    No other process of a test run gets it, as long as this one lives: a name says whose it is.
    """
    while True:
        port = random.randint(20000, 32000)
        name = socket.socket(socket.AF_UNIX)
        try:
            if sys.platform == "linux":
                name.bind(f"\0gateway-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        if _given_ports.setdefault(port, name) is name:
            return port
        name.close()


class Process:
    """A child process in a session of its own (a Ctrl-C reaches only pytest), its output in a file."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path = ROOT,
        user: str | None = None,
        last_signal: int = signal.SIGKILL,
    ) -> None:
        self.command = list(command)
        self._log = tempfile.TemporaryFile(prefix="gateway-test-output-")  # noqa: SIM115  # open as long as the process
        self._last_output = ""
        self._popen = subprocess.Popen(
            self.command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            **apart(user),
        )
        self.pid = self._popen.pid
        guard(self.pid, last_signal)

    def __del__(self) -> None:
        self._log.close()  # of a process that ended by itself, and that nobody asked to end

    def output(self) -> str:
        """All that the process has written to standard output and standard error so far."""
        if self._log.closed:
            return self._last_output
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def running(self) -> bool:
        """Whether the process is still there."""
        return self._popen.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        if self.running():
            self._popen.send_signal(number)

    def wait(self, seconds: float) -> int:
        """The exit status (negative: the signal that ended it); subprocess.TimeoutExpired after `seconds`."""
        status = self._popen.wait(seconds)
        if not self._log.closed:
            unguard(self.pid)
            self._last_output = self.output()
            self._log.close()
        return status

    def stop(self, seconds: float = 40.0, number: int = signal.SIGTERM) -> int:
        """Ask the process to end and return its exit status; it is killed if it does not end in time."""
        self.send_signal(number)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.command} did not end within {seconds} s of signal {number}:\n{self.output()}"
            ) from None

    def kill(self) -> int:
        """SIGKILL for the process and its children, and the exit status of the process."""
        if self.running():
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait(10)
