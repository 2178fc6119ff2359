"""The image, built from the unchanged Dockerfile: what is in it, and a life of it in a real container."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.delivery.conftest import VERSION
from tests.delivery.engine import Engine
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.processes import ROOT
from tests.support.waiting import eventually
from tests.support.world import NewWorld, World

pytestmark = pytest.mark.anyio

IMAGE = f"card-chat-gateway:{VERSION}"
NAME = "card-chat-gateway"
FOLDERS = ["chat", "common", "database", "handlers", "service", "sql", "upstream", "web"]
READY_SECONDS = "60"


class Deployed(Gateway):
    """A container's address in place of a process'."""

    def __init__(self, port: int) -> None:
        super().__init__({}, port=port)

    def healthy(self) -> bool:
        with suppress(httpx.TransportError):
            return self.http.get("/api/health", timeout=2).status_code == 200
        return False


@pytest.fixture(scope="module")
def inside(engine: Engine) -> Iterator[Callable[..., list[str]]]:
    """What a command says in a container of the image, as the user that the gateway is."""
    sleep = ["python", "-c", "import time; time.sleep(600)"]
    engine("run", "--detach", "--no-healthcheck", "--name", "inside", IMAGE, *sleep)
    yield lambda *command: engine("exec", "inside", *command, check=False).stdout.splitlines()
    engine("rm", "--force", "--time=0", "inside")


def test_it_has_what_is_copied_and_nothing_else(inside: Callable[..., list[str]]) -> None:
    """The repository's own files, with bytecode; no tests, no demo, no file whose name begins with a dot."""
    listed = subprocess.run(["git", "ls-files", "*.py", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {file for file in listed.stdout.splitlines() if "/" not in file or file.split("/")[0] in FOLDERS}
    expected = tracked | {"data/personas.json", "healthcheck.py"}
    found = {line.removeprefix("/app/") for line in inside("find", "/app", "-type", "f")}
    assert {file for file in found if "__pycache__" not in file} == expected
    assert {Path(file).suffix for file in found - expected} == {".pyc"}
    assert len(found - expected) == len([file for file in expected if file.endswith(".py")])


def test_it_has_the_pinned_packages_and_no_installer(inside: Callable[..., list[str]]) -> None:
    pins = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    listing = "from importlib.metadata import distributions as d; print(*{one.name for one in d()})"
    (names,) = inside("python", "-c", listing)
    # Which a venv of the stand-in's Python may have, and one of 3.12 has not.
    installed = {re.sub(r"[._]", "-", name.lower()) for name in names.split()} - {"setuptools"}
    assert installed <= pins
    assert {"starlette", "uvicorn", "asyncpg", "uvloop"} <= installed
    assert inside("find", "/", "-xdev", "-name", "pip", "-o", "-name", "pip3*") == []


def test_nothing_in_it_can_be_written_by_whom_it_runs_as(inside: Callable[..., list[str]]) -> None:
    """Nor is there any file with settings."""
    assert inside("id", "-u") == ["10001"]
    found = inside("find", "/", "-xdev", "(", "-writable", "-not", "-type", "l", "-o", "-name", ".env*", ")")
    assert {path for path in found if not path.startswith(("/dev/", "/proc/"))} <= {"/tmp", "/var/tmp", "/run/lock"}


def test_it_says_what_it_is(engine: Engine) -> None:
    config = engine.inspect(IMAGE)["Config"]
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] == revision.stdout.strip()
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["Cmd"] == ["python", "gateway.py"]
    assert not any("SECRET" in value or "PASSWORD" in value for value in config["Env"])


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture
def env_file(tmp_path: Path, world: World) -> Path:
    file = tmp_path / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in world.settings.items() if name != "ENVIRONMENT"))
    return file


@pytest.fixture
def container(engine: Engine) -> Iterator[Deployed]:
    """Where the container of the scripts can be reached; it ends with the test."""
    deployed = Deployed(engine.port)
    with deployed.http:
        yield deployed
    engine("rm", "--force", "--time=0", NAME, f"{NAME}-previous", check=False)


async def test_it_serves_and_drains(engine: Engine, world: World, env_file: Path, container: Deployed) -> None:
    """Closed as run.sh closes it: ready, healthy by its own HEALTHCHECK, a conversation, and a drained end."""
    done = engine.script("run.sh", "deploy", VERSION, ENV_FILE=str(env_file), READY_SECONDS=READY_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert engine("healthcheck", "run", NAME).returncode == 0
    assert engine.read("exec", NAME, "python", "healthcheck.py", "ready")
    host = engine.inspect(NAME)["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert engine.inspect(NAME)["EffectiveCaps"] in ([], None)
    assert container.http.get("/api/health/ready").status_code == 200
    engine("exec", NAME, "python", "seed_personas.py")
    personas = container.http.get("/api/chat/personas").json()["personas"]
    assert len(personas) == len(json.loads((ROOT / "data" / "personas.json").read_text()))
    assert container.http.get("/docs").status_code == 200
    async with visit(container) as visitor:
        await visitor.goes_on()
        engine("stop", NAME)
        await visitor.socket.wait_closed()
        assert visitor.socket.close_code == 1012
    assert engine.inspect(NAME)["State"]["ExitCode"] == 0
    assert engine("healthcheck", "run", NAME, check=False).returncode != 0
    assert world.chatdb.value('SELECT count(*) FROM "Chat"') == 2


def test_a_version_that_does_not_come_up_gives_way_to_the_one_before(
    engine: Engine, env_file: Path, container: Deployed
) -> None:
    """A broken image, then a sound one and a way back: at the end of each the host serves."""
    broken = f'FROM {IMAGE}\nCMD ["python", "-c", "raise SystemExit(\'broken\')"]\n'
    (engine.folder / "broken").mkdir(exist_ok=True)
    (engine.folder / "broken" / "Dockerfile").write_text(broken)
    engine("tag", IMAGE, "card-chat-gateway:next")
    settings = {"ENV_FILE": str(env_file), "READY_SECONDS": READY_SECONDS}
    assert engine.script("run.sh", "deploy", VERSION, **settings).returncode == 0
    first = engine.inspect(NAME)["Id"]
    engine("build", "--tag", "card-chat-gateway:broken", str(engine.folder / "broken"))
    failed = engine.script("run.sh", "deploy", "broken", **settings | {"READY_SECONDS": "2"})
    assert failed.returncode == 1
    assert "card-chat-gateway:broken did not start, or was not ready" in failed.stderr
    assert engine.inspect(NAME)["Id"] == first
    eventually(container.healthy, what="the old one serves again")
    assert engine.script("run.sh", "deploy", "next", **settings).returncode == 0
    assert engine.inspect(NAME)["Id"] != first
    assert engine("image", "inspect", "card-chat-gateway:broken", check=False).returncode != 0, "it is cleaned up"
    assert engine.script("run.sh", "rollback", READY_SECONDS=READY_SECONDS).returncode == 0
    assert engine.inspect(NAME)["Id"] == first
    assert container.healthy()
    assert engine("container", "inspect", f"{NAME}-lock", check=False).returncode != 0
