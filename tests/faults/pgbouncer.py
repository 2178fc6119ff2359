"""PgBouncer in transaction mode, in front of a test's PostgreSQL."""

import os
import shutil
import signal
import socket
from typing import Self

import pytest

from demo.processes import user_for_servers
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import Process, free_port, temporary_directory
from tests.support.waiting import eventually

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
POOL = 4  # connections to each database, fewer than two instances have to PgBouncer

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server_port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 200
"""


def need_pgbouncer(server: PostgresServer) -> "PgBouncer":
    """One in front of a server. Skips the test where it is not installed; CI has it."""
    if PROGRAM is None:
        where = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        where("pgbouncer is not installed (Debian and Ubuntu: apt install pgbouncer)")
    return PgBouncer(server)


class PgBouncer:
    """A PgBouncer on a free port; use it as a context manager."""

    def __init__(self, server: PostgresServer) -> None:
        assert PROGRAM is not None
        self.port = free_port()
        directory = temporary_directory("gateway-pgbouncer-")
        directory.chmod(0o755)
        configuration = directory / "pgbouncer.ini"
        configuration.write_text(_CONFIGURATION.format(server_port=server.port, port=self.port, pool=POOL))
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        self._process = Process(
            [PROGRAM, str(configuration)], environment=environment, directory=directory, user=user_for_servers()
        )
        eventually(self._listening, what="PgBouncer takes connections")

    def _listening(self) -> bool:
        assert self._process.running(), self._process.output()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, database: Database) -> str:
        """A database's address through it."""
        return database.url_at(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop(10, signal.SIGTERM)
