"""podman in the place of Docker's engine, with storage of its own, and a `docker` command for the scripts."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.delivery.base import PYTHON, write_base
from tests.support.processes import ROOT

BASE = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0]
PROGRAMS = {"podman": "podman", "runc": "runc", "iptables": "iptables", "netavark": "netavark"}
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/lib/podman:/usr/libexec/podman"

# What run.sh asks of an engine and this one, in a test, cannot give: a port of its own network, more open files than
# this process may have, and Docker's own logs.
WRAPPER = """#!{python} -IS
import os, sys
arguments = sys.argv[1:]
if arguments[:1] == ["run"]:
    arguments[1:1] = ["--network", "host", *{limits}]
    changed = {{"PORT=8001": "PORT={port}", "nofile=65536:65536": "nofile=4096:4096", "local": "k8s-file"}}
    arguments = [changed.get(argument, argument) for argument in arguments]
    for option, value in ("--publish", "8001:8001"), ("--log-opt", "max-file=5"):
        if value in arguments:
            at = arguments.index(value)
            assert arguments[at - 1] == option
            del arguments[at - 1 : at + 1]
if arguments[:1] == ["build"]:
    arguments[1:1] = {build}
if os.environ.get("DOCKER_HOST", "").startswith("ssh:"):
    os.execv("{docker}", ["docker", *arguments])
os.environ.update({environment})
os.execv("{podman}", ["podman", *arguments])
"""


def needs(*programs: str, why: str, root: bool = True) -> None:
    """Skips by name where a program is missing or this is not root, except in CI, where that is a failure."""
    missing = [program for program in programs if not shutil.which(program, path=PATH)]
    sentence = f"{why}: {', '.join(missing)} not installed" if missing else ""
    if not sentence and root and os.geteuid() != 0:
        sentence = f"{why}: only root may"
    if sentence and os.environ.get("CI") == "true":
        pytest.fail(sentence)
    if sentence:
        pytest.skip(sentence)


class Engine:
    """Images and containers in a folder. `bin` has a `docker` that reaches them."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.bin = folder / "bin"
        self.wheels = folder / "wheels"
        self.bin.mkdir()
        limits = ["nofile=4096:4096", "nproc=4096:4096"]
        driver = "overlay" if self._has_overlay() else "vfs"
        places = f'graphroot = "{folder}/images"\nrunroot = "{folder}/run"\n'
        (folder / "storage.conf").write_text(f'[storage]\ndriver = "{driver}"\n{places}')
        (folder / "containers.conf").write_text(
            f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
            '[engine]\nruntime = "runc"\ncompat_api_enforce_docker_hub = false\n'
            'events_logger = "file"\ncgroup_manager = "cgroupfs"\n'
            f'tmp_dir = "{folder}/tmp"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{folder}/networks"\n'
        )
        insecure = '[[registry]]\nprefix = "127.0.0.1"\nlocation = "127.0.0.1"\ninsecure = true\n'
        (folder / "registries.conf").write_text(f'unqualified-search-registries = ["localhost"]\n{insecure}')
        self.environment = {
            "PATH": PATH,
            "HOME": str(folder),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        }
        build = [
            "--format=docker", "--isolation=chroot", "--network=host", "--layers=false", "--pull=never",
            f"--volume={self.wheels}:/wheels:ro", f"--build-context={BASE}=container-image://localhost/base",
        ]  # fmt: skip
        program = WRAPPER.format(
            python=sys.executable,
            port=port,
            limits=[f"--ulimit={limit}" for limit in limits],
            build=build,
            environment=self.environment,
            podman=shutil.which("podman"),
            docker=shutil.which("docker", path=PATH),
        )
        (self.bin / "docker").write_text(program)
        (self.bin / "docker").chmod(0o755)

    def _has_overlay(self) -> bool:
        """Whether containers share the files of their image; else each of them is a whole copy."""
        parts = {name: self.folder / "try" / name for name in ("lower", "upper", "work", "all")}
        for part in parts.values():
            part.mkdir(parents=True)
        options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(parts["all"])]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", str(parts["all"])], check=True)
        return True

    def make_base(self) -> None:
        """The image that the Dockerfile begins with, and the packages that it installs."""
        write_base(self.folder / "base.tar")
        self("import", "--quiet", str(self.folder / "base.tar"), "localhost/base")
        version = PYTHON.name.removeprefix("python")
        options = ["--require-hashes", "--only-binary=:all:", f"--python-version={version}", "--no-deps", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(self.wheels)]
        pins = str(ROOT / "requirements.txt")
        subprocess.run([*command, "--requirement", pins], check=True, capture_output=True)

    def __call__(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """The `docker` of the scripts, in a test's own words."""
        command = [str(self.bin / "docker"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment, timeout=300)
        assert not check or done.returncode == 0, done.stderr
        return done

    def read(self, *arguments: str) -> str:
        """What it prints."""
        return self(*arguments).stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        """All that it knows of an image or a container."""
        (found,) = json.loads(self.read("inspect", name))
        return dict(found)

    def script(self, name: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the scripts with this engine, and no other setting than these."""
        environment: Mapping[str, str] = self.environment | {"PATH": f"{self.bin}:{PATH}"} | more
        command = [str(ROOT / "docker-scripts" / name), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    def close(self) -> None:
        """Nothing of it is left: containers, what watches over them (for minutes, otherwise), and files."""
        self("rm", "--all", "--force", "--time=0", check=False)
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.folder) in argument for argument in process.info["cmdline"] or []):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        for mounted in sorted((one.mountpoint for one in psutil.disk_partitions(all=True)), reverse=True):
            if mounted.startswith(f"{self.folder}/"):
                subprocess.run(["umount", mounted], check=False)
        shutil.rmtree(self.folder)
