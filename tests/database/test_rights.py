"""A right that is missing is named with the statement that gives it, and what can go on without it goes on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo.processes import user_for_servers
from tests.database.test_start import refused, sentences
from tests.support.card_qna import build_card_qna
from tests.support.chat import visit
from tests.support.cluster import SignsOfLife
from tests.support.gateway import Gateway, environment
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import ROOT, Process
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(new_world: NewWorld, debian: PostgresServer) -> World:
    """Since PostgreSQL 15 only the owner may create in `public`."""
    if not debian.admin.fetch("SELECT FROM pg_roles WHERE rolname = 'guest'"):
        debian.admin.execute("CREATE ROLE guest LOGIN")
    return new_world(debian.database(), build_card_qna(debian.database()))


def as_guest(database: Database) -> str:
    return database.url.replace("postgres:not-checked", "guest")


def checked(settings: dict[str, str | None]) -> list[str]:
    command = [sys.executable, "gateway.py", "--check"]
    ended = subprocess.run(command, env=environment(settings), cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.stdout.splitlines()


def test_who_may_not_create_tables_is_told_the_grant(world: World) -> None:
    settings = world.settings | {"DATABASE_URL": as_guest(world.chatdb), "FRONTEND_HOST": "https://chat.example"}
    remedy = "GRANT CREATE ON SCHEMA public TO guest"
    (sentence,) = sentences(refused(settings))
    assert remedy in sentence
    (line,) = checked(settings)
    assert line.startswith("DATABASE_URL ")
    assert remedy in line
    world.chatdb.execute(remedy)
    with Gateway(settings) as gateway:
        assert gateway.http.get("/api/health/ready").status_code == 200


def test_rights_on_the_tables_are_enough_once_they_are_there(world: World) -> None:
    """No right to create is needed then; a missing one is named with its table."""
    with Gateway(world.settings):
        pass
    world.chatdb.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest")
    settings = world.settings | {"DATABASE_URL": as_guest(world.chatdb)}
    with Gateway(settings) as gateway:
        assert gateway.http.get("/api/health/ready").status_code == 200
    world.chatdb.execute('REVOKE DELETE, INSERT ON "Turn" FROM guest')
    (sentence,) = sentences(refused(settings))
    assert 'ON public."Turn" TO guest' in sentence
    assert "GRANT " in sentence
    assert "INSERT" in sentence
    assert "DELETE" in sentence


@pytest.mark.parametrize("missing", ["faqs", "terms", "read-only"])
async def test_without_the_right_to_count_views_answers_go_on(
    world: World, new_gateway: NewGateway, missing: str
) -> None:
    """With one line in the log, and no new connection at each try. The other table's views are counted."""
    world.card_qna.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest")
    for table in {"faqs", "terms"} - {missing}:
        world.card_qna.execute(f"GRANT UPDATE (views) ON {table} TO guest")
    if missing == "read-only":
        world.card_qna.server.admin.execute(
            f'ALTER DATABASE "{world.card_qna.name}" SET default_transaction_read_only = on'
        )
    settings: dict[str, str | None] = {
        "FAQ_DATABASE_URL": as_guest(world.card_qna),
        "FRONTEND_HOST": "https://chat.example",
    }
    said = {"read-only": "read-only"}.get(missing, f"GRANT UPDATE (views) ON {missing} TO guest")
    assert [said in line and line.startswith("FAQ_DATABASE_URL ") for line in checked(world.settings | settings)] == [
        True
    ]
    gateway = new_gateway(world, **settings)
    await become(lambda: said in gateway.output(), what="the log says so at start")
    question, term = "결제일을 바꾸고 싶어요", "현금서비스"
    gateway.http.get("/api/qna/faq")
    before = session_count(world.card_qna)
    async with visit(gateway) as visitor:
        for _ in range(4):
            assert (await visitor.ask(question))["message"]
            assert (await visitor.ask(term))["message"]
        signs = SignsOfLife(world.chatdb)
        await become(lambda: signs.all_showed(3), what="three tries, one a second")
    if missing in ("faqs", "terms"):
        other, text = ("terms", term) if missing == "faqs" else ("faqs", question)
        column = "term" if other == "terms" else "question"
        views = f"SELECT views FROM {other} WHERE {column} = $1"
        await become(lambda: world.card_qna.value(views, text) >= 83, what="the other table is counted in")
    lines = [line for line in gateway.output().splitlines() if "statement failed" in line]
    assert len(lines) <= 2, lines
    assert session_count(world.card_qna) - before <= 2


def session_count(database: Database) -> int:
    """How many connections there have been to the database."""
    count = database.value("SELECT sessions FROM pg_stat_database WHERE datname = $1", database.name)
    assert isinstance(count, int)
    return count


def test_a_home_that_may_not_be_read_is_no_obstacle(world: World, tmp_path: Path) -> None:
    """asyncpg looks for certificates there, and fails where it may not look."""
    home = tmp_path / "home"
    home.mkdir(mode=0)
    command = [sys.executable, "gateway.py", "--check"]
    if (user := user_for_servers()) is not None:  # then this is root, who may look everywhere, unless
        shutil.chown(home, user)
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    values = environment(world.settings | {"HOME": str(home), "FRONTEND_HOST": "https://chat.example"})
    process = Process(command, environment=values)
    try:
        assert process.wait(30) == 0, process.output()
        assert "HOME may not be read" in process.output()
    finally:
        home.chmod(0o700)
