"""Servers of another version, and what stands in front of them."""

from collections.abc import Iterator

import pytest

from tests.support.debian import need_debians_postgresql
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="package")
def debian() -> Iterator[PostgresServer]:
    """PostgreSQL 15, with rights as they are since that version: nobody but the owner may create in `public`."""
    server = PostgresServer(programs=need_debians_postgresql())
    yield server
    server.close()


@pytest.fixture(params=["embedded", "debian"])
def either(request: pytest.FixtureRequest, postgres: PostgresServer) -> PostgresServer:
    """The embedded PostgreSQL, or Debian's."""
    server: PostgresServer = postgres if request.param == "embedded" else request.getfixturevalue("debian")
    return server
