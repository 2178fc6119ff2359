"""The schema of ChatDB, brought up to date."""

import asyncio
import math
import time
from typing import Any

import asyncpg

from common.logs import log
from database.failures import FAILED, Unusable, describe, may_pass
from database.pool import Database
from database.statements import SQL, Statements

MIGRATIONS = sorted((SQL / "chatdb" / "migrations").glob("*.sql"))
MIGRATION_LOCK = 0x6361_7264  # any number that no other program locks in ChatDB
MIGRATION_TIMEOUT = 600.0  # seconds; taking over a large database rewrites its tables
# PostgreSQL has it since version 17.
_NO_TRANSACTION_TIMEOUT = "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'"
RETRY_SECONDS, SAY_SECONDS = 0.5, 5.0


class CannotStart(Exception):
    """Says in a sentence what was missing."""


class _Busy(Exception):
    """Another instance brings the schema up to date."""


async def migrate(chatdb: Database, patience: float = 0.0) -> None:
    """Applies the migrations that are missing, in order, all or nothing, one instance at a time.

    Waits up to `patience` seconds for a database that is not ready, and MIGRATION_TIMEOUT for an instance that is at
    it. Raises CannotStart.
    """
    started, said_at = time.monotonic(), -math.inf
    while True:
        try:
            async with chatdb.transaction() as connection:
                return await _apply(connection, chatdb.statements)
        except (_Busy, *FAILED) as error:
            is_busy = isinstance(error, _Busy)
            why = "another instance brings its schema up to date" if is_busy else describe(error)
            now = time.monotonic()
            if not (is_busy or may_pass(error)) or now - started > (MIGRATION_TIMEOUT if is_busy else patience):
                raise CannotStart(f"ChatDB cannot be used: {why}") from error
        if now - said_at >= SAY_SECONDS:
            log.warning("ChatDB cannot be used yet", error=why)
            said_at = now
        await asyncio.sleep(RETRY_SECONDS)


async def list_outstanding(connection: Any, statements: Statements) -> list[str]:
    """The names of the migrations that are still to be applied. Raises Unusable if they may not be read."""
    if statements.schema is None:
        raise Unusable("the role may use no schema of its search_path")
    table = await connection.fetchval("SELECT to_regclass($1)", f'{statements.schema}."SchemaMigration"')
    await require_rights(connection, statements, is_outstanding=False)
    applied = [row["name"] for row in await connection.fetch(statements["list_migrations"])] if table else []
    return [path.stem for path in MIGRATIONS if path.stem not in applied]


async def require_rights(connection: Any, statements: Statements, *, is_outstanding: bool) -> None:
    """Raises Unusable with what gives the rights that are missing, to use the tables or, besides, to change them."""
    missing = await connection.fetch(statements["list_missing_rights"], statements.schema, is_outstanding)
    if missing:
        raise Unusable(f"a right is missing: {'; '.join(row['remedy'] for row in missing)}")


async def _apply(connection: Any, statements: Statements) -> None:
    if not await list_outstanding(connection, statements):
        return
    await require_rights(connection, statements, is_outstanding=True)
    if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", MIGRATION_LOCK):
        raise _Busy
    await connection.execute(f"SET LOCAL search_path = {statements.schema}; SET LOCAL standard_conforming_strings = on")
    await connection.execute(_NO_TRANSACTION_TIMEOUT)
    await connection.execute(
        'CREATE TABLE IF NOT EXISTS "SchemaMigration" '
        "(name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    connection.add_log_listener(_log_progress)
    try:
        for name in await list_outstanding(connection, statements):
            log.info("migration", name=name)
            script = (SQL / "chatdb" / "migrations" / f"{name}.sql").read_text("utf-8")
            await connection.execute(script, timeout=MIGRATION_TIMEOUT)
            await connection.execute('INSERT INTO "SchemaMigration" (name) VALUES ($1)', name)
    finally:
        connection.remove_log_listener(_log_progress)


def _log_progress(connection: Any, message: asyncpg.PostgresLogMessage) -> None:
    if message.severity_en == "INFO":
        log.info("migration goes on", step=message.message)
