"""/api/health/ready: what is missing and why, and ready again without a restart."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.observability import provoke
from tests.observability.conftest import Cuttable, Pair
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.network import TcpProxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

PARTS = {"draining", "chatdb", "schema", "card_qna_db", "listen", "notices", "llm_server"}


def asked(gateway: Gateway) -> tuple[int, dict[str, str]]:
    """The status, and the reason of each part that is not well."""
    response = gateway.http.get("/api/health/ready")
    body = response.json()
    assert set(body) == {"status", "checks"}
    assert body["status"] == ("ready" if response.status_code == 200 else "not ready")
    assert set(body["checks"]) == PARTS
    for part in body["checks"].values():
        assert set(part) == {"ok", "reason"}
        assert part["ok"] == (part["reason"] is None)
    return response.status_code, {name: part["reason"] for name, part in body["checks"].items() if not part["ok"]}


def becomes(gateway: Gateway, check: Callable[[int, dict[str, str]], bool], what: str) -> None:
    eventually(lambda: check(*asked(gateway)), what=what)


def is_ready(gateway: Gateway) -> None:
    becomes(gateway, lambda status, _: status == 200, "it is ready")


def test_ready_names_every_part(pair: Pair) -> None:
    is_ready(pair.here)
    assert pair.here.http.get("/api/health/ready/").status_code == 200


FAULTS: dict[str, Callable[[TcpProxy], None]] = {"away": TcpProxy.cut, "silent": TcpProxy.freeze}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("ways", "part"), [(("chatdb", "listen"), "chatdb"), (("card_qna_db",), "card_qna_db"), (("listen",), "listen")]
)
def test_what_is_lost_is_said_and_what_comes_back_needs_no_restart(
    cuttable: Cuttable, ways: tuple[str, ...], part: str, fault: str
) -> None:
    """Only what is missing is named; the instance stays alive, and its process the same."""
    is_ready(cuttable.gateway)
    pid = cuttable.gateway.process.pid
    proxies: list[TcpProxy] = [getattr(cuttable, way) for way in ways]
    try:
        for proxy in proxies:
            FAULTS[fault](proxy)
        becomes(cuttable.gateway, lambda status, missing: status == 503 and part in missing, f"{part} is gone")
        _, missing = asked(cuttable.gateway)
        assert part in missing
        assert set(missing) <= {part, "listen" if part == "chatdb" else part}
        assert len(missing[part].split()) >= 3, "a sentence"
        assert "127.0.0.1" not in str(missing)
        assert cuttable.gateway.http.get("/api/health").status_code == 200
    finally:
        for proxy in proxies:
            proxy.mend()
    is_ready(cuttable.gateway)
    assert cuttable.gateway.process.pid == pid


async def test_after_all_that_it_serves(cuttable: Cuttable) -> None:
    is_ready(cuttable.gateway)
    async with visit(cuttable.gateway) as visitor:
        await visitor.goes_on()


async def test_the_state_of_the_llm_server_is_shown_but_takes_no_instance_out(pair: Pair) -> None:
    """Every instance would be out at once, and nobody would answer FAQ."""
    await provoke.ask_llm(pair)
    assert asked(pair.here) == (200, {})
    await provoke.answer_with_a_status(pair)
    status, missing = asked(pair.here)
    assert (status, set(missing)) == (200, {"llm_server"})
    assert missing["llm_server"] == "HTTP 503", "and not the sentence that the visitor was told"
    await provoke.ask_llm(pair)
    assert asked(pair.here) == (200, {})


async def test_a_schema_that_is_older_than_the_program_is_named(pair: Pair) -> None:
    """As after a backup of an older version was restored under a running instance."""
    chatdb = pair.cluster.world.chatdb
    newest: dict[str, Any] = chatdb.fetchrow(
        'SELECT name, applied_at FROM "SchemaMigration" ORDER BY name DESC LIMIT 1'
    )
    chatdb.fetch('DELETE FROM "SchemaMigration" WHERE name = $1', newest["name"])
    try:
        status, missing = asked(pair.here)
        assert (status, missing["schema"]) == (503, "is older than this program")
    finally:
        chatdb.fetch('INSERT INTO "SchemaMigration" VALUES ($1, $2)', newest["name"], newest["applied_at"])
    is_ready(pair.here)
