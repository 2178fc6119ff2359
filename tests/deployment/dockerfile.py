"""Reads the Dockerfile and .dockerignore, and carries the steps out in a folder, without Docker.

Only as much of their grammar as this repository uses; what is not known fails.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

# Folders of the image that exist in the folder of a stage. Everything else is the machine's own.
INSIDE = ("/app", "/build", "/opt/venv")


@dataclass(frozen=True)
class Instruction:
    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value as JSON list (exec form) or as shell words."""
        if self.value.startswith("["):
            words: list[str] = json.loads(self.value)
            return words
        return shlex.split(self.value)


def read_stages(file: Path) -> list[list[Instruction]]:
    """The instructions of each stage, its FROM first."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, value = line.split(maxsplit=1)
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, value.strip()))
    return stages


class Context:
    """The files that a build gets to see."""

    def __init__(self, root: Path) -> None:
        self.root = root
        lines = (line.strip() for line in (root / ".dockerignore").read_text().splitlines())
        self._rules = [
            (not line.startswith("!"), _pattern(line.lstrip("!"))) for line in lines if line and line[0] != "#"
        ]

    def has(self, path: str) -> bool:
        """Whether .dockerignore lets a path through: the last rule that fits it or a folder above it decides."""
        parts = PurePosixPath(path).parts
        names = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        ignored = False
        for ignores, pattern in self._rules:
            if any(pattern.fullmatch(name) for name in names):
                ignored = ignores
        return not ignored

    def files(self) -> Iterator[str]:
        """Every file that is let through."""
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.root:
                folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                path = (Path(folder) / name).relative_to(self.root).as_posix()
                if self.has(path):
                    yield path


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", text.strip("/"))
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts))


@dataclass
class Image:
    """What a stage made: its folder stands for the image's root."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    instructions: dict[str, Instruction] = field(default_factory=dict)
    directory: str = "/"

    def real(self, path: str) -> str:
        """A path of the image, or several in a list or a command, in this folder."""
        return re.sub(rf"(?<![\w.-])({'|'.join(INSIDE)})(?![\w-])", rf"{self.root}\1", path)

    def path(self, path: str) -> Path:
        """A path of the image, relative ones from its working directory."""
        absolute = str(PurePosixPath(self.directory) / path)
        assert absolute.startswith(INSIDE), f"{absolute} is not known to be of the image"
        return Path(str(self.root) + absolute)


class Failed(Exception):
    """A RUN instruction did not succeed; the text is what it said."""


def build(root: Path, folder: Path, python: str) -> Image:
    """Carries out the Dockerfile of `root`, with this Python as that of the base image.

    The RUN instructions of the last stage change the base image's users and programs, not this machine's:
    they are left out. Raises Failed.
    """
    context = Context(root)
    wrapper = folder / "bin" / "python"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    wrapper.chmod(0o755)
    images: dict[str, Image] = {}
    stages = read_stages(root / "Dockerfile")
    image = Image(folder)
    for number, stage in enumerate(stages):
        name = stage[0].words[-1] if " AS " in stage[0].value else str(number)
        image = images[name] = Image(folder / name)
        image.root.mkdir()
        for instruction in stage:
            match instruction.name:
                case "COPY":
                    _copy(instruction, image, context, images)
                case "RUN" if number < len(stages) - 1:
                    _run(instruction, image, f"{wrapper.parent}:/usr/bin:/bin")
                case "ENV":
                    image.environment |= dict(word.split("=", 1) for word in instruction.words)
                case "WORKDIR":
                    image.directory = instruction.value
                case "FROM" | "RUN" | "ARG" | "LABEL" | "USER" | "EXPOSE" | "STOPSIGNAL" | "HEALTHCHECK" | "CMD":
                    image.instructions[instruction.name] = instruction
                case unknown:
                    raise NotImplementedError(unknown)
    for other in images.values():
        if other is not image:
            shutil.rmtree(other.root)  # nothing of it may be needed
    return image


def _copy(instruction: Instruction, image: Image, context: Context, images: dict[str, Image]) -> None:
    *sources, target = [word for word in instruction.words if not word.startswith("--")]
    goal = image.path(target)
    stage = re.search(r"--from=(\w+)", instruction.value)
    if stage:
        assert len(sources) == 1
        goal.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", str(images[stage[1]].path(sources[0])), str(goal)], check=True)
        return
    assert target.endswith("/"), "a copy to a file is not known here"
    for source in sources:
        found = [path for path in context.files() if _fits(path, source)]
        assert found, f"COPY {source} finds nothing that .dockerignore lets through"
        for path in found:
            is_folder = (context.root / source).is_dir()
            copy = goal / (Path(path).relative_to(source) if is_folder else Path(path).name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(context.root / path, copy)


def _fits(path: str, source: str) -> bool:
    source = source.rstrip("/")
    return path.startswith(source + "/") or (path.count("/") == source.count("/") and fnmatch(path, source))


def _run(instruction: Instruction, image: Image, path: str) -> None:
    directory = image.path(".") if image.directory != "/" else image.root
    directory.mkdir(parents=True, exist_ok=True)
    # Of the machine's environment only what tells pip where packages are.
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME", "XDG_", "SSL_"))}
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", image.real(instruction.value)],
        cwd=directory,
        env=kept | {"PATH": path, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(done.stdout)
