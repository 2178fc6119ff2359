"""The Dockerfile: linted, pinned, closed. What it makes is looked at, and run, in tests/delivery."""

import importlib.metadata
import json
import re
import subprocess
import sys

import pytest

from tests.deployment.test_scripts import program
from tests.support.gateway import UNUSED_SETTINGS, environment
from tests.support.processes import ROOT

FILE = ROOT / "Dockerfile"
INSTRUCTIONS = [
    (line.split()[0], line.split(maxsplit=1)[1])
    for line in re.sub(r"\\\n\s*|^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE).splitlines()
    if line.strip()
]
LAST_STAGE = dict(INSTRUCTIONS[max(n for n, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :])


def values(name: str) -> list[str]:
    return [value for found, value in INSTRUCTIONS if found == name]


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


def test_every_base_image_is_the_same_and_pinned_by_its_digest() -> None:
    (base,) = {value.split()[0] for value in values("FROM")}
    assert re.fullmatch(r"python:3\.12-slim@sha256:[0-9a-f]{64}", base)


def test_packages_are_installed_with_hashes_and_nothing_is_compiled_and_the_installer_goes() -> None:
    (install,) = [run for run in values("RUN") if "pip install" in run]
    for option in ("--require-hashes", "--only-binary :all:", "--no-cache-dir", "pip uninstall"):
        assert option in install
    assert "pip uninstall" in LAST_STAGE["RUN"]
    assert not any("apt-get" in run for run in values("RUN"))


def test_nobody_but_the_owner_can_write_what_was_copied() -> None:
    assert any(run.endswith("chmod -R u=rwX,go=rX /app") for run in values("RUN"))


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
