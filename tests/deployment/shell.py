"""Shell scripts, run as a person or Jenkins would, with stand-ins for the programs that reach outside."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.processes import ROOT

# All that the scripts may use of the machine. No docker among it.
# fmt: off
TOOLS = [
    "basename", "bash", "cat", "dirname", "env", "git", "grep", "id", "mkdir", "mktemp", "python3", "rm", "sed", "sh",
    "sleep", "tail", "tr",
]
# fmt: on

SETTINGS = {
    "FRONTEND_HOST": "https://chat.example.com",
    "LLMSERVER_URL": "http://llm.example.com:8000",
    "MCP_SERVER_URL": "http://mcp.example.com:8011",
    "DATABASE_URL": "postgresql://gateway:s3cret-of-chatdb@db.example.com/chatdb",
    "FAQ_DATABASE_URL": "postgresql://gateway:s3cret-of-qna@db.example.com/card_qna_db",
}

DEPLOYMENT = SETTINGS | {
    "DEPLOY_HOSTS": "deploy@host-1 deploy@host-2 deploy@host-3",
    "HTTPX_TIMEOUT": "300",
    "ENVIRONMENT": "production",
    "IMAGE": "registry.example.com/team/card-chat-gateway",
    "REGISTRY_USR": "jenkins",
    "REGISTRY_PSW": "s3cret-of-registry",
    "READY_SECONDS": "0",
}


class Result(NamedTuple):
    status: int
    output: str
    errors: str


class Call(NamedTuple):
    host: str
    arguments: list[str]
    more: dict[str, Any]

    @property
    def command(self) -> str:
        return " ".join(self.arguments)


class Shell:
    """A folder with a copy of the scripts, and a PATH with only what they may use."""

    def __init__(self, folder: Path, *, docker: bool = True) -> None:
        self.folder = folder / "work"
        self._state = folder / "docker"
        self._bin = folder / "bin"
        for path in (self.folder, self._state, self._bin):
            path.mkdir()
        shutil.copytree(ROOT / "docker-scripts", self.folder / "docker-scripts")
        for tool in TOOLS:
            found = shutil.which(tool)
            if found:
                (self._bin / tool).symlink_to(found)
        if docker:
            program = Path(__file__).with_name("fake_docker.py")
            self.add_program("docker", f'exec "{sys.executable}" -IS "{program}" "$@"')

    def add_program(self, name: str, body: str) -> None:
        """A program of this name, in place of the real one."""
        file = self._bin / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def write_env(self, settings: Mapping[str, str], name: str = ".env") -> Path:
        """An env file in the folder."""
        file = self.folder / name
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return file

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> Result:
        """Run a command in the folder, with this environment and no other."""
        values = {"PATH": str(self._bin), "HOME": str(self.folder), "FAKE_DOCKER": str(self._state)}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=values | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            start_new_session=True,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def calls(self, *first: str) -> list[Call]:
        """The calls of docker so far whose arguments begin like this."""
        file = self._state / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [Call(row.pop("host"), row.pop("arguments"), row) for row in map(json.loads, lines)]
        return [call for call in calls if call.arguments[: len(first)] == list(first)]

    def containers(self, host: str = "") -> dict[str, str]:
        """Name and image of each container on a host; those that do not run have an image with brackets."""
        file = self._state / f"containers-{host.replace('/', '_')}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        return {name: one["image"] if one["runs"] else f"({one['image']})" for name, one in found.items()}

    def start_with(self, containers: Mapping[str, str], host: str = "", *, owner: str = "") -> None:
        """These containers are on the host already, as `containers` shows them; a lock is this owner's."""
        found = {
            name: {"image": image.strip("()"), "runs": image[0] != "(", "owner": owner}
            for name, image in containers.items()
        }
        (self._state / f"containers-{host.replace('/', '_')}.json").write_text(json.dumps(found))


def option(arguments: Sequence[str], name: str) -> list[str]:
    """The values of an option in a command line."""
    return [value for key, value in pairwise(arguments) if key == name]
