"""A private PostgreSQL for the test run, and databases in it that are made from templates."""

import itertools
import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from demo.postgres import ENVIRONMENT, Place, copy_programs, installation, may_run
from demo.processes import user_for_servers
from tests.support.background import background
from tests.support.processes import Process, free_port, temporary_directory
from tests.support.waiting import eventually

_MEMORY_BYTES = 6 << 30  # several workers of a test run take about 3 GiB together
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "jit": "off",
    "autovacuum": "off",
    "timezone": "Asia/Seoul",  # not UTC, so that a time without its offset is noticed
}


def _memory() -> Path | None:
    """A file system in memory with room for the databases of a test run: a new one takes a seventh of the CPU there."""
    path = Path("/dev/shm")
    return path if path.is_dir() and shutil.disk_usage(path).free >= _MEMORY_BYTES else None


class Database:
    """One database, with calls that block: they run in the background loop and work in any test."""

    def __init__(self, server: "PostgresServer", name: str) -> None:
        self.server = server
        self.name = name

    @property
    def url(self) -> str:
        """Its address over TCP."""
        return self.url_at(self.server.port)

    def url_at(self, port: int) -> str:
        """Its address through another port of 127.0.0.1, a proxy's for example."""
        return f"postgresql://postgres:not-checked@127.0.0.1:{port}/{self.name}"

    @property
    def socket_url(self) -> str:
        """Its address over a unix socket of the usual name, `?host=/dir`."""
        return f"postgresql://postgres@/{self.name}?host={self.server.socket_directory}"

    def fetch(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries; JSON values are decoded."""
        return background.run(self._fetch(query, arguments))

    def fetchrow(self, query: str, *arguments: Any) -> dict[str, Any]:
        """The only row of a query."""
        rows = self.fetch(query, *arguments)
        assert len(rows) == 1, f"{len(rows)} rows: {query} {arguments}"
        return rows[0]

    def value(self, query: str, *arguments: Any) -> Any:
        """The first value of the only row of a query."""
        return next(iter(self.fetchrow(query, *arguments).values()))

    def execute(self, script: str) -> None:
        """Run a script of any number of statements, without arguments."""
        background.run(self._execute(script))

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await asyncpg.connect(self.url)
        for kind in ("json", "jsonb"):
            await connection.set_type_codec(kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        return connection

    async def _fetch(self, query: str, arguments: Sequence[Any]) -> list[dict[str, Any]]:
        connection = await self._connect()
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def _execute(self, script: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    def schema(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that stands in the schema `public`: for comparing before and after."""
        return {
            "columns": self.fetch(
                "SELECT table_name, column_name, ordinal_position, column_default, is_nullable, data_type,"
                " character_maximum_length FROM information_schema.columns"
                " WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
            ),
            "constraints": self.fetch(
                "SELECT conrelid::regclass::text AS on_table, conname, pg_get_constraintdef(oid) AS definition"
                " FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
            ),
            "indexes": self.fetch("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"),
            "routines": self.fetch(
                "SELECT p.oid::regprocedure::text AS routine FROM pg_proc p"
                " WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
            ),
            "triggers": self.fetch(
                "SELECT tgrelid::regclass::text AS on_table, tgname FROM pg_trigger"
                " WHERE NOT tgisinternal ORDER BY 1, 2"
            ),
        }

    def drop(self) -> None:
        """Remove the database, whoever is connected to it."""
        self.server.admin.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')


class PostgresServer:
    """A PostgreSQL on a free port and a unix socket, with its data in a directory of its own.

    The data is kept in memory where there is enough of it, unless it has to be `on_disk`.
    `stop` and `start` restart it with its data; `freeze` and `thaw` stop its processes in their tracks;
    `close` removes it.
    """

    def __init__(
        self,
        on_disk: bool = False,
        *,
        programs: Path | None = None,
        standby_of: "PostgresServer | None" = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Of the embedded PostgreSQL's or other `programs`; with more `options`; possibly a streaming standby."""
        self._programs = programs or installation() / "bin"
        self._options = options or {}
        self._primary = standby_of
        self.base = temporary_directory("gateway-pg-")
        self.socket_directory = self.base / "s"
        self.port = free_port()
        self.admin = Database(self, "postgres")
        self._memory = None if on_disk else _memory()
        self._place = self._find_place()
        self.data = self._place.data
        self._numbers = itertools.count(1)
        self._process: Process | None = None
        self._initialise()
        self.start()

    def _find_place(self) -> Place:
        programs, user = self._programs, user_for_servers()
        if user:
            self.base.chmod(0o755)
            if not may_run(user, [programs / "postgres", "--version"]):
                programs = copy_programs(self.base / "copy")
        return Place(programs, temporary_directory("gateway-pg-data-", self._memory), self.socket_directory, user)

    def _initialise(self) -> None:
        for folder in (self.data, self.socket_directory):
            self._place.own(folder)
        command = self._place.initdb_command(self.data, "--no-sync")
        if self._primary is not None:
            source = f"host=127.0.0.1 port={self._primary.port} user=postgres application_name=standby"
            command = [str(self._place.programs / "pg_basebackup"), "-D", str(self.data), "-R", "-X", "stream"]
            command += ["--checkpoint=fast", "--no-sync", "-d", source]
        process = Process(command, environment=ENVIRONMENT, directory=self.base, user=self._place.user)
        assert process.wait(60) == 0, process.output()
        # The socket under the name that `?host=/dir` without a port means.
        usual_name = self.socket_directory / ".s.PGSQL.5432"
        usual_name.symlink_to(self.socket_directory / f".s.PGSQL.{self.port}")

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        command = self._place.server_command(_OPTIONS | dict(self._options) | {"port": str(self.port)})
        self._process = Process(
            command, environment=ENVIRONMENT, directory=self.base, user=self._place.user, last_signal=signal.SIGQUIT
        )
        eventually(self._ready, what="PostgreSQL takes connections")

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.running(), self._process.output()
        try:
            self.admin.fetch("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def stop(self, immediately: bool = False) -> None:
        """Stop the server; its clients are cut off. `immediately` is a crash."""
        if self._process is not None:
            self._process.stop(30, signal.SIGQUIT if immediately else signal.SIGINT)
            self._process = None

    def close(self) -> None:
        """Stop the server and remove its data."""
        self.stop(immediately=True)
        for folder in (self.data, self.base):
            shutil.rmtree(folder, ignore_errors=True)

    def promote(self) -> None:
        """Make a standby the server that can be written to."""
        self.admin.fetch("SELECT pg_promote(wait => false)")

    def freeze(self) -> None:
        """Stop every process of the server in its tracks: connections stay, nothing answers."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the server go on after `freeze`."""
        for pid in self._pids():
            with suppress(ProcessLookupError):  # one that had been told to end meanwhile
                os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        return [self._process.pid, *(int(child.pid) for child in children)]

    def database(self, template: Database | None = None, prefix: str = "db") -> Database:
        """A new database, a copy of `template` or empty."""
        name = f"{prefix}_{next(self._numbers)}"
        source = template.name if template else "template0"
        self.admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY file_copy')
        return Database(self, name)
