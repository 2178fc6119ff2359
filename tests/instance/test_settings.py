"""What is wrong with the settings is reported whole, before anything is started."""

import os
import re
import shutil
import socket
import subprocess
import sys
import traceback
import warnings
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.addresses import database_url, servers
from settings import InvalidSettings, Settings, read_settings, read_values
from tests.support.chat import visit
from tests.support.gateway import UNUSED_SETTINGS, Gateway, Start, environment
from tests.support.network import NO_TLS
from tests.support.processes import ROOT, free_port
from tests.support.waiting import eventually
from tests.support.world import NewGateway, NewWorld, World

pytestmark = pytest.mark.anyio

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
    "LISTEN_DATABASE_URL": [f"postgresql://u:{SECRET}@h/d?sslmode=bogus", f"postgresql://u:{SECRET}@h,/d"],
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


LINE = f"DATABASE_URL=postgresql://user:{SECRET}비밀@127.0.0.1/chatdb\n"
UNREADABLE = {
    "CP949": LINE.encode("cp949"),
    "UTF-16": LINE.encode("utf-16"),
    "UTF-16 without its mark": LINE.encode("utf-16-le"),
    "a folder": None,
}


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_dotenv_file_that_cannot_be_read_is_one_line(copy_of_the_program: Path, kind: str, workers: str) -> None:
    """And status 2, with several workers too, whatever the environment says beside it."""
    file, content = copy_of_the_program / ".env", UNREADABLE[kind]
    file.mkdir() if content is None else file.write_bytes(content)
    settings = UNUSED_SETTINGS | {"WEB_CONCURRENCY": workers}
    with Gateway(settings, start="python", directory=copy_of_the_program, dotenv=True).launch() as gateway:
        assert gateway.wait() == 2
        output = gateway.output()
    assert output.startswith(".env ")
    assert len(output.splitlines()) == 1
    assert SECRET not in output


def test_a_dotenv_file_is_taken_literally(copy_of_the_program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`${HOME}` in a password is a password; a byte order mark, as some editors write it, is none of the name."""
    text = "DATABASE_URL='postgresql://user:${HOME}$PATH@127.0.0.1/chatdb'\nHTTPX_TIMEOUT=7\n"
    (copy_of_the_program / ".env").write_text("\ufeff" + text, "utf-8")
    monkeypatch.chdir(copy_of_the_program)
    values = read_values("database_url", "httpx_timeout")
    assert values["httpx_timeout"] == 7
    assert urlsplit(values["database_url"]).password == "%24%7BHOME%7D%24PATH"


MEANT = {
    "https://카드.example": "https://xn--hy1b989b.example",
    "HTTPS://Shop.Example:443/": "https://shop.example",
    "http://shop.example:80": "http://shop.example",
    "https://shop.example:80": "https://shop.example:80",
    "http://[::1]:4173": "http://[::1]:4173",
    "https://Ｓｈｏｐ.example": "https://shop.example",
}


async def test_origins_mean_what_browsers_send_however_they_are_written(world: World, new_gateway: NewGateway) -> None:
    gateway = new_gateway(world, FRONTEND_HOST=", ".join(MEANT))
    for origin in MEANT.values():
        async with gateway.connect(origin=origin):
            pass
        response = gateway.http.get("/api/health", headers={"origin": origin})
        assert response.headers["access-control-allow-origin"] == origin


DATABASES = {
    "postgresql://u:p@a:5432,b:5433/ChatDB?target_session_attrs=read-write": "a:5432,b:5433",
    "postgresql://u@a,[::1]:5433/d": "a:5432,[::1]:5433",
    "postgresql+asyncpg://u@/d?host=a,::1,/run/postgresql&port=1,2,3": "a:1,[::1]:2,/run/postgresql:3",
    "postgresql://u@%2Frun%2Fpostgresql/d": "/run/postgresql:5432",
    "postgres://u@a,b/d?port=6432": "a:6432,b:6432",
    "postgresql://u:p[@]／:@a/d?ssl=require": "a:5432",
}


def test_several_servers_may_stand_in_a_database_address_in_every_form() -> None:
    assert {dsn: servers(database_url(dsn)) for dsn in DATABASES} == DATABASES


# Each says nothing but the rule: a library's own words would quote the value.
FORMS = {
    "FRONTEND_HOST": ["{}", "https://{}@shop.example", "https://shop.example/{}", "https://[{}]", "https://a:{}"],
    "LLMSERVER_URL": ["{}", "http://u:{}@h:port", "http://{}:8000:1", "http://h/?{}", "http://h:1{}", "http://[{}]:1"],
    "DATABASE_URL": [
        "{}", "mysql://u:{}@h/d", "postgresql://u:{}@h:x/d", "postgresql://u@h/d?sslmode={}", "postgresql://h:{}/d",
        "postgresql://u:p@h,[{}]/d", "postgresql://u@h/d?target_session_attrs={}", "postgresql://u@h/d?port={}",
        "postgresql://u:{}/@h/d",
    ],
    "*": ["{}", "1{}", "-{}"],
}  # fmt: skip
MARKS = "／＠：？＃℀[]{}%$#?@:;,\\'\"\u0080\ud800 가😀"


@given(st.text(MARKS + "ab1", max_size=4), st.text(MARKS + "ab1", max_size=4), st.data())
@settings(max_examples=300, deadline=None)
def test_no_part_of_a_value_is_ever_in_a_message(before: str, after: str, data: st.DataObject) -> None:
    """Neither of one that is refused, nor of one that is accepted where others are refused."""
    secret = f"{before}{SECRET}{after}"
    values = {}
    for name in (spec.name.upper() for spec in fields(Settings)):
        kind = next(known for known in (name, name.removeprefix("FAQ_").removeprefix("LISTEN_"), "*") if known in FORMS)
        values[name] = data.draw(st.sampled_from(FORMS[kind])).format(secret)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setitem(os.environ, name, value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"))
        with pytest.raises(InvalidSettings) as refused, warnings.catch_warnings():
            read_settings()
    shown = "".join(traceback.format_exception(refused.value))
    assert SECRET not in shown
    for line in str(refused.value).splitlines():
        name, rule = line.split(" ", 1)
        assert not any(mark in rule for mark in "／＠：？＃℀😀\ud800")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("address", ["::", "0.0.0.0", "::1"])
def test_it_listens_where_host_says_on_both_families_with_one_worker_as_with_several(
    world: World, address: str, workers: str
) -> None:
    """And the image's health check follows it."""
    port = free_port()
    own = {"HOST": address, "PORT": str(port), "WEB_CONCURRENCY": workers}
    with Gateway(world.settings | own, start="python", port=port).launch() as gateway:

        def answers(at: str) -> bool:
            try:
                return httpx.get(f"http://{at}:{port}/api/health", trust_env=False, verify=NO_TLS).status_code == 200
            except httpx.TransportError:
                return False

        families = {"::": ["127.0.0.1", "[::1]"], "0.0.0.0": ["127.0.0.1"], "::1": ["[::1]"]}[address]
        for at in families:
            eventually(lambda at=at: answers(at), what=at)  # type: ignore[misc]
        command = [sys.executable, "docker-scripts/healthcheck.py"]
        checked = subprocess.run(command, env=environment(own), cwd=ROOT, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr
        gateway.stop()


async def test_no_secret_is_printed_while_it_runs_or_when_a_database_is_away(
    world: World, new_gateway: NewGateway
) -> None:
    """Not even one over which URL parsers stumble."""
    away = f"postgresql://user:{SECRET}@127.0.0.1:{free_port()}/chatdb"
    with Gateway(world.settings | {"DATABASE_URL": away}).launch() as gateway:
        eventually(lambda: gateway.output() or not gateway.process.running(), what="a word about the database")
        gateway.kill()
        assert SECRET not in gateway.output()
    with_secret = world.chatdb.url.replace("not-checked", f"[{SECRET}]／")
    llm = world.llm.url.replace("//", f"//user:[{SECRET}]é@")
    gateway = new_gateway(world, DATABASE_URL=with_secret, LLMSERVER_URL=llm, LOG_LEVEL="debug")
    assert uses_its_databases(gateway)
    async with visit(gateway) as visitor:
        await visitor.goes_on()
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
