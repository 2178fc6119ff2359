"""A connection to PostgreSQL: to the right server, and whatever the administrators' defaults are."""

import os
import socket
from asyncio.staggered import staggered_race
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import asyncpg

from common.logs import log

# What the statements rely on, whatever the role, the database and the server have as their defaults
RELIED_ON = {
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",  # each statement has a time limit of ours
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
# Middleboxes forget connections that are idle for some minutes, and tell neither side.
IDLE_SECONDS, PROBE_SECONDS, PROBES = 30, 10, 3
KEPT_ALIVE = {
    "tcp_keepalives_idle": str(IDLE_SECONDS),
    "tcp_keepalives_interval": str(PROBE_SECONDS),
    "tcp_keepalives_count": str(PROBES),
}
# For a transaction, where a pooler keeps connections from having settings of their own, and the defaults are harmful
NO_TIME_LIMITS = "".join(f"SET LOCAL {name} = 0;" for name in RELIED_ON if name.endswith("_timeout"))
_STATE = """
SELECT pg_backend_pid(), current_setting('default_transaction_isolation') <> 'read committed' OR EXISTS (
    SELECT FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout') AND setting::int BETWEEN 1 AND 9999)
"""
# A server that does not answer, not even with a refusal, must not keep the next one from being asked.
NEXT_SERVER_SECONDS = 0.25
_poolers: set[str] = set()


class Connection(asyncpg.Connection):
    """`needs_transaction` for each statement, where what it relies on is not the connection's.

    Where it is not `is_direct`, a pooler gives it a number of its own, of which the server knows nothing.
    """

    needs_transaction, is_direct = False, True

    def __init__(self, protocol: Any, transport: Any, *more: Any) -> None:
        super().__init__(protocol, transport, *more)
        ours = transport.get_extra_info("socket")
        if ours.family != getattr(socket, "AF_UNIX", None):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (("IDLE", IDLE_SECONDS), ("INTVL", PROBE_SECONDS), ("CNT", PROBES)):
                if option := getattr(socket, f"TCP_KEEP{name}", None):
                    ours.setsockopt(socket.IPPROTO_TCP, option, value)


async def connect(dsn: Any = None, **options: Any) -> Any:
    """Connects to the first server of the DSN that is what it asks for. Raises asyncpg's own errors and OSError."""
    _leave_foreign_home()
    query = parse_qs(dsn.partition("?")[2])
    hosts, ports = (query[name][0].split(",") for name in ("host", "port"))
    if len(hosts) == 1 or query["target_session_attrs"] == ["prefer-standby"]:
        return await _connect(dsn, **options)
    attempts = [partial(_connect, dsn, host=h, port=p, **options) for h, p in zip(hosts, ports, strict=True)]
    connection, _, errors = await staggered_race(attempts, NEXT_SERVER_SECONDS)
    if connection is None:
        raise next(error for error in reversed(errors) if error is not None)
    return connection


async def _connect(dsn: str, *, host: str | None = None, port: str | None = None, **options: Any) -> Any:
    options |= {"connection_class": Connection} | ({} if host is None else {"host": host.strip("[]"), "port": port})
    connection: Any = None
    if dsn not in _poolers:
        try:
            connection = await asyncpg.connect(dsn, server_settings=RELIED_ON | KEPT_ALIVE, **options)
        except asyncpg.ProtocolViolationError:  # of a pooler, which does not take them
            _poolers.add(dsn)
    connection = connection or await asyncpg.connect(dsn, **options)
    try:
        pid, connection.needs_transaction = await connection.fetchrow(_STATE)
        connection.is_direct = pid == connection.get_server_pid()
    except BaseException:
        connection.terminate()
        raise
    return connection


@cache
def _leave_foreign_home() -> None:
    """asyncpg looks for certificates in HOME, and fails where it may not look."""
    for name in ("root.crt", "root.crl", "postgresql.key", "postgresql.crt"):
        try:
            (Path.home() / ".postgresql" / name).open("rb").close()
        except PermissionError:
            log.warning("HOME may not be read; no certificates are looked for there", home=os.environ.get("HOME"))
            os.environ["HOME"] = os.devnull
        except (OSError, RuntimeError):
            pass  # there is none
