"""Three instances and all that is around them, to be broken; each test leaves them whole."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults import ledger
from tests.faults.scale import LONG, SCALE
from tests.support.backends import Call, LlmStub, McpStub, Receive, Reply, Send, answer, recommendation
from tests.support.card_qna import build_card_qna
from tests.support.cluster import Cluster
from tests.support.postgres import Database, PostgresServer
from tests.support.world import World, add_personas, unique

_ROWS = 23
_version = pytest.StashKey[str]()


@dataclass
class Thoughtful:
    """Reply with `then`, after a while."""

    then: Reply

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Think, then serve."""
        await asyncio.sleep(random.uniform(*SCALE.thinking))
        await self.then.serve(call, receive, send)


def think(call: Call) -> Reply:
    """What the LLM server does by default in these tests."""
    return Thoughtful(answer(f"re: {call.field('query')}"))


@pytest.fixture(scope="package")
def server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """A server of its own for both databases, which is stopped and frozen."""
    server = PostgresServer()
    pytestconfig.stash[_version] = str(server.admin.value("SHOW server_version")).split()[0]
    yield server
    server.close()


@pytest.fixture(scope="package")
def world(server: PostgresServer) -> Iterator[World]:
    """Databases and backends that only these tests use."""
    card_qna: Database = build_card_qna(server.database(prefix="card_qna"))
    with LlmStub() as llm, McpStub() as mcp:
        llm.default = think
        mcp.default = lambda call: Thoughtful(recommendation(unique("추천"), ["카드의정석2"]))
        yield World(server.database(prefix="chatdb"), card_qna, llm, mcp)


@pytest.fixture(scope="package")
def cluster(world: World) -> Iterator[Cluster]:
    """Three instances. Whoever ends one starts it again."""
    with Cluster(world, PROMPTS_PER_MINUTE="100000", MAX_PENDING_PROMPTS="100", **SCALE.settings) as cluster:
        add_personas(world.chatdb, "김하늘", "이바다", "박별")
        yield cluster


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The long form shows its table, and keeps it if no row is missing."""
    if LONG and ledger.rows:
        terminalreporter.write_line("\n" + ledger.table())
        if len(ledger.rows) == _ROWS:
            ledger.write_results(config.stash[_version])
        else:
            terminalreporter.write_line(f"{len(ledger.rows)} of {_ROWS} rows: not written to {ledger.RESULTS.name}")
