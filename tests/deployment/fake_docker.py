"""Stands in for the docker command: notes each call in $FAKE_DOCKER/calls.jsonl and keeps containers per DOCKER_HOST.

FAKE_DOCKER_FAILS has the calls that fail, by their first words and host: `version@`, `exec@ssh://deploy@host-2`.
FAKE_DOCKER_ABORTS has one at which everything that was started with it is told to end, once, as Jenkins does it.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

DIGEST = "sha256:" + "1f" * 32


def main() -> int:
    arguments = sys.argv[1:]
    folder = Path(os.environ["FAKE_DOCKER"])
    host = os.environ.get("DOCKER_HOST", "")
    note(folder / "calls.jsonl", host, arguments)
    here = f"{arguments[0]}@{host}"
    if here in os.environ.get("FAKE_DOCKER_FAILS", "").split():
        return 1
    state = folder / f"containers-{host.replace('/', '_')}.json"
    containers: dict[str, dict[str, Any]] = json.loads(state.read_text()) if state.exists() else {}
    status = act(arguments, containers)
    state.write_text(json.dumps(containers))
    aborted = folder / "aborted"
    if here == os.environ.get("FAKE_DOCKER_ABORTS") and not aborted.exists():
        aborted.touch()
        os.killpg(0, signal.SIGTERM)
    return status


def note(calls: Path, host: str, arguments: list[str]) -> None:
    call: dict[str, object] = {"host": host, "arguments": arguments}
    if arguments[0] == "login":
        call["stdin"] = sys.stdin.read()
    if "--env-file" in arguments:
        file = Path(arguments[arguments.index("--env-file") + 1])
        call["env_file"] = str(file)
        call["env_file_text"] = file.read_text()
        call["env_file_mode"] = f"{file.stat().st_mode & 0o777:o}"
    with calls.open("a") as lines:
        lines.write(json.dumps(call) + "\n")


def act(arguments: list[str], containers: dict[str, dict[str, Any]]) -> int:
    last = arguments[-1]
    match arguments:
        case ["container", "inspect", *_] if last not in containers:
            return 1
        case ["container", "inspect", "--format", what, _]:
            print(containers[last]["owner" if "owner" in what else "image"])
        case ["container", "create", "--name", name, *_] | ["rename", _, name] if name in containers:
            return 1
        case ["container", "create", "--name", name, "--label", label, image, _]:
            containers[name] = {"image": image, "runs": False, "owner": label.partition("=")[2]}
        case ["image", "inspect", "--format", _, reference]:
            print(f"another/name@sha256:{'0' * 64}\n{reference.rsplit(':', 1)[0]}@{DIGEST}")
        case ["image", "inspect", *_]:
            return 1
        case ["rename", old, new]:
            containers[new] = containers.pop(old)
        case ["rm", *_]:
            containers.pop(last, None)
        case [("stop" | "start"), name]:
            containers[name]["runs"] = arguments[0] == "start"
        case ["run", *_] if "--detach" in arguments:
            name = arguments[arguments.index("--name") + 1]
            if name in containers:
                return 125
            containers[name] = {"image": last, "runs": True}
        case [("build" | "push" | "pull" | "login"), *_]:
            print(f"what docker {arguments[0]} says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
