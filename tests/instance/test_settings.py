"""What is wrong with the settings is reported whole, before anything is started."""

import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.support.gateway import UNUSED_SETTINGS, Gateway, Start
from tests.support.processes import ROOT, free_port
from tests.support.waiting import eventually
from tests.support.world import NewGateway, NewWorld, World

REQUIRED = ["FRONTEND_HOST", "LLMSERVER_URL", "MCP_SERVER_URL", "DATABASE_URL", "FAQ_DATABASE_URL"]
BOTH_WAYS = pytest.mark.parametrize("start", ["uvicorn", "python"])
SECRET = "s3cr3t-passw0rd"


def refusal(settings: dict[str, str | None], start: Start = "uvicorn") -> str:
    """What a gateway prints that must refuse to start, with exit status 2 and no stack trace.

    It does not even come to ask for its port, which is taken.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with Gateway(UNUSED_SETTINGS | settings, start=start, port=taken.getsockname()[1]).launch() as gateway:
            status = gateway.wait()
            output = gateway.output()
    assert status == 2, output
    assert "Traceback" not in output
    return output


def lines_about(name: str, output: str) -> list[str]:
    return [line for line in output.splitlines() if re.search(rf"(?<![A-Z_]){name}(?![A-Z_])", line)]


@BOTH_WAYS
def test_all_that_is_missing_is_reported_together_one_line_each(start: Start) -> None:
    output = refusal(dict.fromkeys(REQUIRED), start)
    about = {name: lines_about(name, output) for name in REQUIRED}
    assert {name: len(lines) for name, lines in about.items()} == dict.fromkeys(REQUIRED, 1)
    assert len({lines[0] for lines in about.values()}) == len(REQUIRED)


@BOTH_WAYS
def test_all_that_is_malformed_is_reported_together_with_what_is_missing_one_line_each(start: Start) -> None:
    wrong = {
        "FRONTEND_HOST": "not an origin",
        "LLMSERVER_URL": None,
        "MCP_SERVER_URL": "ftp://127.0.0.1:8011",
        "DATABASE_URL": f"mysql://user:{SECRET}@127.0.0.1/chatdb",
        "FAQ_DATABASE_URL": f"postgresql://user:{SECRET}@127.0.0.1:port/card_qna_db",
        "HTTPX_TIMEOUT": "five minutes",
        "ENVIRONMENT": "staging",
        "MAX_PROMPT_CHARS": "many",
        "DB_TIMEOUT": "-1",
    }
    output = refusal(wrong, start)
    assert {name: len(lines_about(name, output)) for name in wrong} == dict.fromkeys(wrong, 1)
    assert SECRET not in output


WRONG_VALUES = {
    "FRONTEND_HOST": ["", "   ", "*", "127.0.0.1:4173", "http://127.0.0.1:4173,nonsense"],
    "LLMSERVER_URL": ["http://", "http://127.0.0.1:99999", "/llm", "127.0.0.1:8000"],
    "MCP_SERVER_URL": ["not a url", "ws://127.0.0.1:8011"],
    "DATABASE_URL": ["", SECRET, f"postgresql+psycopg2://user:{SECRET}@127.0.0.1/chatdb"],
    "FAQ_DATABASE_URL": [f"postgresql://user:{SECRET}@127.0.0.1:99999/d", f"http://u:{SECRET}@127.0.0.1/d"],
    "HTTPX_TIMEOUT": ["0", "-1", "nan", "1,5", "5 minutes"],
    "ENVIRONMENT": ["dev", "prod", "true"],
    "PORT": ["http", "70000", "-1"],
    "MAX_FRAME_BYTES": ["64k", "-1"],
    "MAX_PROMPT_CHARS": ["0", "1.5", "-4000", "0x10"],
    "MAX_PENDING_PROMPTS": ["-1", "eight"],
    "PROMPTS_PER_MINUTE": ["-60", "1e2"],
    "MAX_BODY_BYTES": ["-1", "64 KiB"],
    "MAX_SESSIONS": ["9" * 400, "-1"],
    "SEND_TIMEOUT": ["soon", "-10"],
    "DB_TIMEOUT": ["nan", "-5"],
    "DRAIN_SECONDS": ["-1", "long"],
    "RESUME_HOURS": ["a day", "-24"],
    "PING_SECONDS": ["-20", "often"],
}


@pytest.mark.parametrize("round_", range(max(map(len, WRONG_VALUES.values()))))
def test_every_malformed_value_is_refused_by_name_without_its_secret(round_: int) -> None:
    wrong: dict[str, str | None] = {
        name: values[round_] for name, values in WRONG_VALUES.items() if round_ < len(values)
    }
    output = refusal(wrong, "python")
    assert {name: len(lines_about(name, output)) for name in WRONG_VALUES} == {
        name: int(name in wrong) for name in WRONG_VALUES
    }
    assert SECRET not in output


@BOTH_WAYS
def test_it_starts_in_both_ways_a_second_one_on_its_port_ends_and_it_stops_on_sigterm(
    world: World, new_gateway: NewGateway, start: Start
) -> None:
    gateway = new_gateway(world, start=start)
    with Gateway(world.settings, start=start, port=gateway.port).launch() as second:
        assert second.wait() != 0
        assert str(gateway.port) in second.output()
    assert gateway.http.get("/api/health").json() == {"status": "ok"}
    # uvicorn's own command ends by the signal after an orderly stop, see uvicorn's capture_signals.
    assert gateway.stop() in ((0, -15) if start == "uvicorn" else (0,))
    assert "Traceback" not in gateway.output()


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


def uses_its_databases(gateway: Gateway) -> bool:
    faqs = gateway.http.get("/api/qna/faq").json()
    return gateway.http.get("/api/chat/personas").json() == {"personas": []} and len(faqs) == 3


def in_sqlalchemys_form(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://")


def test_databases_may_be_reached_over_a_unix_socket_also_in_sqlalchemys_form(
    world: World, new_gateway: NewGateway
) -> None:
    gateway = new_gateway(
        world, DATABASE_URL=world.chatdb.socket_url, FAQ_DATABASE_URL=in_sqlalchemys_form(world.card_qna.socket_url)
    )
    assert uses_its_databases(gateway)


@pytest.fixture
def copy_of_the_program(tmp_path: Path) -> Path:
    """The repository without its environment: a place for a `.env` file of its own."""
    copy = tmp_path / "program"
    left_out = shutil.ignore_patterns(".*", "tests", "benchmarks", "demo")
    shutil.copytree(ROOT, copy, ignore=left_out)
    return copy


@BOTH_WAYS
def test_settings_may_stand_in_a_dotenv_file_and_the_environment_goes_before_it(
    world: World, copy_of_the_program: Path, start: Start
) -> None:
    """Database addresses also in SQLAlchemy's form."""
    values = world.settings | {"ENVIRONMENT": "nonsense"}
    lines = [f'{name}="{in_sqlalchemys_form(value or "")}"' for name, value in values.items()]
    (copy_of_the_program / ".env").write_text("# 설정\n" + "\n".join(lines), "utf-8")
    settings = {"ENVIRONMENT": "production"}
    with Gateway(settings, start=start, directory=copy_of_the_program, dotenv=True) as gateway:
        assert uses_its_databases(gateway)


def test_a_wrong_dotenv_file_is_reported_like_the_environment(copy_of_the_program: Path) -> None:
    (copy_of_the_program / ".env").write_text(f"DATABASE_URL=mysql://u:{SECRET}@h/d\nHTTPX_TIMEOUT=abc\n")
    with Gateway({}, directory=copy_of_the_program, dotenv=True).launch() as gateway:
        assert gateway.wait() == 2
        output = gateway.output()
    assert all(len(lines_about(name, output)) == 1 for name in [*REQUIRED, "HTTPX_TIMEOUT"])
    assert SECRET not in output


def test_no_secret_is_printed_while_it_runs_or_when_a_database_is_away(world: World, new_gateway: NewGateway) -> None:
    away = f"postgresql://user:{SECRET}@127.0.0.1:{free_port()}/chatdb"
    with Gateway(world.settings | {"DATABASE_URL": away}).launch() as gateway:
        eventually(lambda: gateway.output() or not gateway.process.running(), what="a word about the database")
        gateway.kill()
        assert SECRET not in gateway.output()
    with_secret = world.chatdb.url.replace("not-checked", SECRET)
    gateway = new_gateway(world, DATABASE_URL=with_secret, LOG_LEVEL="debug")
    assert uses_its_databases(gateway)
    gateway.stop()
    assert SECRET not in gateway.output()


def test_every_setting_is_in_the_example_file() -> None:
    example = (ROOT / ".env.example").read_text("utf-8")
    limits = ["MAX_FRAME_BYTES", "MAX_PROMPT_CHARS", "MAX_PENDING_PROMPTS", "PROMPTS_PER_MINUTE"]
    limits += ["MAX_BODY_BYTES", "MAX_SESSIONS", "SEND_TIMEOUT", "DB_TIMEOUT", "DRAIN_SECONDS"]
    limits += ["RESUME_HOURS", "PING_SECONDS", "HTTPX_TIMEOUT", "ENVIRONMENT"]
    assert [name for name in REQUIRED + limits if not lines_about(name, example)] == []


def test_the_korean_table_of_settings_has_every_setting_and_its_default() -> None:
    def table(file: str) -> list[tuple[str, str]]:
        text = (ROOT / "docs" / file).read_text("utf-8").replace("필수", "required")
        return re.findall(r"^\| (`[A-Z_]+`) \| (.*?) \|", text, re.MULTILINE)

    assert table("configuration.ko.md") == table("configuration.md")
