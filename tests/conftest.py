"""Fixtures that every test may use. Anything with `default` in its name is shared: bring your own ids."""

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from database.migrations import migrate
from tests.support.backends import LlmStub, McpStub
from tests.support.card_qna import build_card_qna
from tests.support.cluster import Cluster
from tests.support.gateway import Gateway, live_gateways
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import dismiss_guardian
from tests.support.statements import ChatDb, open_pool
from tests.support.world import GatewayFactory, NewGateway, NewWorld, World, add_personas

if TYPE_CHECKING:
    from tests.support.parts import Parts

LONGEST = (
    "page/test_browsers.py",
    "page/test_connection.py",
    "page/test_looks.py",
    "security/test_abuse.py",
    "instance/test_stopping.py",
    "instance/test_lost_machine.py",
    "observability/test_metrics.py",
    "turn/test_database.py",
)
_OUTPUT_SHOWN = 6000  # characters of a gateway's output in the report of a failed test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).as_posix() not in LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the gateways said belongs to the report of a failure."""
    report = yield
    if report.failed:
        for gateway in live_gateways:
            report.sections.append((f"gateway on {gateway.port}", gateway.output()[-_OUTPUT_SHOWN:]))
    return report


def pytest_unconfigure() -> None:
    """Whatever is left goes with the test run."""
    dismiss_guardian()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Coroutine tests (`@pytest.mark.anyio`) run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL of this test run."""
    server = PostgresServer()
    yield server
    server.stop(immediately=True)  # its files, which may be many, are removed after the last test


@pytest.fixture(scope="session")
def card_qna_template(postgres: PostgresServer) -> Database:
    """A card_qna_db with integer ids; never connected to by a gateway."""
    return build_card_qna(postgres.database(prefix="qna_template"))


@pytest.fixture(scope="session")
def llm() -> Iterator[LlmStub]:
    """The LLM server of this test run."""
    stub = LlmStub()
    yield stub
    stub.stop()


@pytest.fixture(scope="session")
def mcp() -> Iterator[McpStub]:
    """The MCP server of this test run."""
    stub = McpStub()
    yield stub
    stub.stop()


@pytest.fixture(scope="session")
def new_world(postgres: PostgresServer, card_qna_template: Database, llm: LlmStub, mcp: McpStub) -> NewWorld:
    """Makes a world with databases of its own: an empty ChatDB and a filled card_qna_db, unless given."""

    def make(chatdb: Database | None = None, card_qna: Database | None = None) -> World:
        return World(
            chatdb or postgres.database(prefix="chatdb"),
            card_qna or postgres.database(card_qna_template, prefix="card_qna"),
            llm,
            mcp,
        )

    return make


@pytest.fixture(scope="session")
def default_world(new_world: NewWorld) -> World:
    """The world of the default gateway; its tables are never renamed or emptied."""
    return new_world()


@pytest.fixture(scope="session")
def default_gateway(default_world: World) -> Iterator[Gateway]:
    """One gateway for all tests that need nothing special; started by uvicorn's command.

    Whatever the tests did to it, it must not have met an error that it did not expect.
    """
    with Gateway(default_world.settings) as gateway:
        add_personas(default_world.chatdb, "김하늘", "이바다", "박별")
        yield gateway
        gateway.stop()
        for word in ("Traceback", "never retrieved", "never awaited", "Warning:"):
            assert word not in gateway.output()


@pytest.fixture(scope="session")
def three(new_world: NewWorld) -> Iterator[Cluster]:
    """Three instances for all tests that leave them as they found them: bring your own sessions, end no instance."""
    with Cluster(new_world()) as cluster:
        add_personas(cluster.world.chatdb, "김하늘", "이바다", "박별")
        yield cluster


@pytest.fixture(scope="session")
def personas(three: Cluster) -> list[int]:
    """The ids of the personas that `three` have."""
    return [row["id"] for row in three.world.chatdb.fetch('SELECT id FROM "Persona" ORDER BY id')]


@pytest.fixture
def new_gateway() -> Iterator[NewGateway]:
    """Starts gateways that end with the test: `new_gateway(world, **more settings)`.

    Keyword arguments in lower case are those of `Gateway`, those in upper case are settings.
    """
    with GatewayFactory() as factory:
        yield factory.make


@pytest.fixture(scope="module")
async def db(postgres: PostgresServer) -> AsyncIterator[ChatDb]:
    """A ChatDB of a file, up to date, in which no gateway runs."""
    made = postgres.database(prefix="statements")
    database = await open_pool("chatdb", made.url, size=6)
    await migrate(database)
    yield ChatDb(database, made.url)
    await database.close()


@pytest.fixture
async def here(db: ChatDb, world: World) -> AsyncIterator["Parts"]:
    """An instance without its process."""
    from tests.support.parts import parts  # most tests do without what this imports

    async with parts(db, world) as here:
        yield here


@pytest.fixture
async def there(db: ChatDb, world: World) -> AsyncIterator["Parts"]:
    """Another one."""
    from tests.support.parts import parts

    async with parts(db, world) as there:
        yield there
