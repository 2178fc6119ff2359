"""Under somebody's long transaction the dead rows of hot tables stay: no statement of a turn may walk over them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.backends import Hang, answer
from tests.support.background import background
from tests.support.chat import visit
from tests.support.cluster import Cluster, SignsOfLife, Tally, beats, tally
from tests.support.gateway import Gateway
from tests.support.postgres import Database
from tests.support.processes import ROOT
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

DEAD_TURNS, SESSIONS, UPDATES = 80_000, 3_000, 10
ONE, MANY = 1, 50  # rows in a shared statement
# Pages for one row, many times fewer than the dead rows take: of each index some, and of the tables one or two.
PAGES = 60


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> Iterator[World]:
    """A ChatDB in which a report has begun before many turns came and went."""
    world = new_world()
    with Gateway(world.settings) as gateway:
        gateway.stop()
    chatdb = world.chatdb
    chatdb.execute(
        'ALTER TABLE "Turn" DROP CONSTRAINT "Turn_prompt_id_fkey";'
        'INSERT INTO "ChatSession" (session_id, instance_id, connection_no)'
        f" SELECT gen_random_uuid(), 1, 1 FROM generate_series(1, {SESSIONS});"
    )
    report = background.run(asyncpg.connect(chatdb.url))
    background.run(report.execute('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM "Chat"'))
    chatdb.execute(
        'INSERT INTO "Turn" (prompt_id, session_id, instance_id)'
        f" SELECT gen_random_uuid(), gen_random_uuid(), n % 3 FROM generate_series(1, {DEAD_TURNS}) AS n;"
        'DELETE FROM "Turn";'
        f"DO $$ BEGIN FOR n IN 1..{UPDATES} LOOP"
        ' UPDATE "ChatSession" SET last_answer_at = clock_timestamp(); END LOOP; END $$;'
    )
    chatdb.execute("ANALYZE")  # which sees that hardly a row is left
    yield world
    background.run(report.close())


async def _pages(chatdb: Database, statement: str, arguments: list[Any]) -> int:
    connection = await asyncpg.connect(chatdb.url)
    try:
        await connection.execute("BEGIN; SET LOCAL session_replication_role = replica")  # no foreign keys
        text = (ROOT / "sql" / "chatdb" / f"{statement.split(maxsplit=1)[0]}.sql").read_text("utf-8")
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *arguments)
        return sum(_scanned(json.loads(plan)[0]["Plan"]))
    finally:
        await connection.close()


def _scanned(node: dict[str, Any]) -> Iterator[int]:
    """The pages that each scan of a table has read."""
    if "Relation Name" in node and "Scan" in node["Node Type"]:
        yield node["Shared Hit Blocks"] + node["Shared Read Blocks"]
    for below in node.get("Plans", ()):
        yield from _scanned(below)


def arguments_of(statement: str, sessions: list[UUID]) -> list[Any]:
    """For a call with a row for each session."""
    n = len(sessions)
    prompts, answers, none, ones = [uuid4() for _ in sessions], [uuid4() for _ in sessions], [None] * n, [1] * n
    texts, then = ["안녕하세요"] * n, [datetime(2026, 1, 1, tzinfo=UTC)] * n
    found: dict[str, list[Any]] = {
        "store_prompts": [prompts, sessions, texts, ones, none],
        "store_answers": [sessions, prompts, answers, texts, none, ["{}"] * n, none, [False] * n, none],
        "store_answers with prompts": [sessions, prompts, answers, texts, none, ["{}"] * n, none, [False] * n, texts],
        "take_turns": [1, prompts, False],
        "list_stopped_turns": [1],
        "renew_instance": [1, 0x6761_7465, 5, False],
        "claim_prompt": [prompts[0], sessions[0], 1],
        "stop_turn": [prompts[0], sessions[0]],
        "list_open_turns": [sessions[0], 1],
        "get_persona_ids": [sessions],
        "tie_personas": [sessions, ones, [100] * n],
        "list_unsent_answers": [sessions, then],
        "end_sessions": [sessions, ones],
        "resume_session": [sessions[0], 1, 24.0],
        "reclaim_sessions": [1, sessions, ones, then],
    }
    return found[statement]


HOT = (
    "store_prompts", "store_answers", "take_turns", "list_stopped_turns", "renew_instance", "claim_prompt", "stop_turn",
    "list_open_turns", "get_persona_ids", "tie_personas", "list_unsent_answers", "end_sessions",
    "reclaim_sessions", "resume_session", "store_answers with prompts",
)  # fmt: skip


@pytest.mark.parametrize("rows", [ONE, MANY])
@pytest.mark.parametrize("statement", HOT)
def test_a_statement_of_a_turn_reads_few_pages(world: World, statement: str, rows: int) -> None:
    found = world.chatdb.fetch(f'SELECT session_id FROM "ChatSession" ORDER BY created_at LIMIT {rows}')
    arguments = arguments_of(statement, [UUID(str(row["session_id"])) for row in found])
    pages = background.run(_pages(world.chatdb, statement, arguments))
    assert pages <= PAGES * rows, statement


@pytest.fixture(scope="module")
def cluster(world: World) -> Iterator[Cluster]:
    with Cluster(world, 2) as cluster:
        yield cluster


async def test_signs_of_life_rewrite_no_row(cluster: Cluster) -> None:
    """Unless somebody does not look for them where they are shown, as instances of earlier versions do not."""
    chatdb = cluster.world.chatdb
    rows = 'SELECT xmin::text, * FROM "Instance" ORDER BY id'
    await become(lambda: len(beats(chatdb)) == 2 and min(beats(chatdb).values()) > 0, what="both show signs")
    before, signs = chatdb.fetch(rows), SignsOfLife(chatdb)
    await become(lambda: signs.all_showed(2), what="two signs of each")
    assert chatdb.fetch(rows) == before
    chatdb.execute('INSERT INTO "Instance" DEFAULT VALUES')
    written = [row["beat"] for row in before]
    await become(lambda: [row["beat"] for row in chatdb.fetch(rows)][:2] > written, what="they write theirs down")


async def test_turns_of_an_instance_that_was_lost_are_found_among_dead_rows(cluster: Cluster) -> None:
    """Although nobody looks through them as long as nothing happens."""
    text, world = unique("누가 답하나요"), cluster.world
    world.llm.on(text, Hang(), answer("찾았습니다."))
    mortal = cluster.launch()
    mortal.wait_until_healthy()
    async with visit(mortal) as visitor:
        await visitor.prompt(text)
        await world.llm.called(query=text)
        mortal.kill()
    await become(lambda: tally(world.chatdb, visitor.session_id) == Tally(1, 1, 0, 0), what="another has answered")
