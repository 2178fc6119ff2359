"""Every SQL file is one statement that a real, migrated database accepts, and is used."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.background import background
from tests.support.card_qna import IdKind, build_card_qna
from tests.support.gateway import Gateway
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import ROOT
from tests.support.world import NewWorld

SQL = ROOT / "sql"
CHATDB = sorted((SQL / "chatdb").glob("*.sql"))
CARD_QNA = sorted((SQL / "card_qna_db").glob("*.sql"))
MIGRATIONS = sorted((SQL / "chatdb" / "migrations").glob("*.sql"))
STATEMENTS = [*CHATDB, *CARD_QNA]


def name_of(path: Path) -> str:
    return str(path.relative_to(SQL))


@pytest.fixture(scope="module")
def chatdb(new_world: NewWorld) -> Iterator[Database]:
    world = new_world()
    with Gateway(world.settings):
        yield world.chatdb


@pytest.fixture(scope="module", params=["integer", "string"])
def card_qna(request: pytest.FixtureRequest, postgres: PostgresServer) -> Database:
    ids: IdKind = request.param
    return build_card_qna(postgres.database(), ids)


async def _prepare(database: Database, statement: str) -> None:
    connection = await asyncpg.connect(database.url)
    try:
        await connection.prepare(statement)
    finally:
        await connection.close()


def prepare(database: Database, path: Path) -> None:
    background.run(_prepare(database, path.read_text("utf-8")))


@pytest.mark.parametrize("path", CHATDB, ids=name_of)
def test_a_chatdb_statement_is_accepted(chatdb: Database, path: Path) -> None:
    prepare(chatdb, path)


@pytest.mark.parametrize("path", CARD_QNA, ids=name_of)
def test_a_card_qna_db_statement_is_accepted_for_both_types_of_id(card_qna: Database, path: Path) -> None:
    prepare(card_qna, path)


@pytest.mark.parametrize("path", CARD_QNA, ids=name_of)
def test_a_card_qna_db_statement_alters_no_table(path: Path) -> None:
    words = re.sub(r"--.*", "", path.read_text("utf-8")).lower().split()
    assert not {"create", "alter", "drop", "truncate", "insert", "delete"} & set(words)


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_a_statement_says_first_what_it_does(path: Path) -> None:
    assert re.match(r"-- \S.*\n", path.read_text("utf-8"))


@functools.cache
def strings_in_the_code() -> list[re.Pattern[str]]:
    """Every string of the program, as a pattern in which what an f-string fills in may be any word."""
    patterns = []
    folders = ("chat", "database", "handlers", "service")
    for file in [*ROOT.glob("*.py"), *(file for folder in folders for file in ROOT.glob(f"{folder}/*.py"))]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                patterns.append(re.compile(re.escape(node.value)))
            elif isinstance(node, ast.JoinedStr) and len(node.values) > 1:
                parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"[a-z]+" for p in node.values]
                patterns.append(re.compile("".join(parts)))
    return patterns


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_a_statement_is_used(path: Path) -> None:
    assert any(pattern.fullmatch(path.stem) for pattern in strings_in_the_code())


def test_no_sql_file_is_left_out() -> None:
    assert sorted(SQL.rglob("*.sql")) == sorted([*STATEMENTS, *MIGRATIONS])
    assert CHATDB
    assert CARD_QNA


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in MIGRATIONS]
    assert numbers == list(range(1, len(MIGRATIONS) + 1))
    assert all(re.fullmatch(r"\d{4}_\w+\.sql", path.name) for path in MIGRATIONS)
