"""What runs during a benchmark: a PostgreSQL, a stub LLM server, the server that is measured, and the load."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import psutil

from tests.support import postgres
from tests.support.card_qna import build_card_qna
from tests.support.gateway import ALLOWED_ORIGIN, environment
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import ROOT, Process, free_port

START_SECONDS = 30.0
Say = Callable[[str], None]

# The tests' server forgets what it stored when it crashes. This one is as PostgreSQL comes, and counts statements.
POSTGRES_OPTIONS = {
    "fsync": "on",
    "autovacuum": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "shared_preload_libraries": "pg_stat_statements",
}


def start_postgres() -> PostgresServer:
    postgres._OPTIONS |= POSTGRES_OPTIONS
    server = PostgresServer(on_disk=True)
    server.admin.execute("CREATE EXTENSION pg_stat_statements")
    return server


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, those that have ended included, from /proc."""
    times = [process.cpu_times() for process in _tree(pid)]
    return float(sum(time.user + time.system + time.children_user + time.children_system for time in times))


def memory_bytes(pid: int) -> int:
    """What a process and its descendants hold, shared pages divided among those that share them (PSS)."""
    return sum(int(process.memory_full_info().pss) for process in _tree(pid))


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


class Databases:
    """A ChatDB as the gateway's migrations make it, with personas, and a card_qna_db."""

    def __init__(self, server: PostgresServer) -> None:
        self.chatdb = server.database(prefix="chatdb")
        self.card_qna_db = build_card_qna(server.database(prefix="card_qna"))
        self._admin = server.admin
        self._transactions = 0
        seed = Process([sys.executable, "seed_personas.py"], environment=environment({"DATABASE_URL": self.chatdb.url}))
        assert seed.wait(START_SECONDS) == 0, seed.output()

    def reset_counters(self) -> None:
        self._admin.fetch("SELECT pg_stat_statements_reset()")
        self._transactions = self._count_transactions()

    def _count_transactions(self) -> int:
        """A transaction that writes takes a number, one that only reads does not."""
        return int(self._admin.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"))

    def counters(self) -> tuple[int, int]:
        """Statements, and commits of transactions that wrote, since the counters were reset."""
        databases: tuple[Database, ...] = (self.chatdb, self.card_qna_db)
        statements = self._admin.value(
            "SELECT COALESCE(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid"
            " WHERE d.datname = ANY ($1::text[])",
            [database.name for database in databases],
        )
        return int(statements), self._count_transactions() - self._transactions

    def drop(self) -> None:
        self.chatdb.drop()
        self.card_qna_db.drop()


class Stub:
    """The LLM server and the MCP server, which asks these gateways back."""

    def __init__(self, gateways: tuple[int, ...] = ()) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "benchmarks.stub", *map(str, (self.port, *gateways))]
        self._process = Process(command, environment=environment({}))
        wait_for_200(self.port, "/llm/mcp-router/dispatch", START_SECONDS, method="POST")
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()


class Server:
    """A server that can be measured: `command` starts it on `port` with `settings` as its environment."""

    def __init__(self, name: str, command: list[str], port: int, settings: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self._command = command
        self._settings = dict(settings)
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Seconds from exec to the first 200."""
        started_at = time.perf_counter()
        self._process = Process(self._command, environment=environment(self._settings))
        try:
            wait_for_200(self.port, "/api/health", START_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{self.name} does not answer:\n{self._process.output()}") from None
        return time.perf_counter() - started_at

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def memory_bytes(self) -> int:
        return memory_bytes(self.pid)

    def output(self) -> str:
        return self._process.output() if self._process else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stop(60)


def settings_for(databases: Databases, stub_port: int) -> dict[str, str]:
    return {
        "FRONTEND_HOST": ALLOWED_ORIGIN,
        "LLMSERVER_URL": f"http://127.0.0.1:{stub_port}",
        "MCP_SERVER_URL": f"http://127.0.0.1:{stub_port}",
        "DATABASE_URL": databases.chatdb.url,
        "FAQ_DATABASE_URL": databases.card_qna_db.url,
        "ENVIRONMENT": "production",
    }


def gateway(databases: Databases, stub_port: int, port: int | None = None, **more: str) -> Server:
    port = port or free_port()
    settings = settings_for(databases, stub_port) | {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PROMPTS_PER_MINUTE": "1000000",
        "MAX_SESSIONS": "20000",
        **more,
    }
    return Server("gateway", [sys.executable, "gateway.py"], port, settings)


def peer(databases: Databases, stub_port: int) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.peer.app:app", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    return Server("peer", command, port, settings_for(databases, stub_port))


def wait_for_200(port: int, path: str, seconds: float, method: str = "GET") -> None:
    """Raises TimeoutError."""
    request = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(request)
                if connection.recv(4096).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.002)
    raise TimeoutError


class Load:
    """A load generator; it ends with this process, whatever happens."""

    def __init__(self, module: str = "benchmarks.load") -> None:
        command = [sys.executable, "-m", module]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment({}), bufsize=0
        )
        self.pid = self._process.pid

    def do(self, what: str, within: float = 120.0, **arguments: Any) -> dict[str, float]:
        """Has a command of the module done; TimeoutError after `within` seconds more than it was to take."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        longest = within + float(arguments.get("seconds", 0))
        if not select.select([self._process.stdout], [], [], longest)[0]:
            raise TimeoutError(f"{what} {arguments} took longer than {longest:.0f} s")
        line = self._process.stdout.readline()
        assert line, f"the load generator has ended during {what} {arguments}"
        figures: dict[str, float] = json.loads(line)
        return figures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def postgres_pid(server: PostgresServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])
