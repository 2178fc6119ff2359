"""A database that is not ready is waited for, whatever it says; what does not pass by itself is one sentence."""

import json
import re
import time
from typing import Any

import asyncpg
import pytest

from tests.support.background import background
from tests.support.gateway import Gateway
from tests.support.network import RefusedPort
from tests.support.postgres import Database, PostgresServer
from tests.support.waiting import eventually
from tests.support.world import NewWorld, World

MIGRATION_LOCK = 0x6361_7264  # as in database/migrations.py


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


def own_role(database: Database, name: str, *defaults: str) -> str:
    """The address of a database of its own role, which has these defaults."""
    database.server.admin.execute(f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN")
    database.server.admin.execute(f'ALTER DATABASE "{database.name}" OWNER TO {name}')
    database.execute(f"ALTER SCHEMA public OWNER TO {name}")
    for default in defaults:
        database.server.admin.execute(f"ALTER ROLE {name} SET {default}")
    return database.url.replace("postgres:not-checked", name)


def refused(settings: dict[str, str | None]) -> list[dict[str, Any]]:
    """The log of a gateway that must not start, without a traceback and with exit status 3."""
    with Gateway(settings | {"ENVIRONMENT": "production"}).launch() as gateway:
        status = gateway.wait()
        output = gateway.output()
    assert status == 3, output
    assert "Traceback" not in output
    return [json.loads(line) for line in output.splitlines()]


def sentences(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines if line["event"].startswith("ChatDB cannot be used:")]


def test_another_instances_lock_is_waited_for_longer_than_the_roles_own_time_limits(
    world: World, either: PostgresServer
) -> None:
    chatdb = either.database()
    url = own_role(chatdb, "impatient", "statement_timeout = '200ms'", "lock_timeout = '200ms'")
    holder = background.run(asyncpg.connect(chatdb.url))
    background.run(holder.execute(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
    with Gateway(world.settings | {"DATABASE_URL": url}).launch() as gateway:
        eventually(lambda: "another instance brings its schema up to date" in gateway.output())
        time.sleep(0.5)  # longer than the limits
        background.run(holder.close())
        gateway.wait_until_healthy()
        assert gateway.http.get("/api/health/ready").status_code == 200


def test_a_standby_is_waited_for_until_its_promotion_and_so_is_a_database_that_is_not_there_yet(
    world: World, postgres: PostgresServer
) -> None:
    """Read-only stands for a hot standby: it answers, and cannot be written to."""
    url = world.chatdb.url.replace(world.chatdb.name, "comes_later")
    with Gateway(world.settings | {"DATABASE_URL": url}).launch() as gateway:
        eventually(lambda: "InvalidCatalogNameError" in gateway.output(), what="it waits for the database")
        later = postgres.database()
        postgres.admin.execute(f'ALTER DATABASE "{later.name}" SET default_transaction_read_only = on')
        postgres.admin.execute(f'ALTER DATABASE "{later.name}" RENAME TO comes_later')
        eventually(lambda: "ReadOnlySQLTransactionError" in gateway.output(), what="it waits for the promotion")
        postgres.admin.execute("ALTER DATABASE comes_later RESET default_transaction_read_only")
        postgres.admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'comes_later'")
        gateway.wait_until_healthy()
    Database(postgres, "comes_later").drop()


def test_the_end_of_the_waiting_is_one_sentence_and_status_3(world: World) -> None:
    """Meanwhile there is a line every five seconds, and none for every try."""
    with RefusedPort() as port:
        url = f"postgresql://gateway:s3cret@127.0.0.1:{port.port}/chatdb"
        lines = refused(world.settings | {"DATABASE_URL": url, "START_SECONDS": "1.5"})
    (sentence,) = sentences(lines)
    assert re.search("ConnectionRefusedError", sentence)
    assert [line["event"] for line in lines].count("ChatDB cannot be used yet") == 1
    assert "s3cret" not in str(lines)


def test_a_wrong_password_or_role_is_not_waited_for(world: World) -> None:
    url = world.chatdb.url.replace("postgres:", "nobody_of_that_name:")
    started = time.monotonic()
    (sentence,) = sentences(refused(world.settings | {"DATABASE_URL": url}))
    assert "nobody_of_that_name" in sentence
    assert time.monotonic() - started < 25, "it has not waited"


def test_several_workers_that_cannot_start_end_with_status_3(world: World) -> None:
    settings = world.settings | {"DATABASE_URL": world.chatdb.url.replace("postgres:", "nobody:")}
    with Gateway(settings | {"WEB_CONCURRENCY": "2"}, start="python").launch() as gateway:
        assert gateway.wait() == 3
        assert "Traceback" not in gateway.output()
