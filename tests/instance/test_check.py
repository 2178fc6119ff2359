"""`python gateway.py --check`: what will hurt, said before it does."""

import asyncio
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.background import background
from tests.support.gateway import environment
from tests.support.network import RefusedPort
from tests.support.old_chatdb import build_old_chatdb
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import ROOT
from tests.support.waiting import eventually
from tests.support.world import NewGateway, NewWorld, World

NOTHING = "Nothing to warn of."


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


def check(world: World, **settings: str | None) -> tuple[int, list[str]]:
    """The exit status, and the lines on standard output (of 2: on standard error, where nothing else may stand)."""
    values = world.settings | {"FRONTEND_HOST": "https://chat.example", "ENVIRONMENT": "production"} | settings
    command = [sys.executable, "gateway.py", "--check"]
    ended = subprocess.run(
        command, env=environment(values), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    said, other = (ended.stderr, ended.stdout) if ended.returncode == 2 else (ended.stdout, ended.stderr)
    assert not other, other
    return ended.returncode, said.splitlines()


def test_nothing_to_say(world: World) -> None:
    assert check(world) == (0, [NOTHING])


DANGEROUS: dict[str, str | None] = {
    "PING_SECONDS": "60",
    "MAX_UPSTREAM_CONNECTIONS": "100",
    "MAX_SESSIONS": "5000",
    "DRAIN_SECONDS": "45",
    "STOP_GRACE_SECONDS": "40",
    "FRONTEND_HOST": "https://chat.example,http://chat.example",
}
SENTENCES = (
    r"PING_SECONDS is 60\b.*\b60 s",
    r"MAX_UPSTREAM_CONNECTIONS \(100\).*MAX_SESSIONS \(5000\)",
    r"DRAIN_SECONDS \(45\).*STOP_GRACE_SECONDS \(40\)",
    r"FRONTEND_HOST\b.*http://chat\.example\b.*https",
)


def test_each_dangerous_combination_is_one_sentence_that_names_its_settings(world: World) -> None:
    """With the values, so that whoever reads it knows what to change; all of them at once; exit status 1."""
    status, lines = check(world, **DANGEROUS)
    assert status == 1
    assert len(lines) == len(SENTENCES), lines
    for sentence in SENTENCES:
        assert len([line for line in lines if re.search(sentence, line)]) == 1, sentence


def test_more_connections_than_the_server_has_are_named(world: World) -> None:
    """A pool for each worker, one more to listen; and the pool of card_qna_db."""
    status, lines = check(world, WEB_CONCURRENCY="40")
    assert (status, len(lines)) == (1, 1)
    assert re.search(r"^DATABASE_URL\b.*\b440\b.*\b300\b", lines[0]), lines
    status, lines = check(world, FAQ_DB_POOL_SIZE="301")
    assert (status, len(lines)) == (1, 1)
    assert re.search(r"FAQ_DATABASE_URL\b.*\b3\d\d\b.*\b300\b", lines[0]), lines


def test_two_databases_on_one_server_share_its_connections(world: World) -> None:
    """Each fits for itself, both together do not."""
    status, lines = check(world, DB_POOL_SIZE="180", FAQ_DB_POOL_SIZE="180")
    assert status == 1
    assert re.search(r"\b361\b.*\b300\b", " ".join(lines)), lines


def test_databases_that_cannot_be_used_are_named_without_their_passwords(world: World) -> None:
    with RefusedPort() as refused:
        dead = f"postgresql://gateway:s3cret@127.0.0.1:{refused.port}"
        status, lines = check(world, DATABASE_URL=f"{dead}/chatdb", FAQ_DATABASE_URL=f"{dead}/card_qna_db")
        listen = check(world, LISTEN_DATABASE_URL=f"{dead}/chatdb")
    assert (status, len(lines)) == (1, 2)
    assert re.match(r"DATABASE_URL cannot be used: .*Refused", lines[0])
    assert re.match(r"FAQ_DATABASE_URL cannot be used: .*Refused", lines[1])
    assert "s3cret" not in " ".join(lines)
    assert listen[0] == 1, "LISTEN_DATABASE_URL is asked as well"
    assert re.match(r"LISTEN_DATABASE_URL cannot be used: .*Refused", listen[1][0])


def only_line(world: World, **settings: str | None) -> str:
    status, lines = check(world, **settings)
    assert (status, len(lines)) == (1, 1), lines
    return lines[0]


def test_servers_that_cannot_be_reached_are_named_tls_included(world: World, silent_tls: str) -> None:
    with RefusedPort() as refused:
        for name in ("LLMSERVER_URL", "MCP_SERVER_URL"):
            line = only_line(world, **{name: refused.url.replace("//", "//user:s3cret@")})
            assert re.match(rf"{name} cannot be reached: .*Refused", line)
            assert "s3cret" not in line
    assert re.match("LLMSERVER_URL cannot be reached: .*certificate", only_line(world, LLMSERVER_URL=silent_tls))
    line = only_line(world, MCP_SERVER_URL=world.mcp.url.replace("http:", "https:"))
    assert re.match("MCP_SERVER_URL cannot be reached: .*(SSL|TLS)", line)


@pytest.fixture
def silent_tls(tmp_path: Path) -> Iterator[str]:
    """A server whose certificate nobody has signed."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = background.run(asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context))
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    background.call(server.close)


@pytest.mark.parametrize("encoding", ["EUC_KR", "SQL_ASCII"])
def test_a_database_that_is_not_in_utf_8_is_named(world: World, postgres: PostgresServer, encoding: str) -> None:
    name = f"in_{encoding.lower()}"
    postgres.admin.execute(f"CREATE DATABASE {name} ENCODING {encoding} LOCALE 'C' TEMPLATE template0")
    database = Database(postgres, name)
    line = only_line(world, DATABASE_URL=database.url)
    assert re.match(rf"DATABASE_URL .*\b{encoding}\b.*UTF8", line)


def test_a_clock_that_differs_is_named(world: World, postgres: PostgresServer) -> None:
    """For this database `clock_timestamp` is a function of its own, an hour ahead."""
    database = postgres.database()
    database.execute(
        "CREATE SCHEMA ahead; CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
        " AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$"
    )
    path = "ahead, pg_catalog, public"
    postgres.admin.execute(f'ALTER DATABASE "{database.name}" SET search_path = {path}')
    assert re.match(r"DATABASE_URL .*clock.*\b36\d\d\.\d s", only_line(world, DATABASE_URL=database.url))


def test_migrations_that_wait_for_the_next_start_are_named(world: World, postgres: PostgresServer) -> None:
    """Of an empty ChatDB there is nothing to say: there is no backup to be taken."""
    old = build_old_chatdb(postgres.database())
    line = only_line(world, DATABASE_URL=old.url)
    assert re.match(r"DATABASE_URL .*\b0001_tables\b.*\b0005_keys\b.*backup", line)


def test_help_needs_no_settings() -> None:
    command = [sys.executable, "gateway.py", "--help"]
    ended = subprocess.run(command, env=environment({}), cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "--check" in ended.stdout
    assert not ended.stderr


def test_settings_that_are_missing_or_wrong_are_another_status(world: World) -> None:
    """Exit status 2: such a gateway does not start either. Any origin is wrong."""
    status, lines = check(world, FRONTEND_HOST="*", LLMSERVER_URL=None, PING_SECONDS="soon")
    assert status == 2
    assert [line.split()[0] for line in lines] == ["FRONTEND_HOST", "LLMSERVER_URL", "PING_SECONDS"]


def test_plain_http_is_fine_in_development(world: World) -> None:
    assert check(world, FRONTEND_HOST="http://127.0.0.1:4173", ENVIRONMENT="development") == (0, [NOTHING])


def test_a_gateway_says_the_same_at_start_and_goes_on(world: World, new_gateway: NewGateway) -> None:
    gateway = new_gateway(world, start="python", PING_SECONDS="90", DRAIN_SECONDS="60")
    for name in ("PING_SECONDS is 90", "DRAIN_SECONDS (60)"):
        eventually(lambda name=name: name in gateway.output(), what=name)  # type: ignore[misc]
    assert gateway.http.get("/api/health/ready").status_code == 200
