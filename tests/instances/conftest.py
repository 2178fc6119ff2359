"""Three instances for the tests that leave them as they found them."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.cluster import Cluster
from tests.support.world import NewWorld, add_personas


@dataclass(frozen=True)
class Three:
    """Three instances on one database, and the personas in it."""

    cluster: Cluster
    personas: list[int]


@pytest.fixture(scope="package")
def three(new_world: NewWorld) -> Iterator[Three]:
    """Shared by the package: bring your own sessions, and end no instance."""
    with Cluster(new_world()) as cluster:
        yield Three(cluster, add_personas(cluster.world.chatdb, "김하늘", "이바다", "박별"))
