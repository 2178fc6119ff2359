"""Sockets that have opted in, on the shared three instances."""

from collections.abc import AsyncIterator

import pytest

from tests.support.cluster import Cluster
from tests.support.streams import Reader, watching
from tests.support.world import World


@pytest.fixture(scope="session")
def world(three: Cluster) -> World:
    """The world of the shared three instances."""
    return three.world


@pytest.fixture
async def reader(three: Cluster) -> AsyncIterator[Reader]:
    """A new session on the first of them."""
    async with watching(three[0]) as reader:
        yield reader
