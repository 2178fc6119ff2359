"""push.sh, deploy.sh and rollback.sh against a registry and a host that is reached over a real sshd."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.conftest import VERSION
from tests.delivery.engine import PATH, Engine, needs
from tests.delivery.registry import Registry
from tests.delivery.test_image import NAME, READY_SECONDS, Deployed
from tests.support.processes import Process, free_port
from tests.support.waiting import eventually
from tests.support.world import NewWorld


class Host:
    """An sshd, and behind it an engine that the docker command talks to as it does to Docker's."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        needs("sshd", "ssh", "ssh-keygen", "docker", why="no host can be reached over ssh")
        self.engine = engine
        self.port = free_port()
        self.name = f"root@127.0.0.1:{self.port}"
        socket = folder / "engine.sock"
        programs = folder / "programs"
        programs.mkdir()
        (programs / "docker").symlink_to(str(shutil.which("docker", path=PATH)))
        for key in ("host", "visitor"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(command, check=True)
        public = (folder / "host.pub").read_text()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        (folder / "ssh_config").write_text(
            f"IdentityFile {folder}/visitor\nUserKnownHostsFile {folder}/known_hosts\nStrictHostKeyChecking yes\n"
            "IdentitiesOnly yes\nBatchMode yes\n"
            f"ControlMaster auto\nControlPath {folder}/%p\nControlPersist 30\n"
        )
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/visitor.pub\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
            f"SetEnv PATH={programs}:/usr/bin:/bin DOCKER_HOST=unix://{socket}\nMaxStartups 100\n"
        )
        self._ssh = folder / "client"
        self._ssh.mkdir()
        (self._ssh / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        (self._ssh / "ssh").chmod(0o755)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = [str(shutil.which("sshd", path=PATH)), "-D", "-e", "-f", str(folder / "sshd_config")]
        service = [str(shutil.which("podman")), "system", "service", "--time=0", f"unix://{socket}"]
        self.processes = [
            Process(command, environment=engine.environment, directory=folder) for command in (sshd, service)
        ]
        eventually(socket.exists, what="the engine listens")

    def script(self, name: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the scripts on a machine that reaches this host."""
        path = f"{self._ssh}:{self.engine.bin}:{PATH}"
        settings = {"PATH": path, "DEPLOY_HOSTS": self.name, "READY_SECONDS": READY_SECONDS}
        return self.engine.script(name, *arguments, **settings | more)

    def close(self) -> None:
        for process in self.processes:
            process.kill()


@pytest.fixture
def host(tmp_path: Path, engine: Engine) -> Iterator[Host]:
    host = Host(tmp_path, engine)
    yield host
    host.close()
    engine("rm", "--force", "--time=0", NAME, f"{NAME}-previous", f"{NAME}-lock", check=False)


@pytest.fixture
def image(tmp_path: Path, engine: Engine) -> Iterator[str]:
    """The image's name in a registry."""
    (tmp_path / "registry").mkdir()
    registry = Registry(tmp_path / "registry")
    yield f"127.0.0.1:{registry.port}/team/card-chat-gateway"
    registry.close()


def test_from_the_registry_to_a_host_and_back(host: Host, image: str, engine: Engine, new_world: NewWorld) -> None:
    """By digest, twice, and back; and each way that it can fail leaves the host serving."""
    settings = {name: str(value) for name, value in new_world().settings.items()} | {"IMAGE": image}
    digests = []
    for tag in (VERSION, "next"):
        engine("tag", f"card-chat-gateway:{VERSION}", f"{image}:{tag}")
        pushed = host.script("push.sh", tag, IMAGE=image)
        assert pushed.returncode == 0, pushed.stderr
        digests.append(pushed.stdout.strip())
    container = Deployed(engine.port)
    with container.http:
        first = host.script("deploy.sh", digests[0], **settings)
        assert first.returncode == 0, first.stdout + first.stderr
        assert container.healthy()
        started = engine.inspect(NAME)["Id"]
        assert engine.inspect(NAME)["ImageName"].endswith(digests[0])

        broken = host.script("deploy.sh", "sha256:" + "0" * 64, **settings)
        assert broken.returncode == 1
        assert f"{host.name} cannot pull" in broken.stderr
        gone = host.script("deploy.sh", digests[1], **settings | {"DEPLOY_HOSTS": f"{host.name} root@127.0.0.1:1"})
        assert gone.returncode == 1
        assert "The Docker engine does not answer at ssh://root@127.0.0.1:1" in gone.stderr
        unsound = host.script("deploy.sh", digests[1], **settings | {"LLMSERVER_URL": "nonsense", "READY_SECONDS": "2"})
        assert unsound.returncode == 1
        assert "did not come up; it runs what it ran before" in unsound.stderr
        assert engine.inspect(NAME)["Id"] == started
        eventually(container.healthy, what="the old one serves")

        assert host.script("deploy.sh", digests[1], **settings).returncode == 0
        assert engine.inspect(NAME)["Id"] != started
        back = host.script("rollback.sh")
        assert back.returncode == 0, back.stdout + back.stderr
        assert engine.inspect(NAME)["Id"] == started
        assert container.healthy()
    names = engine.read("ps", "--all", "--format", "{{.Names}}").split()
    assert f"{NAME}-lock" not in names
    assert not engine.read("inspect", NAME).count("REGISTRY_PSW")
