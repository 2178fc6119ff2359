"""Three instances for the tests that leave them as they found them."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.world import NewWorld, add_personas


@pytest.fixture(scope="package")
def three(new_world: NewWorld) -> Iterator[Cluster]:
    """Shared by the package: bring your own sessions, and end no instance."""
    with Cluster(new_world()) as cluster:
        add_personas(cluster.world.chatdb, "김하늘", "이바다", "박별")
        yield cluster
