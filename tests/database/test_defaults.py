"""Administrators set defaults on roles and databases; they do not decide what the gateway's statements do."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.pgbouncer import need_pgbouncer
from tests.support.card_qna import build_card_qna
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.postgres import PostgresServer
from tests.support.world import NewGateway, NewWorld, World, unique

pytestmark = pytest.mark.anyio

DEFAULTS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "'1ms'",
    "lock_timeout": "'1ms'",
    "idle_session_timeout": "'500ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
}
VISITORS, PROMPTS = 16, 6


@pytest.fixture(params=["direct", "pgbouncer"])
def world(
    request: pytest.FixtureRequest, either: PostgresServer, new_world: NewWorld
) -> Iterator[tuple[World, dict[str, str]]]:
    """A world whose databases have such defaults, and the settings that lead there."""
    limits = {name: "'500ms'" for name, value in DEFAULTS.items() if value == "'1ms'"}  # what a pooler leaves time for
    defaults = DEFAULTS | (limits if request.param == "pgbouncer" else {})
    chatdb, card_qna = either.database(), build_card_qna(either.database())
    for database in (chatdb, card_qna):
        for name, value in defaults.items():
            either.admin.execute(f'ALTER DATABASE "{database.name}" SET {name} = {value}')
    own = new_world(chatdb, card_qna)
    if request.param == "direct":
        yield own, {}
        return
    with need_pgbouncer(either) as pooler:
        yield (
            own,
            {
                "DATABASE_URL": pooler.url(chatdb),
                "FAQ_DATABASE_URL": pooler.url(card_qna),
                "LISTEN_DATABASE_URL": chatdb.url,
                "PREPARED_STATEMENTS": "false",
            },
        )


async def test_no_prompt_fails_whatever_the_defaults_are(
    world: tuple[World, dict[str, str]], new_gateway: NewGateway
) -> None:
    own, settings = world
    gateway: Gateway = new_gateway(own, **settings, PROMPTS_PER_MINUTE="100000")

    async def converse() -> None:
        async with visit(gateway) as visitor:
            for _ in range(PROMPTS):
                frame = await visitor.ask(unique("질문"))
                assert "error" not in frame

    await asyncio.gather(*(converse() for _ in range(VISITORS)))
    assert gateway.http.get("/api/qna/faq").status_code == 200
    gateway.stop()
    for word in ("run again", "failed", "lost", "refused"):
        assert word not in gateway.output()
