"""The schema of ChatDB, brought up to date."""

import asyncio
import time

from common.errors import DatabaseError
from common.logs import log
from database.pool import SQL, Database, describe

MIGRATIONS = sorted((SQL / "chatdb" / "migrations").glob("*.sql"))
MIGRATION_LOCK = 0x6361_7264  # any number that no other program locks in ChatDB
MIGRATION_TIMEOUT = 600.0  # seconds; taking over a large database rewrites its tables
START_SECONDS, RETRY_SECONDS = 30.0, 1.0


async def migrate(chatdb: Database) -> None:
    """Applies the migrations that are missing, in order, all or nothing, one instance at a time.

    Raises asyncpg's own errors, and OSError while the database cannot be reached.
    """
    async with chatdb.transaction() as connection:
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


async def migrate_when_there(chatdb: Database) -> None:
    """Migrates as soon as the database can be reached. Raises DatabaseError if it cannot within START_SECONDS."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return await migrate(chatdb)
        except OSError as error:
            if time.monotonic() > until:
                raise DatabaseError("ChatDB cannot be reached") from error
            log.warning("ChatDB cannot be reached yet", error=describe(error))
            await asyncio.sleep(RETRY_SECONDS)
