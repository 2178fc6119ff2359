"""The Dockerfile: linted, and its own steps carried out by hand, since an image cannot be built everywhere.

The Python of this machine takes the place of the base image's; its users and root file system stay as they are.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.deployment.dockerfile import Context, Image, build, read_stages
from tests.deployment.test_scripts import program
from tests.support.backends import answer
from tests.support.chat import visit
from tests.support.gateway import Gateway, live_gateways
from tests.support.processes import ROOT, Process, temporary_directory
from tests.support.world import NewWorld, World, unique

USER_ID = 10001
# Installing packages on a busy machine takes its time.
pytestmark = pytest.mark.timeout(300)
PYTHONS = ["python3.12", "python3.13", "python3.11", "/usr/bin/python3", sys.executable]
BECOME = """
import os, sys
user, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
os.execvp(command[0], command)
"""


def as_user(command: list[str]) -> list[str]:
    """The command, as the image's user; where only root could do that and we are not, as ourselves."""
    return [sys.executable, "-I", "-c", BECOME, str(USER_ID), *command] if os.geteuid() == 0 else command


def find_python() -> str:
    """A Python that the image's user can run."""
    probe = "import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
    for name in PYTHONS:
        found = shutil.which(name)
        if (
            found
            and subprocess.run(as_user([found, "-c", probe]), cwd="/", capture_output=True, check=False).returncode == 0
        ):
            return found
    raise AssertionError(f"no Python from 3.11 to 3.13 with venv that user {USER_ID} can run: {PYTHONS}")


class ImageGateway(Gateway):
    """The image's own CMD, as its user, with its environment and the settings alone."""

    def __init__(self, image: Image, world: World) -> None:
        super().__init__(world.settings | {"ENVIRONMENT": None})
        self.image = image

    def environment(self) -> dict[str, str]:
        """What a process of the container gets."""
        own = {name: self.image.real(value) for name, value in self.image.environment.items()}
        own["PATH"] = own["PATH"].replace("$PATH", "/usr/bin:/bin")
        given = {name: value for name, value in self.settings.items() if value is not None}
        return own | given | {"HOST": "127.0.0.1", "PORT": str(self.port)}

    def command(self, words: list[str]) -> list[str]:
        """A command line, as PATH of the image resolves it."""
        found = shutil.which(words[0], path=self.environment()["PATH"])
        assert found
        return as_user([found, *words[1:]])

    def launch(self) -> "ImageGateway":
        """Start the CMD."""
        command = self.command(self.image.instructions["CMD"].words)
        self._process = Process(command, environment=self.environment(), directory=self.image.path("."))
        live_gateways.append(self)
        return self

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`docker exec`, or `docker run` with another command."""
        return subprocess.run(
            self.command(list(words)),
            cwd=self.image.path("."),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture(scope="module")
def image() -> Image:
    if os.environ.get("CI") != "true" and not os.environ.get("TEST_IMAGE"):
        pytest.skip("takes a while and a package index; TEST_IMAGE=1 make test, or CI=true, makes the image by hand")
    folder = temporary_directory("gateway-image-")
    folder.chmod(0o755)
    image = build(ROOT, folder, find_python())
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "a-w", str(image.root)], check=True)
    return image


@pytest.fixture(scope="module")
def gateway(image: Image, new_world: NewWorld) -> Iterator[ImageGateway]:
    gateway = ImageGateway(image, new_world())
    gateway.start()
    yield gateway
    gateway.close()


def files(image: Image) -> dict[str, tuple[int, int, int]]:
    """Mode, size and time of every file and folder."""
    found = {}
    for path in [image.root, *image.root.rglob("*")]:
        status = path.lstat()
        found[str(path.relative_to(image.root))] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([program("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_is_closed() -> None:
    *_, last = read_stages(ROOT / "Dockerfile")
    one = {instruction.name: instruction for instruction in last}
    assert one["USER"].value == f"{USER_ID}:{USER_ID}"
    assert one["STOPSIGNAL"].value == "SIGTERM"
    assert one["EXPOSE"].value == "8001"
    assert one["CMD"].words == ["python", "gateway.py"]
    assert not {"ADD", "ENTRYPOINT", "VOLUME"} & set(one)
    names = set(re.findall(r"(\w+)=", one["ENV"].value))
    assert names == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "ENVIRONMENT"}


def test_every_base_image_is_the_same() -> None:
    assert {stage[0].words[0] for stage in read_stages(ROOT / "Dockerfile")} == {"python:3.12-slim"}


def test_packages_are_installed_with_hashes_and_nothing_is_compiled() -> None:
    runs = [step.value for stage in read_stages(ROOT / "Dockerfile") for step in stage if step.name == "RUN"]
    installs = [run for run in runs if "pip install" in run]
    assert len(installs) == 1
    for option in ("--require-hashes", "--only-binary :all:", "--no-cache-dir"):
        assert option in installs[0]
    assert not any("apt-get" in run for run in runs)


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".env.production",
        ".git/config",
        ".venv/bin/python",
        ".demo/lock",
        "tests/test_chat.py",
        "demo/run.py",
        "benchmarks/run.py",
        "handlers/__pycache__/ws.cpython-312.pyc",
        "handlers/.env",
        "__pycache__/gateway.cpython-312.pyc",
        "data/customers.json",
        "README.md",
        "Jenkinsfile",
        "requirements-dev.txt",
    ],
)
def test_the_build_does_not_see(path: str) -> None:
    assert not Context(ROOT).has(path)


def test_the_image_has_what_the_gateway_needs_and_no_more(image: Image) -> None:
    app = image.path("/app")
    modules = {path.name for path in ROOT.glob("*.py")}
    expected = modules | {"healthcheck.py", "data", "handlers", "sql", "upstream", "web", "__pycache__"}
    assert {path.name for path in app.iterdir()} == expected
    assert {"gateway.py", "settings.py", "seed_personas.py"} <= modules
    assert [path.name for path in (app / "data").iterdir()] == ["personas.json"]
    assert list((app / "handlers" / "__pycache__").glob("ws.*.pyc"))
    assert not list(app.rglob(".*"))


def test_the_image_has_no_installer(image: Image) -> None:
    (packages,) = image.path("/opt/venv").glob("lib/python*/site-packages")
    names = {path.name.split("-")[0].lower() for path in packages.iterdir()}
    assert {"starlette", "uvicorn", "asyncpg"} <= names
    unwanted = {"pip", "wheel", "pytest", "ruff", "mypy", "uv"}
    if packages.parent.name >= "python3.12":
        unwanted |= {"setuptools"}  # which older Pythons put into every virtual environment
    assert not names & unwanted


def test_nobody_but_the_owner_can_write_in_the_image(image: Image) -> None:
    assert [path for path in image.root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022] == []


def test_it_seeds_and_says_that_it_is_well(gateway: ImageGateway) -> None:
    seeded = gateway.run("python", "seed_personas.py")
    assert seeded.returncode == 0, seeded.stderr
    personas = gateway.http.get("/api/chat/personas").json()["personas"]
    assert len(personas) == len(json.loads((ROOT / "data" / "personas.json").read_text()))
    check = gateway.image.instructions["HEALTHCHECK"].value.split(" CMD ")[1]
    healthy = gateway.run(*json.loads(check))
    assert (healthy.returncode, healthy.stdout) == (0, '{"status":"ok"}\n'), healthy.stderr
    ready = gateway.run("python", "healthcheck.py", "ready")
    assert ready.returncode == 0, ready.stdout
    assert json.loads(ready.stdout)["status"] == "ready"


def test_the_demos_stand_ins_need_no_other_packages(gateway: ImageGateway) -> None:
    """compose.yaml runs them in this image, with their source mounted."""
    folder = temporary_directory("gateway-demo-")
    folder.chmod(0o755)
    shutil.copytree(ROOT / "demo", folder / "demo")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import demo.llm_server, demo.mcp_server"
    done = gateway.run("python", "-c", code, str(folder))
    assert done.returncode == 0, done.stderr


def test_it_runs_in_production_mode(gateway: ImageGateway) -> None:
    assert "html" not in gateway.http.get("/").headers["content-type"]


def test_it_is_checked_from_inside_where_nothing_answers(image: Image, new_world: NewWorld) -> None:
    absent = ImageGateway(image, new_world())
    check = absent.run("python", "healthcheck.py")
    assert check.returncode == 1
    assert "no answer on port" in check.stderr


@pytest.mark.anyio
async def test_its_own_command_serves_and_stops_and_writes_nothing(image: Image, new_world: NewWorld) -> None:
    """The whole life of a container: a turn, SIGTERM, exit status 0, and not a file changed."""
    before = files(image)
    world = new_world()
    gateway = ImageGateway(image, world).start()
    try:
        question, reply = unique("안녕하세요"), unique("무엇을 도와드릴까요?")
        world.llm.on(question, answer(reply))
        async with visit(gateway) as visitor:
            assert (await visitor.ask(question))["message"] == reply
        if os.geteuid() == 0:
            assert set(psutil.Process(gateway.process.pid).uids()) == {USER_ID}
        assert gateway.stop() == 0
    finally:
        gateway.close()
    assert files(image) == before


def test_it_ran_as_an_unprivileged_user() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user: the image's command ran as ourselves")
