"""Risky settings, named at start and by `python gateway.py --check`; what readiness asks and shows."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import asyncpg

from common.errors import DatabaseError
from database.pool import Database, describe
from settings import Settings

# A load balancer drops a connection that has been idle for so long, unless told otherwise.
BALANCER_IDLE_SECONDS = 60
READINESS_SECONDS = 2.0
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
    """A sentence for each risky combination of settings, with the variables to change.

    Asks the databases as well, whether they answer and have enough connections.
    """
    wanted = [
        ("DATABASE_URL", settings.database_url, settings.db_pool_size),
        ("FAQ_DATABASE_URL", settings.faq_database_url, settings.faq_db_pool_size),
        ("LISTEN_DATABASE_URL", settings.listen_database_url or settings.database_url, 1),
    ]
    warnings, limits, sums = list(_check_settings(settings)), dict[str, int](), Counter[str]()
    for name, dsn, connections in wanted:
        server = urlsplit(dsn).netloc.rpartition("@")[2] or urlsplit(dsn).query
        sums[server] += connections * settings.web_concurrency
        try:
            limits[server] = await _max_connections(dsn, settings.db_timeout)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if name != "LISTEN_DATABASE_URL" or settings.listen_database_url:
                warnings.append(f"{name} cannot be used: {describe(error)}")
    for server, limit in limits.items():
        if sums[server] > limit:
            names = " and ".join(name for name, dsn, _ in wanted[:2] if server in dsn)
            warnings.append(f"{names}: up to {sums[server]} connections are wanted, the server has {limit}")
    return warnings


async def _max_connections(dsn: str, timeout: float) -> int:
    async with asyncio.timeout(timeout):
        connection = await asyncpg.connect(dsn)
        try:
            return int(await connection.fetchval("SHOW max_connections"))
        finally:
            connection.terminate()


async def ask(database: Database, statement: str) -> asyncpg.Record | None:
    """What the database says within READINESS_SECONDS, None if nothing."""
    try:
        async with asyncio.timeout(READINESS_SECONDS):
            return await database.fetchrow(statement)
    except (DatabaseError, TimeoutError):
        return None
