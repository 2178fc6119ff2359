"""`python seed_personas.py [FILE]`."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.pgbouncer import need_pgbouncer
from tests.support.gateway import Gateway, environment
from tests.support.old_chatdb import build_old_chatdb
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import ROOT, Process
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.world import NewWorld, World


@pytest.fixture(scope="module")
def migrated(new_world: NewWorld) -> Database:
    """A ChatDB that a gateway has brought up to date and left."""
    world = new_world()
    with Gateway(world.settings) as gateway:
        gateway.stop()
    return world.chatdb


@pytest.fixture
def world(postgres: PostgresServer, migrated: Database, new_world: NewWorld) -> Iterator[World]:
    world = new_world(chatdb=postgres.database(migrated))
    yield world
    world.chatdb.drop()


@pytest.fixture(scope="module")
def empty_world(migrated: Database, new_world: NewWorld) -> World:
    """For runs that must not write anything: the table is empty before and after each of them."""
    return new_world(chatdb=migrated)


def seed(world: World, *arguments: object) -> tuple[int, str]:
    """Run the program; exit status and output, which is never a stack trace."""
    command = [sys.executable, "seed_personas.py", *map(str, arguments)]
    process = Process(command, environment=environment(world.settings))
    status = process.wait(PATIENCE_SECONDS)
    assert "Traceback" not in process.output()
    return status, process.output()


def seeded(world: World, *arguments: object) -> str:
    """Run the program, which must succeed; its last line."""
    status, output = seed(world, *arguments)
    assert status == 0, output
    return output.strip().splitlines()[-1]


def personas(world: World) -> list[tuple[int, str, str | None]]:
    rows = world.chatdb.fetch('SELECT id, name, description FROM "Persona" ORDER BY id')
    return [(row["id"], row["name"], row["description"]) for row in rows]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "personas.json"


def write(file: Path, value: object) -> Path:
    file.write_text(json.dumps(value, ensure_ascii=False), "utf-8")
    return file


THREE: list[dict[str, Any]] = [
    {"name": "김하늘", "description": "카페를 자주 갑니다."},
    {"name": "이바다", "description": None},
    {"name": "Jane 😀", "description": "해외 결제가 많습니다."},
]


def test_the_shipped_file_is_the_default(world: World) -> None:
    shipped = json.loads((ROOT / "data" / "personas.json").read_text("utf-8"))
    assert len(shipped) >= 7
    assert seeded(world) == f"{len(shipped)} added, 0 updated, 0 unchanged"
    assert [(name, text) for _, name, text in personas(world)] == [
        (entry["name"], entry["description"]) for entry in shipped
    ]


def test_a_file_of_ones_own_fills_the_table_in_its_order(world: World, file: Path) -> None:
    assert seeded(world, write(file, THREE)) == "3 added, 0 updated, 0 unchanged"
    assert [(name, text) for _, name, text in personas(world)] == [
        ("김하늘", "카페를 자주 갑니다."),
        ("이바다", None),
        ("Jane 😀", "해외 결제가 많습니다."),
    ]


def test_run_twice_it_changes_nothing(world: World, file: Path) -> None:
    seeded(world, write(file, THREE))
    rows = 'SELECT to_jsonb(p) AS row, xmin::text FROM "Persona" p ORDER BY id'
    before = world.chatdb.fetch(rows)
    assert seeded(world, file) == "0 added, 0 updated, 3 unchanged"
    assert world.chatdb.fetch(rows) == before


def test_an_edited_description_is_updated_and_ids_are_kept(world: World, file: Path) -> None:
    seeded(world, write(file, THREE))
    before = personas(world)
    edited: list[dict[str, Any]] = [
        {"name": "새 사람 1", "description": "처음"},
        THREE[2] | {"description": "이제 국내에서만 씁니다."},
        {"name": "새 사람 2", "description": ""},
        THREE[0],
        THREE[1],
        {"name": "새 사람 3", "description": None},
    ]
    assert seeded(world, write(file, edited)) == "3 added, 1 updated, 2 unchanged"
    after = personas(world)
    assert after[:2] == before[:2]
    assert after[2] == (before[2][0], "Jane 😀", "이제 국내에서만 씁니다.")
    assert [name for _, name, _ in after[3:]] == ["새 사람 1", "새 사람 2", "새 사람 3"]


def test_null_to_text_and_text_to_null_are_updates(world: World, file: Path) -> None:
    seeded(world, write(file, THREE))
    edited = [THREE[0] | {"description": None}, THREE[1] | {"description": "이제 있습니다."}, THREE[2]]
    assert seeded(world, write(file, edited)) == "0 added, 2 updated, 1 unchanged"
    assert [text for _, _, text in personas(world)] == [None, "이제 있습니다.", "해외 결제가 많습니다."]


def test_personas_that_are_not_in_the_file_stay(world: World, file: Path) -> None:
    seeded(world, write(file, THREE))
    assert seeded(world, write(file, THREE[:1])) == "0 added, 0 updated, 1 unchanged"
    assert len(personas(world)) == 3


def test_the_longest_texts_fit(world: World, file: Path) -> None:
    entry = {"name": "가" * 100, "description": "나" * 255}
    assert seeded(world, write(file, [entry])) == "1 added, 0 updated, 0 unchanged"
    assert personas(world)[0][1:] == (entry["name"], entry["description"])


def test_an_empty_list_is_nothing_to_do(empty_world: World, file: Path) -> None:
    status, output = seed(empty_world, write(file, []))
    assert status == 0
    assert "0 added, 0 updated, 0 unchanged" in output


GOOD: dict[str, Any] = {"name": "멀쩡한 사람", "description": "좋습니다."}


# What is wrong with an entry, by the field that is named
BAD_ENTRIES: list[tuple[Any, str]] = [
    ("text", ""),
    (None, ""),
    (["name"], ""),
    ({}, "name"),
    ({"description": "이름이 없습니다."}, "name"),
    ({"name": None, "description": ""}, "name"),
    ({"name": 17, "description": ""}, "name"),
    ({"name": ["x"], "description": ""}, "name"),
    ({"name": "", "description": ""}, "name"),
    ({"name": " \t\n", "description": ""}, "name"),
    ({"name": "가" * 101, "description": ""}, "name"),
    (GOOD, "name"),
    ({"name": "멀쩡한 사람", "description": "다른 설명"}, "name"),
    ({"name": "누\x00구", "description": ""}, "name"),
    ({"name": "누구", "description": 17}, "description"),
    ({"name": "누구", "description": True}, "description"),
    ({"name": "누구", "description": {}}, "description"),
    ({"name": "누구", "description": "나" * 256}, "description"),
    ({"name": "누구", "description": "\x00"}, "description"),
]


def test_bad_entries_refuse_the_whole_file_each_named_with_its_field(empty_world: World, file: Path) -> None:
    entries = [GOOD, *(entry for entry, _ in BAD_ENTRIES), {"name": "또 멀쩡한 사람"}]
    status, output = seed(empty_world, write(file, entries))
    assert status != 0
    lines = output.replace(str(file), "").strip().splitlines()
    assert len(lines) == len(BAD_ENTRIES)
    for number, (line, (_, field)) in enumerate(zip(lines, BAD_ENTRIES, strict=True), 2):
        assert re.search(rf"\b{number}\b", line), line
        assert field in line
    assert personas(empty_world) == []


@pytest.mark.parametrize(
    "content",
    [b"", '[{"name": "반'.encode(), b'[{"name": "\xff\xfe", "description": ""}]', '{"name": "하나"}'.encode(), b"null"],
    ids=["empty", "cut off", "bad UTF-8", "object", "null"],
)
def test_what_is_no_list_in_json_is_refused(empty_world: World, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    status, output = seed(empty_world, file)
    assert status != 0
    assert output.strip()
    assert personas(empty_world) == []


def test_a_missing_file_and_a_directory_are_refused_by_name(empty_world: World, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        status, output = seed(empty_world, path)
        assert status != 0
        assert path.name in output


def test_a_bad_file_changes_nothing_that_was_there(world: World, file: Path) -> None:
    seeded(world, write(file, THREE))
    before = personas(world)
    status, _ = seed(world, write(file, [THREE[0] | {"description": "다르게"}, {"name": ""}]))
    assert status != 0
    assert personas(world) == before


def test_help_says_what_it_does(empty_world: World) -> None:
    status, output = seed(empty_world, "--help")
    assert status == 0
    assert "usage" in output.lower()
    assert "personas.json" in output


def test_without_a_database_address_it_says_so() -> None:
    process = Process([sys.executable, "seed_personas.py"], environment=environment({}))
    assert process.wait(PATIENCE_SECONDS) != 0
    assert "DATABASE_URL" in process.output()
    assert "Traceback" not in process.output()


def test_a_database_that_is_away_is_one_sentence_without_the_password() -> None:
    address = "postgresql://user:s3cr3t-passw0rd@127.0.0.1:9/chatdb"
    process = Process([sys.executable, "seed_personas.py"], environment=environment({"DATABASE_URL": address}))
    assert process.wait(PATIENCE_SECONDS) != 0
    assert "Traceback" not in process.output()
    assert "s3cr3t" not in process.output()


def test_behind_a_pooler_it_heeds_prepared_statements(world: World, postgres: PostgresServer, file: Path) -> None:
    """The second run meets what the first one has prepared on the pooler's connections, if it had."""
    write(file, THREE)
    with need_pgbouncer(postgres) as pooler:
        settings = {"DATABASE_URL": pooler.url(world.chatdb), "PREPARED_STATEMENTS": "false"}
        for said in ("3 added", "3 unchanged"):
            process = Process([sys.executable, "seed_personas.py", str(file)], environment=environment(settings))
            assert process.wait(PATIENCE_SECONDS) == 0, process.output()
            assert said in process.output()


@pytest.mark.parametrize("before", ["empty", "old"])
def test_it_may_run_before_the_first_gateway(
    new_world: NewWorld, postgres: PostgresServer, file: Path, before: str
) -> None:
    database = postgres.database()
    if before == "old":
        build_old_chatdb(database)
    world = new_world(chatdb=database)
    assert seeded(world, write(file, THREE)) == "3 added, 0 updated, 0 unchanged"
    with Gateway(world.settings) as gateway:
        served = gateway.http.get("/api/login/personas").json()["personas"]
        assert [{name: persona[name] for name in ("name", "description")} for persona in served[-3:]] == THREE
