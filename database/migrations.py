"""The schema of ChatDB, brought up to date."""

import asyncio
import time
from typing import Any

import asyncpg

from common.logs import log
from database.pool import SQL, Database, describe

MIGRATIONS = sorted((SQL / "chatdb" / "migrations").glob("*.sql"))
MIGRATION_LOCK = 0x6361_7264  # any number that no other program locks in ChatDB
MIGRATION_TIMEOUT = 600.0  # seconds; taking over a large database rewrites its tables
RETRY_SECONDS = 1.0


async def migrate(chatdb: Database, patience: float = 0.0) -> None:
    """Applies the migrations that are missing, in order, all or nothing, one instance at a time.

    Waits up to `patience` seconds for a database that cannot be reached. Raises OSError and asyncpg's own errors.
    """
    until = time.monotonic() + patience
    while True:
        try:
            async with chatdb.transaction() as connection:
                return await _apply(connection)
        except (OSError, asyncpg.CannotConnectNowError) as error:
            if time.monotonic() > until:
                raise
            log.warning("ChatDB cannot be reached yet", error=describe(error))
            await asyncio.sleep(RETRY_SECONDS)


async def _apply(connection: Any) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK, timeout=MIGRATION_TIMEOUT)
    await connection.execute(
        'CREATE TABLE IF NOT EXISTS "SchemaMigration" '
        "(name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    applied = {row["name"] for row in await connection.fetch('SELECT name FROM "SchemaMigration"')}
    for path in MIGRATIONS:
        if path.stem not in applied:
            log.info("migration", name=path.stem)
            await connection.execute(path.read_text("utf-8"), timeout=MIGRATION_TIMEOUT)
            await connection.execute('INSERT INTO "SchemaMigration" (name) VALUES ($1)', path.stem)
