"""The Dockerfile: linted, closed, and with all that the gateway needs: what it copies serves by itself."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.deployment.test_scripts import program
from tests.support.background import background
from tests.support.chat import visit
from tests.support.gateway import UNUSED_SETTINGS, Gateway, environment
from tests.support.processes import ROOT
from tests.support.world import NewWorld

FILE = ROOT / "Dockerfile"
INSTRUCTIONS = [
    (line.split()[0], line.split(maxsplit=1)[1])
    for line in re.sub(r"\\\n\s*|^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE).splitlines()
    if line.strip()
]
LAST_STAGE = dict(INSTRUCTIONS[max(n for n, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :])
COPIES = [value.split() for name, value in INSTRUCTIONS if name == "COPY" and not value.startswith("--from")]


def values(name: str) -> list[str]:
    return [value for found, value in INSTRUCTIONS if found == name]


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", text.strip("/"))
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts))


_LINES = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
RULES = [(not line.startswith("!"), _pattern(line.lstrip("!"))) for line in _LINES if line and line[0] != "#"]


def is_seen(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last rule that fits it or a folder above it decides."""
    parts = PurePosixPath(path).parts
    names = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    ignored = False
    for ignores, pattern in RULES:
        if any(pattern.fullmatch(name) for name in names):
            ignored = ignores
    return not ignored


def files_below(path: Path) -> Iterator[Path]:
    """The files that a COPY of this path takes."""
    found = [path] if path.is_file() else (each for each in path.rglob("*") if each.is_file())
    yield from (each for each in found if is_seen(each.relative_to(ROOT).as_posix()))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/app as the COPY instructions fill it."""
    folder = tmp_path_factory.mktemp("image") / "app"
    for *sources, target in COPIES:
        if target.startswith("/build"):
            continue
        assert target.endswith("/"), "a copy to a file is not known here"
        for source in sources:
            paths = list(ROOT.glob(source))
            found = [(path, file) for path in paths for file in files_below(path)]
            assert found, f"COPY {source} finds nothing that .dockerignore lets through"
            for path, file in found:
                copy = folder / target / (file.relative_to(path) if path.is_dir() else file.name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
    return folder


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([program("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_is_closed() -> None:
    user = LAST_STAGE["USER"]
    assert re.fullmatch(r"(\d{5,}):\1", user), "by number, and not root"
    assert LAST_STAGE["STOPSIGNAL"] == "SIGTERM"
    assert LAST_STAGE["EXPOSE"] == "8001"
    assert json.loads(LAST_STAGE["CMD"]) == ["python", "gateway.py"]
    assert LAST_STAGE["HEALTHCHECK"].endswith('CMD ["python", "healthcheck.py"]')
    assert not {"ADD", "ENTRYPOINT", "VOLUME"} & {name for name, _ in INSTRUCTIONS}
    names = set(re.findall(r"(\w+)=", LAST_STAGE["ENV"]))
    assert names == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "ENVIRONMENT"}


def test_every_base_image_is_the_same() -> None:
    assert {value.split()[0] for value in values("FROM")} == {"python:3.12-slim"}


def test_packages_are_installed_with_hashes_and_nothing_is_compiled_and_the_installer_goes() -> None:
    (install,) = [run for run in values("RUN") if "pip install" in run]
    for option in ("--require-hashes", "--only-binary :all:", "--no-cache-dir", "pip uninstall"):
        assert option in install
    assert "pip uninstall" in LAST_STAGE["RUN"]
    assert not any("apt-get" in run for run in values("RUN"))


def test_nobody_but_the_owner_can_write_what_was_copied() -> None:
    assert any(run.endswith("chmod -R u=rwX,go=rX /app") for run in values("RUN"))


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
        "sql/__pycache__/x.cpython-312.pyc",
        "sql/.env",
        "__pycache__/gateway.cpython-312.pyc",
        "data/customers.json",
        "README.md",
        "Jenkinsfile",
        "requirements/dev.txt",
    ],
)
def test_the_build_does_not_see(path: str) -> None:
    assert not is_seen(path)


async def have_a_turn(gateway: Gateway) -> None:
    async with visit(gateway) as visitor:
        await visitor.goes_on()


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_what_is_copied_serves_a_turn_and_writes_nothing(app: Path, new_world: NewWorld) -> None:
    """With its settings alone: it seeds, serves, says that it is well, and not a file is changed."""
    assert not list(app.rglob(".*"))
    before = times(app)
    world = new_world()
    more = {"PYTHONDONTWRITEBYTECODE": "1", "ENVIRONMENT": "production"}

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        values = environment(world.settings | more | {"PORT": str(gateway.port)})
        return subprocess.run(
            [sys.executable, *command], cwd=app, env=values, capture_output=True, text=True, check=False
        )

    with Gateway(world.settings | more, start="python", directory=app) as gateway:
        for command in (["seed_personas.py"], ["healthcheck.py"], ["healthcheck.py", "ready"]):
            assert run(*command).returncode == 0, run(*command)
        personas = gateway.http.get("/api/chat/personas").json()["personas"]
        assert len(personas) == len(json.loads((ROOT / "data" / "personas.json").read_text()))
        assert gateway.http.get("/docs").status_code == 200
        background.run(have_a_turn(gateway))
        assert gateway.stop() == 0
    assert run("healthcheck.py").returncode == 1, "nothing answers any more"
    assert times(app) == before


IMPORT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in sys.argv[2:] else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
for module in sys.argv[1].split():
    __import__(module)
"""


@pytest.mark.parametrize("modules", ["gateway seed_personas", "demo.llm_server demo.mcp_server"])
def test_no_package_is_needed_that_the_image_does_not_have(modules: str) -> None:
    """The demo's stand-ins too: compose.yaml runs them in this image, with their source mounted."""
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned}
    others = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not names & {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}
    ]
    assert "pytest" in others
    command = [sys.executable, "-c", IMPORT, modules, *others]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(UNUSED_SETTINGS), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
