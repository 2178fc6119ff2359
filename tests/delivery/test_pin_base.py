"""docker-scripts/pin-base.sh against a real registry on the loopback, with each program that can ask it."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.engine import PATH, needs
from tests.delivery.registry import Registry
from tests.support.processes import ROOT


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    needs("docker-registry", "skopeo", "podman", why="no registry can be asked")
    registry = Registry(tmp_path)
    yield registry
    registry.close()


@pytest.mark.parametrize("program", ["skopeo", "podman"])
def test_the_base_is_pinned_by_what_its_tag_is_now(tmp_path: Path, registry: Registry, program: str) -> None:
    """By its index of all architectures, in both stages; nothing else is changed, and nothing at all by a failure."""
    copy, home = tmp_path / "copy", tmp_path / "home"
    shutil.copytree(ROOT / "docker-scripts", copy / "docker-scripts")
    before = (ROOT / "Dockerfile").read_text()
    (copy / "Dockerfile").write_text(before)
    (tmp_path / "bin").mkdir()
    for name in [program, "bash", "basename", "dirname", "sed", "sort", "head", "grep", "id"]:
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name, path=PATH)))
    (home / ".config" / "containers").mkdir(parents=True)
    (home / ".config" / "containers" / "registries.conf").write_text(
        f'[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:{registry.port}"\ninsecure = true\n'
    )
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/images"\nrunroot = "{home}/run"\n'
    )
    environment = {
        "PATH": str(tmp_path / "bin"),
        "HOME": str(home),
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
    }

    def pin() -> "subprocess.CompletedProcess[str]":
        script = str(copy / "docker-scripts" / "pin-base.sh")
        return subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert pin().returncode == 1, "the registry has no such image yet"
    assert (copy / "Dockerfile").read_text() == before
    for text in ("first", "renewed"):
        digest = registry.push("library/python", "3.12-slim", text)
        done = pin()
        assert done.returncode == 0, done.stderr
        expected = re.sub(r"(?<=FROM python:3\.12-slim@)sha256:\w+", digest, before)
        assert (copy / "Dockerfile").read_text() == expected
