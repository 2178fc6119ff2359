"""Several servers in an address: the one that can be written to is used, also when it becomes another one."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.postgres import installation
from tests.faults.visitors import Crowd
from tests.support.backends import McpStub, recommendation
from tests.support.card_qna import build_card_qna
from tests.support.cluster import Cluster, Tally, tally
from tests.support.debian import need_debians_postgresql
from tests.support.gateway import environment
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import Process
from tests.support.waiting import become, eventually
from tests.support.world import NewWorld, add_personas

pytestmark = pytest.mark.anyio

VISITORS = 8
DURABLE = {
    "wal_level": "replica",
    "max_wal_senders": "5",
    "synchronous_commit": "on",
    "listen_addresses": "127.0.0.1,::1",
}


@dataclass
class Pair:
    """A server and its synchronous standby, one of them reached over IPv6."""

    primary: PostgresServer
    standby: PostgresServer

    def url(self, database: Database) -> str:
        """The standby first: whoever does not look takes the wrong one."""
        servers = f"[::1]:{self.standby.port},127.0.0.1:{self.primary.port}"
        return f"postgresql://postgres:not-checked@{servers}/{database.name}?target_session_attrs=read-write"


CRASH, SILENCE = "crash", "silence"


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    programs = need_debians_postgresql() if request.param == "debian" else installation() / "bin"
    primary = PostgresServer(programs=programs, options=DURABLE)
    standby = PostgresServer(programs=programs, standby_of=primary, options=DURABLE)
    primary.admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
    primary.admin.execute("SELECT pg_reload_conf()")
    state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
    eventually(lambda: primary.admin.value(state), what="the standby is synchronous")
    yield Pair(primary, standby)
    if request.param == "embedded":
        primary.thaw()
    for server in (standby, primary):
        server.close()


@pytest.mark.parametrize(("pair", "end"), [("debian", CRASH), ("embedded", SILENCE)], indirect=["pair"])
async def test_a_failover_under_load_loses_nothing_and_answers_go_on_within_a_second_of_it(
    pair: Pair, new_world: NewWorld, mcp: McpStub, end: str, tmp_path: Path
) -> None:
    """Both databases, LISTEN and seed_personas.py. A silent server is left when a statement ran out of time."""
    world = new_world(pair.primary.database(), build_card_qna(pair.primary.database()))
    urls = {"DATABASE_URL": pair.url(world.chatdb), "FAQ_DATABASE_URL": pair.url(world.card_qna)}
    with Cluster(world, 2, **urls, DB_TIMEOUT="1", PROMPTS_PER_MINUTE="100000") as cluster:
        (persona_id,) = add_personas(world.chatdb, "김하늘")
        async with Crowd(list(cluster), VISITORS) as crowd:
            crowd.talk()
            await crowd.more_answers()
            pair.primary.stop(immediately=True) if end == CRASH else pair.primary.freeze()
            await become(lambda: any("run again" in g.output() or "failed" in g.output() for g in cluster))
            pair.standby.promote()
            in_recovery = "SELECT pg_is_in_recovery()"
            await become(lambda: not pair.standby.admin.value(in_recovery), what="the promotion")
            promoted_at, answered = time.monotonic(), crowd.answered
            await become(lambda: crowd.answered > answered, what="an answer")
            seconds = time.monotonic() - promoted_at
            await crowd.more_answers()
            visitor = crowd.visitors[0]
            mcp.default = lambda call: recommendation("추천", [])
            await become(lambda: all(g.http.get("/api/health/ready").status_code == 200 for g in cluster))
            body = {"session_id": visitor.session_id, "persona_id": persona_id}
            assert cluster.other(visitor.gateway).http.post("/api/login", json=body).status_code == 200
            await visitor.until(lambda: visitor.pushes)
            await crowd.finish()
            sessions = [str(visitor.session_id) for visitor in crowd.visitors]
            sent = sum(len(visitor.sent) for visitor in crowd.visitors)
            assert [visitor.problems for visitor in crowd.visitors] == [[]] * VISITORS
    survivor = Database(pair.standby, world.chatdb.name)
    assert tally(survivor, *sessions) == Tally(sent, sent, 0, 0)
    assert seconds < (1 if end == CRASH else 2), "a statement may still run out of its second"
    file = tmp_path / "personas.json"
    file.write_text(json.dumps([{"name": "이바다"}]), "utf-8")
    values = environment({"DATABASE_URL": urls["DATABASE_URL"], "PREPARED_STATEMENTS": "false"})
    seeding = Process([sys.executable, "seed_personas.py", str(file)], environment=values)
    assert seeding.wait(30) == 0, seeding.output()
    assert "1 added" in seeding.output()
