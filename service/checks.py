"""Risky settings, named at start and by `python gateway.py --check`; what readiness asks and shows."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from common.addresses import servers
from common.errors import DatabaseError
from database.connecting import connect
from database.failures import FAILED, describe
from database.migrations import list_outstanding, require_rights
from database.pool import Database
from database.statements import Statements
from settings import Settings

# A load balancer drops a connection that has been idle for so long, unless told otherwise.
BALANCER_IDLE_SECONDS = 60
READINESS_SECONDS = 2.0
MAX_CLOCK_SECONDS = 1.0
_STATE = """
SELECT current_setting('server_encoding'), pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
       extract(epoch FROM clock_timestamp())::float8
"""
# Readiness shows it, but with the LLM server away, or no notices, an instance is as good as any other.
SHOWN_ONLY = frozenset({"llm_server", "notices"})


def _check_settings(settings: Settings) -> Iterator[str]:
    if settings.ping_seconds >= BALANCER_IDLE_SECONDS:
        yield (
            f"PING_SECONDS is {settings.ping_seconds:g}: a load balancer drops connections that are idle for "
            f"{BALANCER_IDLE_SECONDS} s, so set it lower"
        )
    if settings.max_upstream_connections < settings.max_sessions:
        yield (
            f"MAX_UPSTREAM_CONNECTIONS ({settings.max_upstream_connections}) is below MAX_SESSIONS "
            f"({settings.max_sessions}): visitors will wait for each other's answers"
        )
    if settings.drain_seconds >= settings.stop_grace_seconds:
        yield (
            f"DRAIN_SECONDS ({settings.drain_seconds:g}) is not below STOP_GRACE_SECONDS "
            f"({settings.stop_grace_seconds:g}): the container will be killed before its turns are finished"
        )
    for origin in sorted(settings.frontend_host):
        if settings.environment == "production" and origin.startswith("http://"):
            yield f"FRONTEND_HOST has {origin}: in production it should be https"


async def check_all(settings: Settings) -> list[str]:
    """A sentence for each risky combination of settings, and for what is not as it should be at the other end."""
    urls = {"LLMSERVER_URL": settings.llmserver_url, "MCP_SERVER_URL": settings.mcp_server_url}
    databases = [
        ("DATABASE_URL", settings.database_url, "chatdb", settings.db_pool_size),
        ("FAQ_DATABASE_URL", settings.faq_database_url, "card_qna_db", settings.faq_db_pool_size),
        ("LISTEN_DATABASE_URL", settings.listen_database_url or settings.database_url, "", 1),
    ]
    limits, sums, names = dict[str, int](), Counter[str](), dict[str, list[str]]()
    for name, dsn, folder, connections in databases:
        sums[servers(dsn)] += connections * settings.web_concurrency
        names.setdefault(servers(dsn), []).extend([name] if folder else [])
    asked = [_check_database(settings, dsn, folder, limits) for _, dsn, folder, _ in databases]
    asked += [_check_server(settings, url) for url in urls.values()]
    warnings = list(_check_settings(settings))
    for name, found in zip([*(name for name, *_ in databases), *urls], await asyncio.gather(*asked), strict=True):
        if name != "LISTEN_DATABASE_URL" or settings.listen_database_url:
            warnings += [f"{name} {problem}" for problem in found]
    for server, limit in limits.items():
        if sums[server] > limit:
            wanting = " and ".join(names[server])
            warnings.append(f"{wanting}: up to {sums[server]} connections are wanted, the server has {limit}")
    return warnings


async def _check_database(settings: Settings, dsn: str, folder: str, limits: dict[str, int]) -> list[str]:
    """What is wrong with a database; the connections that its server has are put into `limits`."""
    connection: Any = None
    try:
        async with asyncio.timeout(settings.db_timeout):
            connection = await connect(dsn, statement_cache_size=100 if settings.prepared_statements else 0)
            limits[servers(dsn)] = int(await connection.fetchval("SHOW max_connections"))
            return [problem async for problem in _examine(connection, folder)] if folder else []
    except FAILED as error:
        return [f"cannot be used: {describe(error)}"]
    finally:
        if connection is not None:
            connection.terminate()


async def _examine(connection: Any, folder: str) -> AsyncIterator[str]:
    asked_at = time.time()
    encoding, is_read_only, now = await connection.fetchrow(_STATE)
    if encoding != "UTF8":
        yield f"is a database in {encoding} and not in UTF8: what has other characters cannot be stored or read"
    if not asked_at - MAX_CLOCK_SECONDS <= now <= time.time() + MAX_CLOCK_SECONDS:
        yield f"is on a server whose clock differs by {abs(now - asked_at):.1f} s: let both machines be set by NTP"
    if is_read_only:
        yield "is read-only: " + ("nothing can be stored" if folder == "chatdb" else "views are not counted")
    statements = Statements(folder)
    await statements.place(connection)
    if folder != "chatdb":
        for row in await connection.fetch(statements["list_missing_rights"]):
            yield f"lacks a right: {row['remedy']}"
    elif outstanding := await list_outstanding(connection, statements):
        await require_rights(connection, statements, is_outstanding=True)
        if await connection.fetchval("SELECT to_regclass($1)", f'{statements.schema}."Chat"'):
            yield f"has tables of an earlier version; the next start applies {', '.join(outstanding)}: take a backup"


async def _check_server(settings: Settings, url: str) -> list[str]:
    parts = urlsplit(url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    try:
        async with asyncio.timeout(settings.connect_timeout):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or (443 if tls else 80), ssl=tls)
        writer.transport.abort()
        return []
    except OSError as error:
        return [f"cannot be reached: {describe(error)}"]


async def ask(database: Database, statement: str) -> asyncpg.Record | None:
    """What the database says within READINESS_SECONDS, None if nothing."""
    try:
        async with asyncio.timeout(READINESS_SECONDS):
            return await database.fetchrow(statement)
    except (DatabaseError, TimeoutError):
        return None
