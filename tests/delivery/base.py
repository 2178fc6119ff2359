"""A stand-in for `python:3.12-slim`, made of the files of this machine's own Debian packages in a second or two."""

import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

# What the image's RUN steps and what they start need; with Debian's own Python.
PACKAGES = ["base-files", "bash", "coreutils", "dash", "findutils", "grep", "libc-bin", "passwd", "python3-venv", "sed"]
KINDS = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"]
PYTHON = Path("/usr/bin/python3").resolve()
LEFT_OUT = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/i18n", "/usr/share/info", "/var/lib")
FILES_OF_THE_SYSTEM = {
    "/etc/passwd": "/usr/share/base-passwd/passwd.master",
    "/etc/group": "/usr/share/base-passwd/group.master",
    "/etc/ld.so.cache": "/etc/ld.so.cache",
}


def packages(*names: str) -> list[str]:
    """These packages of Debian and all that they depend on, as far as they are installed."""
    command = ["apt-cache", "depends", "--recurse", "--installed", *(f"--no-{kind}" for kind in KINDS), *names]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if line[0] not in " |<"]


def files(*names: str) -> Iterator[Path]:
    """The files of these packages, where they really lie."""
    command = ["dpkg-query", "--listfiles", *packages(*names)]
    # Which fails where of two alternatives one is not installed, and lists all the others.
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in sorted(set(listed.stdout.splitlines())):
        path = Path(line)
        if line.startswith("/") and line != "/." and not line.startswith(LEFT_OUT) and path.exists():
            if path.name == "EXTERNALLY-MANAGED":  # pip may be removed from the Python image's Python
                continue
            yield path.parent.resolve() / path.name


def write_layer(target: Path, *names: str) -> None:
    """An archive of the files of these packages."""
    with tarfile.open(target, "w") as layer:
        for path in sorted(set(files(*names))):
            layer.add(path, recursive=False)


def write_base(target: Path) -> None:
    """An archive that an engine imports as an image: `python` with pip, as the Python image has them."""
    write_layer(target, *PACKAGES)
    with tarfile.open(target, "a") as layer:
        for name, source in FILES_OF_THE_SYSTEM.items():
            layer.add(source, arcname=name)
        _add(layer, "/usr/local/bin/python", kind=tarfile.SYMTYPE, to=str(PYTHON))
        (wheel,) = Path("/usr/share/python-wheels").glob("pip-*.whl")
        with zipfile.ZipFile(wheel) as parts:
            for name in parts.namelist():
                _add(layer, f"/usr/local/lib/{PYTHON.name}/dist-packages/{name}", parts.read(name))
        wheels = b"[global]\nno-index = true\nfind-links = /wheels\n"
        _add(layer, "/etc/pip.conf", wheels)
        _add(layer, "/wheels", kind=tarfile.DIRTYPE)


def _add(layer: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> None:
    info = tarfile.TarInfo(name.lstrip("/"))
    info.size, info.type, info.linkname = len(content), kind, to
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    layer.addfile(info, BytesIO(content))
