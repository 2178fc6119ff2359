"""An engine with the image in it, built once."""

from collections.abc import Iterator

import pytest

from tests.delivery.engine import Engine, needs
from tests.support.processes import free_port, temporary_directory

VERSION = "1.2.3"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """With the stand-in for the Python image, and the gateway's image as build.sh makes it."""
    needs("podman", "runc", "netavark", "iptables", "dpkg-query", why="the image cannot be built")
    engine = Engine(temporary_directory("gateway-engine-"), free_port())
    try:
        engine.make_base()
        built = engine.script("build.sh", VERSION)
        assert built.returncode == 0, built.stdout + built.stderr
        yield engine
    finally:
        engine.close()
