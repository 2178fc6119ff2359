"""Several instances on one database, and what their ChatDB holds when all is done."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode
from uuid import UUID

import asyncpg
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.support.background import background
from tests.support.chat import Frame, Visitor, receive, visit
from tests.support.gateway import Gateway
from tests.support.keys import key_of, protocols
from tests.support.postgres import Database
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.world import World

# An instance shows a sign of life every second. What the contract gives it seconds for is counted in these signs, of
# which a busy machine makes fewer: the five in which an instance is missed, and one that comes while they are counted.
NOTICED_SIGNS = 6


class Cluster:
    """Instances in one world, started side by side; use it as a context manager.

    Keyword arguments in upper case are settings of all of them, those in lower case are `Gateway`'s.
    """

    def __init__(self, world: World, size: int = 3, **more: Any) -> None:
        self.world = world
        self._more = more
        self.gateways: list[Gateway] = []
        try:
            for _ in range(size):
                self.launch()
            for gateway in self.gateways:
                gateway.wait_until_healthy()
        except BaseException:
            self.close()
            raise

    def launch(self) -> Gateway:
        """Start one more instance, without waiting for it."""
        settings = self.world.settings | {name: value for name, value in self._more.items() if name.isupper()}
        options = {name: value for name, value in self._more.items() if not name.isupper()}
        gateway = Gateway(settings, **options)
        self.gateways.append(gateway)
        return gateway.launch()

    def other(self, *gateways: Gateway) -> Gateway:
        """The first instance that is none of these."""
        return next(gateway for gateway in self.gateways if gateway not in gateways)

    def close(self) -> None:
        """End all instances without asking how."""
        for gateway in self.gateways:
            gateway.close()

    def __iter__(self) -> Iterator[Gateway]:
        return iter(self.gateways)

    def __getitem__(self, number: int) -> Gateway:
        return self.gateways[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Visitors who come back


@asynccontextmanager
async def resume(gateway: Gateway, session_id: str, since: str | None = None, **options: Any) -> AsyncIterator[Visitor]:
    """Go on with a session, which must work; `since` is escaped as it must be in a URL."""
    query = urlencode({"session_id": session_id} | ({} if since is None else {"since": since}))
    options.setdefault("subprotocols", protocols(key_of(session_id)))
    async with visit(gateway, query=query, **options) as visitor:
        assert visitor.hello == {"session_id": session_id, "resumed": True}
        yield visitor


async def until_closed(socket: ClientConnection, seconds: float = PATIENCE_SECONDS) -> tuple[list[Frame], int, str]:
    """All frames until the server closes the socket, its close code and its reason."""
    frames: list[Frame] = []
    try:
        while True:
            frames.append(await receive(socket, seconds))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, f"cut without a close frame after {frames}"
        return frames, closed.rcvd.code, closed.rcvd.reason


async def receive_all(visitor: Visitor, count: int, seconds: float = PATIENCE_SECONDS) -> list[Frame]:
    """The next `count` frames."""
    return [await visitor.receive(seconds) for _ in range(count)]


# What is in the database


@dataclass(frozen=True)
class Tally:
    """Prompts of a database or a session, those with an answer, those without, and answers beyond one to a prompt."""

    prompts: int
    answers: int
    lost: int
    doubled: int


def tally(database: Database, *session_ids: str) -> Tally:
    """Count; all sessions unless some are named. Pushes do not count as answers."""
    row = database.fetchrow(
        "WITH turn AS ("
        '  SELECT p.id, (SELECT count(*) FROM "ChatbotResponse" r JOIN "Chat" a ON a.id = r.chat_id'
        "                WHERE r.prompt_chat_id = p.id AND r.source_tool IS DISTINCT FROM 'consumption_recommend') AS n"
        '  FROM "Chat" p WHERE p.is_user AND (cardinality($1::text[]) = 0 OR p.session_id::text = ANY ($1::text[])))'
        " SELECT count(*) AS prompts, count(*) FILTER (WHERE n > 0) AS answers,"
        " count(*) FILTER (WHERE n = 0) AS lost, COALESCE(sum(n - 1) FILTER (WHERE n > 1), 0)::bigint AS doubled"
        " FROM turn",
        list(session_ids),
    )
    return Tally(**row)


def answers_of(database: Database, session_id: str) -> list[dict[str, Any]]:
    """Answers and pushes of a session in the order of their times: `message_id`, `content`, `created_at`."""
    return database.fetch(
        "SELECT COALESCE(r.prompt_chat_id, c.id)::text AS message_id, c.content, c.created_at, r.push_no"
        ' FROM "Chat" c JOIN "ChatbotResponse" r ON r.chat_id = c.id'
        " WHERE c.session_id = $1::text::uuid AND NOT c.is_user ORDER BY c.created_at",
        session_id,
    )


def prompts_of(database: Database, session_id: str) -> list[str]:
    """The ids of a session's prompts in their order."""
    rows = database.fetch(
        'SELECT id::text FROM "Chat" WHERE session_id = $1::text::uuid AND is_user ORDER BY created_at', session_id
    )
    return [row["id"] for row in rows]


def instance_ids(database: Database) -> list[int]:
    """The instances that are registered."""
    return [row["id"] for row in database.fetch('SELECT id FROM "Instance" ORDER BY id')]


def holder_of(database: Database, session_id: str) -> int | None:
    """The instance that holds a session's socket, as the database has it."""
    held: int | None = database.value(
        'SELECT instance_id FROM "ChatSession" WHERE session_id = $1::text::uuid', session_id
    )
    return held


def beats(database: Database) -> dict[int, int]:
    """How often each instance has shown a sign of life, in its row or on its LISTEN connection."""
    rows = database.fetch(
        "SELECT i.id, GREATEST(i.beat, max(substring(a.application_name FROM ' beat (.+)')::bigint)) AS beat"
        ' FROM "Instance" i LEFT JOIN pg_stat_activity a'
        "   ON a.datname = current_database() AND a.application_name LIKE format('gateway %s beat %%', i.id)"
        " GROUP BY i.id"
    )
    return {row["id"]: row["beat"] for row in rows}


class SignsOfLife:
    """Those that instances show from now on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._before = beats(database)

    @property
    def shown(self) -> int:
        """The most that any instance has shown."""
        return max(beat - self._before.get(id, 0) for id, beat in beats(self._database).items())

    def all_showed(self, count: int, *, but: int | None = None) -> bool:
        """Whether each instance but one has shown so many."""
        return all(beat >= self._before.get(id, 0) + count for id, beat in beats(self._database).items() if id != but)


def kill_backends(database: Database, where: str = "true", at_least: int = 1) -> int:
    """End the database's connections for which a condition on pg_stat_activity holds; how many they were.

    With fewer than `at_least` none is ended: what comes back one by one would never be there together.
    """
    count: int = database.server.admin.value(
        "WITH found AS MATERIALIZED (SELECT pid FROM pg_stat_activity"
        f" WHERE datname = $1 AND pid <> pg_backend_pid() AND ({where}))"
        " SELECT count(pg_terminate_backend(pid)) FROM found WHERE (SELECT count(*) FROM found) >= $2",
        database.name,
        at_least,
    )
    return count


def connections(database: Database) -> int:
    """How many connections the database has, this question's own not counted."""
    count: int = database.server.admin.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'", database.name
    )
    return count


@contextmanager
def _in_transaction(database: Database, statement: str) -> Iterator[None]:
    async def begin() -> "asyncpg.Connection[asyncpg.Record]":
        connection = await asyncpg.connect(database.url)
        await connection.execute("BEGIN")
        await connection.execute(statement)
        return connection

    connection = background.run(begin())
    try:
        yield
    finally:
        background.run(connection.close())


def locked(database: Database, table: str, mode: str = "SHARE") -> AbstractContextManager[None]:
    """Hold a lock on a table: with SHARE whoever writes to it waits, whoever reads does not."""
    return _in_transaction(database, f'LOCK TABLE "{table}" IN {mode} MODE')


def session_locked(database: Database, session_id: str) -> AbstractContextManager[None]:
    """Hold the lock on a session's row: whoever stores an answer of it, or opens or ends it, waits."""
    row = str(UUID(session_id))
    return _in_transaction(database, f"SELECT FROM \"ChatSession\" WHERE session_id = '{row}' FOR NO KEY UPDATE")


def waiting_for_locks(database: Database) -> int:
    """How many statements wait for a lock."""
    count: int = database.server.admin.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'", database.name
    )
    return count


def persona_id(gateway: Gateway, session_id: str) -> tuple[int, Any]:
    """What an instance answers to the MCP server's question: the status, and the persona or the whole answer."""
    response = gateway.http.post("/api/login/persona_id", json={"session_id": session_id})
    body = json.loads(response.text)
    return response.status_code, body["persona_id"] if response.status_code == 200 else body
