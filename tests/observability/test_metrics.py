"""/metrics: what happened is counted, once and under its name, whichever worker is asked."""

import http.client
import re
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import InvalidStatus

from tests.observability import provoke
from tests.observability.conftest import Cuttable, Pair, TakenOver
from tests.observability.scrape import Scrape, difference, scrape
from tests.support.backends import Held, Stream, answer, event
from tests.support.card_qna import FAQS
from tests.support.chat import visit
from tests.support.cluster import holder_of, instance_ids
from tests.support.gateway import Gateway
from tests.support.keys import key_of, protocols
from tests.support.waiting import become, eventually
from tests.support.world import NewGateway, NewWorld, unique

pytestmark = pytest.mark.anyio

PARTS = ("store_prompt", "wait", "upstream", "store_answer", "send")
COUNTED = (
    "gateway_sessions_opened", "gateway_prompts", "gateway_turn_seconds", "gateway_upstream_calls", "gateway_pushes",
    "gateway_caught_up_answers", "gateway_turns_taken_over", "gateway_first_delta_seconds",
)  # fmt: skip

Counts = dict[str, float]
NEW: Counts = {"gateway_sessions_opened_total{new}": 1}
KNOWN: Counts = NEW | {f"gateway_turn_seconds_count{{{part}}}": 1 for part in ("store_answer", "send")}
DISPATCHED: Counts = (
    NEW | {f"gateway_turn_seconds_count{{{part}}}": 1 for part in PARTS} | {"gateway_prompts_total{llm}": 1}
)
FAILED: Counts = {name.replace("{llm}", "{llm_failed}"): count for name, count in DISPATCHED.items()}
BY_LLM: Counts = DISPATCHED | {"gateway_upstream_calls_total{llm,ok}": 1}
STREAMED: Counts = {"gateway_first_delta_seconds_count{}": 1}
BY_FAQ: Counts = KNOWN | {"gateway_prompts_total{faq}": 1}
TWICE = {name: 2.0 * count for name, count in BY_LLM.items()} | NEW
TWELVE = {name: 12.0 * count for name, count in BY_FAQ.items()} | NEW
LOGIN: Counts = {"gateway_upstream_calls_total{mcp,ok}": 1}

Provoke = Callable[[Pair], Coroutine[Any, Any, None]]

# What each adds on the first of the two instances.
EXPECTED: dict[Provoke, Counts] = {
    provoke.ask_llm: BY_LLM,
    provoke.ask_faq: BY_FAQ,
    provoke.ask_term: KNOWN | {"gateway_prompts_total{term}": 1},
    provoke.ask_for_a_stream: BY_LLM | STREAMED,
    provoke.stop: STREAMED
    | {name: count for name, count in DISPATCHED.items() if name != "gateway_prompts_total{llm}"}
    | {"gateway_prompts_total{stopped}": 1, "gateway_upstream_calls_total{llm,stopped}": 1},
    provoke.send_again: BY_LLM
    | {"gateway_prompts_total{duplicate}": 2, "gateway_prompts_total{refused_invalid_json}": 1},
    provoke.send_no_json: NEW | {"gateway_prompts_total{refused_invalid_json}": 1},
    provoke.send_an_invalid_message: NEW | {"gateway_prompts_total{refused_invalid_message}": 1},
    provoke.take_an_id_of_another_session: BY_FAQ
    | {"gateway_sessions_opened_total{new}": 2, "gateway_prompts_total{refused_invalid_message}": 1},
    provoke.send_too_many_at_once: TWICE | {"gateway_prompts_total{refused_pending}": 1},
    provoke.send_too_many_in_a_minute: TWELVE | {"gateway_prompts_total{refused_rate}": 1},
    provoke.come_from_a_foreign_origin: {"gateway_sessions_opened_total{refused_origin}": 1},
    provoke.come_when_it_is_full: {
        "gateway_sessions_opened_total{new}": 6,
        "gateway_sessions_opened_total{refused_full}": 1,
    },
    provoke.come_back: NEW | {"gateway_sessions_opened_total{resumed}": 1},
    provoke.log_in_here: NEW | LOGIN | {"gateway_pushes_total{local}": 1},
    provoke.log_in_for_there: LOGIN | {"gateway_pushes_total{remote}": 1},
    provoke.log_in_from_there: NEW | {"gateway_caught_up_answers_total{}": 1},
    provoke.fail_to_log_in: NEW | {"gateway_upstream_calls_total{mcp,failed}": 1},
    provoke.answer_with_a_status: FAILED | {"gateway_upstream_calls_total{llm,status}": 1},
    provoke.answer_without_sense: FAILED | {"gateway_upstream_calls_total{llm,format}": 1},
    provoke.answer_with_a_reset: FAILED | {"gateway_upstream_calls_total{llm,unreachable}": 1},
}


@pytest.mark.parametrize("what", EXPECTED, ids=[str(getattr(what, "__name__", "fails")) for what in EXPECTED])
async def test_what_happens_is_counted_once_and_nothing_else(pair: Pair, what: Provoke) -> None:
    """Every counter of turns, sessions, calls and pushes, before and after."""
    await provoke.all_gone(pair)
    before = scrape(pair.here)
    await what(pair)
    with suppress(AssertionError):  # what is compared next shows what is missing
        await become(lambda: difference(before, scrape(pair.here), *COUNTED) == EXPECTED[what])
    assert difference(before, scrape(pair.here), *COUNTED) == EXPECTED[what]


async def test_a_turn_that_was_taken_over_is_counted(taken_over: TakenOver) -> None:
    """By the instance that answers it, once, as a prompt like any other."""
    assert difference(taken_over.before, taken_over.after, *COUNTED) == {
        "gateway_turns_taken_over_total{}": 1,
        "gateway_prompts_total{llm}": 1,
        "gateway_upstream_calls_total{llm,ok}": 1,
    } | {f"gateway_turn_seconds_count{{{part}}}": 1 for part in PARTS if part != "store_prompt"}


async def test_the_parts_of_a_turn_add_up_to_what_the_visitor_waited(pair: Pair) -> None:
    """In seconds, and the time of the LLM server stands under `upstream`."""
    message = unique("느린 질문")
    held = Held(answer("드디어"))
    pair.cluster.world.llm.on(message, held)
    async with visit(pair.here) as visitor:
        before, at = scrape(pair.here), time.monotonic()
        await visitor.prompt(message)
        await pair.cluster.world.llm.called(query=message)
        called_at = time.monotonic()
        await become(lambda: scrape(pair.here).value("gateway_oldest_turn_seconds") > 0)
        released_at = time.monotonic()
        held.release()
        await visitor.receive()
    name = "gateway_turn_seconds_sum"
    await become(lambda: scrape(pair.here).value("gateway_turns_in_hand") == 0)
    after, longest = scrape(pair.here), time.monotonic() - at
    parts = {part: after.value(name, part=part) - before.value(name, part=part) for part in PARTS}
    assert parts["upstream"] >= released_at - called_at
    assert released_at - called_at <= sum(parts.values()) <= longest


async def test_gauges_show_what_is_there_now(pair: Pair) -> None:
    """Sessions, turns in hand and the age of the oldest one, within the second in which they are measured."""
    message = unique("들고 있는 질문")
    held = Held(answer("놓았다"))
    pair.cluster.world.llm.on(message, held)
    await provoke.all_gone(pair)
    async with visit(pair.here) as visitor, visit(pair.here):
        await visitor.prompt(message)
        await pair.cluster.world.llm.called(query=message)

        def shown() -> tuple[float, float, bool]:
            now = scrape(pair.here)
            oldest = now.value("gateway_oldest_turn_seconds")
            return now.value("gateway_sessions"), now.value("gateway_turns_in_hand"), 0 < oldest < 5

        await become(lambda: shown() == (2, 1, True), what="two sessions and a turn")
        held.release()
        await visitor.receive()
    await become(lambda: shown() == (0, 0, False), what="nothing left")
    now = scrape(pair.here)
    assert now.value("gateway_listen_age_seconds") < 5
    assert 0 <= now.value("gateway_event_loop_lag_seconds") < 5
    assert {sample.labels["database"] for sample in now.named("gateway_db_connections_in_use")} == {
        "chatdb",
        "card_qna_db",
    }
    assert now.value("gateway_build_info") == 1


async def test_a_draft_is_shown_here_and_on_another_instance(pair: Pair) -> None:
    """As one draft while it is made, by the frames it is sent in, and by the bytes that go to the other instance."""
    message = unique("만드는 중인 답")
    held = Held(Stream([event({"delta": "처음"})], then="hang"))
    pair.cluster.world.llm.on(message, held)
    await provoke.all_gone(pair)
    before = scrape(pair.here)

    def grown(name: str) -> float:
        return scrape(pair.here).value(name) - before.value(name)

    async with visit(pair.here, query="stream=true") as visitor:
        message_id = await visitor.prompt(message)
        held.release()
        while (await visitor.receive())["type"] != "delta":
            pass
        await become(lambda: scrape(pair.here).value("gateway_drafts") == 1, what="one draft")
        assert grown("gateway_deltas_total") == 1
        assert grown("gateway_previewed_bytes_total") == 0
    query, key = f"stream=true&session_id={visitor.session_id}", protocols(key_of(visitor.session_id))
    async with visit(pair.there, query=query, subprotocols=key) as again:
        while (await again.receive()).get("type") != "delta":
            pass
        assert grown("gateway_previewed_bytes_total") > len("처음".encode())
        assert grown("gateway_deltas_total") == 1
        await again.send({"type": "stop", "message_id": message_id})
        while "sender" not in await again.receive():
            pass
    await become(lambda: scrape(pair.here).value("gateway_drafts") == 0, what="no draft is left")


async def test_batches_and_waiting_for_the_database_are_measured(pair: Pair) -> None:
    """Rows by statement, and the wait for a connection by database."""
    before = scrape(pair.here)
    await provoke.ask_llm(pair)
    after = scrape(pair.here)
    for statement in ("store_prompts", "store_answers", "open_sessions"):
        rows = [one.value("gateway_batch_rows_sum", statement=statement) for one in (before, after)]
        assert rows[1] - rows[0] == 1, statement
    waits = [one.value("gateway_db_wait_seconds_count", database="chatdb") for one in (before, after)]
    assert waits[1] - waits[0] >= 3


async def test_an_instance_that_stops_or_is_full_refuses_under_different_names(
    pair: Pair, new_gateway: NewGateway
) -> None:
    """Both are 503 to the balancer; who reads the dashboard has to tell a restart from a lack of room."""
    before_full = scrape(pair.here)
    await provoke.come_when_it_is_full(pair)
    full = difference(before_full, scrape(pair.here), "gateway_sessions_opened")
    world = pair.cluster.world
    stopping = new_gateway(world)
    message = unique("마지막 질문")
    held = Held(answer("끝"))
    world.llm.on(message, held)
    async with visit(stopping) as visitor:
        await visitor.prompt(message)
        await world.llm.called(query=message)
        before = scrape(stopping)
        stopping.process.send_signal(signal.SIGTERM)
        await become(lambda: stopping.http.get("/api/health/ready").status_code == 503)
        with pytest.raises(InvalidStatus):
            async with stopping.connect():
                pass
        await visitor.prompt("너무 늦은 질문")
        assert (await visitor.receive())["error"] == "Server is restarting"
        after = scrape(stopping)
        held.release()
        await visitor.receive()
    assert after.value("gateway_prompts_total", outcome="refused_draining") == 1
    draining = difference(before, after, "gateway_sessions_opened")
    assert draining
    assert not set(draining) & set(full), "one name for two reasons"


async def test_answers_that_wait_for_the_database_are_counted_until_they_are_stored(cuttable: Cuttable) -> None:
    gateway, llm = cuttable.gateway, cuttable.world.llm
    message = unique("저장을 기다리는 답")
    held = Held(answer("기다립니다"))
    llm.on(message, held)
    async with visit(gateway) as visitor:
        await visitor.prompt(message)
        await llm.called(query=message)
        cuttable.chatdb.cut()
        held.release()
        await visitor.receive()
        await become(lambda: scrape(gateway).value("gateway_unstored_answers") == 1, what="an answer waits")
        cuttable.chatdb.mend()
        await become(lambda: scrape(gateway).value("gateway_unstored_answers") == 0, what="it is stored")


async def test_the_age_of_the_listen_connection_grows_from_its_last_sign(cuttable: Cuttable) -> None:
    """And not from the start of the process, which may be weeks ago."""
    gateway = cuttable.gateway
    await become(lambda: running_for(gateway) > 8, what="it has run for a while")
    cuttable.listen.cut()
    cut_at = time.monotonic()
    try:
        await become(lambda: not gateway.http.get("/api/health/ready").json()["checks"]["listen"]["ok"])
        seen = scrape(gateway).value("gateway_listen_age_seconds")
        await become(lambda: scrape(gateway).value("gateway_listen_age_seconds") != seen, what="it is measured again")
        # It is heard from every 2 s while all is well, or a little later where the machine is busy.
        assert scrape(gateway).value("gateway_listen_age_seconds") <= time.monotonic() - cut_at + 5
    finally:
        cuttable.listen.mend()
    await become(lambda: scrape(gateway).value("gateway_listen_age_seconds") < 2.2, what="it is heard again")


def running_for(gateway: Gateway) -> float:
    return time.time() - float(psutil.Process(gateway.process.pid).create_time())


async def test_who_is_turned_away_because_of_the_database_is_counted(cuttable: Cuttable) -> None:
    """Prompts that cannot be stored, and sessions that cannot be opened."""
    gateway = cuttable.gateway
    async with visit(gateway) as visitor:
        before = scrape(gateway)
        cuttable.chatdb.cut()
        try:
            await visitor.prompt(unique("저장되지 못한 질문"))
            assert "DB operation failed" in (await visitor.receive())["error"]
            async with gateway.connect() as socket:
                assert "DB operation failed" in str(await socket.recv())
            grown = difference(before, scrape(gateway), "gateway_sessions_opened", "gateway_prompts")
        finally:
            cuttable.chatdb.mend()
    assert [name for name in grown if re.match(r"gateway_prompts_total\{(refused|failed)_", name)], grown
    assert [name for name in grown if re.match(r"gateway_sessions_opened_total\{(refused|failed)_", name)], grown


def scrape_anew(gateway: Gateway) -> Scrape:
    """Ask over a connection of its own, which either worker may get."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return Scrape(connection.getresponse().read().decode())
    finally:
        connection.close()


def worker_pids(gateway: Gateway) -> set[int]:
    """The worker processes: those that are no helper of the multiprocessing module."""
    children = psutil.Process(gateway.process.pid).children()
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return {child.pid for child in alive if "spawn_main" in " ".join(child.cmdline())}


STARTS: dict[str, dict[str, Any]] = {
    "uvicorn --workers 2": {"arguments": ("--workers", "2")},
    "WEB_CONCURRENCY=2 python gateway.py": {"start": "python", "WEB_CONCURRENCY": "2"},
}


@pytest.mark.parametrize("start", STARTS)
async def test_any_worker_shows_the_sum_over_all(
    new_world: NewWorld, new_gateway: NewGateway, tmp_path: Path, start: str
) -> None:
    """Turns and sessions of two workers; and a worker that was killed leaves its counts, but none of its sessions.

    They add up in a folder of their own, or in the operator's, which is made if it is missing, and never removed.
    """
    world, given = new_world(), tmp_path / "not" / "yet"
    folder = str(given) if start.startswith("uvicorn") else ""
    gateway = new_gateway(world, PROMETHEUS_MULTIPROC_DIR=folder, **STARTS[start])
    eventually(lambda: len(instance_ids(world.chatdb)) == 2, what="both workers are instances")

    def shown() -> list[Scrape]:
        return [scrape_anew(gateway) for _ in range(6)]

    def all_show(name: str, value: float, **labels: str) -> bool:
        return {one.value(name, **labels) for one in shown()} == {value}

    async with AsyncExitStack() as stack:
        visitors = [await stack.enter_async_context(visit(gateway)) for _ in range(4)]
        while len({holder_of(world.chatdb, visitor.session_id) for visitor in visitors}) < 2:
            visitors.append(await stack.enter_async_context(visit(gateway)))
        for visitor in visitors:
            await visitor.ask(FAQS[0].question)
        total = len(visitors)
        await become(lambda: all_show("gateway_prompts_total", total, outcome="faq"), what="all prompts are shown")
        await become(lambda: all_show("gateway_turn_seconds_count", total, part="send"))
        await become(lambda: all_show("gateway_sessions", total), what="all sessions are shown")
        assert all_show("gateway_build_info", 1)
        before = worker_pids(gateway)
        psutil.Process(min(before)).kill()
        await become(
            lambda: len(worker_pids(gateway)) == 2 and worker_pids(gateway) != before, what="a new worker is there"
        )
        left = [visitor for visitor in visitors if visitor.socket.close_code is None]
        await become(lambda: all_show("gateway_sessions", len(left)), what="what the killed worker held is gone")
        assert all_show("gateway_prompts_total", total, outcome="faq")
    gateway.stop()
    assert given.is_dir() == bool(folder)


async def test_switched_off_it_is_not_there(new_world: NewWorld, new_gateway: NewGateway) -> None:
    gateway = new_gateway(new_world(), METRICS="false")
    assert gateway.http.get("/metrics").status_code == 404
    assert gateway.http.get("/api/health/ready").status_code == 200


UNITS = ("_seconds", "_bytes", "_rows", "_info")
OTHER_UNITS = re.compile(r"milli|_ms$|_ms_|minutes|micro|percent|kilo|_kb|_mb")
STANDARD = re.compile(r"process_|python_")


async def test_names_and_units_follow_the_conventions(pair: Pair) -> None:
    """Counters end in _total, times are seconds, one prefix, a help text for each, the same labels on each sample."""
    await provoke.ask_llm(pair)
    now = scrape(pair.here)
    ours = [family for family in now.families if not STANDARD.match(family.name)]
    assert len(ours) > 10
    for family in ours:
        assert re.fullmatch(r"gateway_[a-z_]+", family.name), family.name
        assert family.documentation.strip(), family.name
        assert not OTHER_UNITS.search(family.name), family.name
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert names <= {f"{family.name}_total", f"{family.name}_created"}
        if family.type == "histogram":
            assert family.name.endswith(UNITS), family.name
        labels = {tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples}
        assert len(labels) <= 1, f"{family.name} has samples with different labels: {labels}"
    assert not [family.name for family in ours if family.type == "unknown"]
