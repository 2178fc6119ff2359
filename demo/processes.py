"""The care of processes and directories for whoever starts some, the tests and benchmarks too: none outlives its run.

A guardian (demo/guardian.py) is told of each, and clears up however the run ends, kill -9 included.
"""

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_GUARDIAN = Path(__file__).with_name("guardian.py")
_guardian: "subprocess.Popen[str] | None" = None


def _tell(line: str) -> None:
    global _guardian  # noqa: PLW0603  # one for the run, started when there is something to be told
    if _guardian is None:
        command = [sys.executable, "-I", str(_GUARDIAN)]
        _guardian = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    assert _guardian.stdin is not None
    _guardian.stdin.write(line + "\n")
    _guardian.stdin.flush()


def guard(pid: int, ending: int) -> None:
    """A process was started, as the leader of a group; the signal ends it at once."""
    _tell(f"+{pid} {int(ending)}")


def unguard(pid: int) -> None:
    """The process has ended."""
    _tell(f"-{pid}")


def temporary_directory(prefix: str, parent: Path | None = None) -> Path:
    """A new directory that is removed when the run ends, in whatever way it ends."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _tell(f"={path}")
    return path


def dismiss_guardian() -> None:
    """Lets go what the run has left, if anything; called once, at the end."""
    global _guardian  # noqa: PLW0603  # as above
    if _guardian is not None:
        assert _guardian.stdin is not None
        _guardian.stdin.close()
        _guardian.wait()
        _guardian = None


def apart(user: str | None = None) -> dict[str, Any]:
    """For Popen: in a session of its own, so that a Ctrl-C in the terminal reaches only us; as this user."""
    if user is None:
        return {"start_new_session": True}
    return {"start_new_session": True, "user": user, "group": group_of(user), "extra_groups": []}


def group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def user_for_servers() -> str | None:
    """Servers that refuse to run as root, as PostgreSQL does, run as `nobody` then; else as whoever starts them."""
    return "nobody" if os.geteuid() == 0 else None
