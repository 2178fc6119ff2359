"""Which tables are meant is decided once, and is the same on every connection."""

import pytest

from tests.database.test_start import own_role, refused, sentences
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.postgres import Database, PostgresServer
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World, add_personas

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(new_world: NewWorld, either: PostgresServer) -> World:
    return new_world(either.database())


def cut_all(database: Database) -> None:
    database.server.admin.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database.name
    )


async def test_a_schema_of_the_roles_name_that_comes_later_changes_nothing(
    world: World, new_gateway: NewGateway
) -> None:
    """Not for the instance that runs, with new connections, and not for the next one."""
    url = own_role(world.chatdb, "later")
    running = new_gateway(world, DATABASE_URL=url)
    add_personas(world.chatdb, "김하늘")
    world.chatdb.execute('CREATE SCHEMA later AUTHORIZATION later; CREATE TABLE later."Persona" (id int)')
    cut_all(world.chatdb)
    await become(lambda: running.http.get("/api/health/ready").status_code == 200)
    for gateway in (running, new_gateway(world, DATABASE_URL=url)):
        assert len(gateway.http.get("/api/chat/personas").json()["personas"]) == 1
        async with visit(gateway) as visitor:
            await visitor.goes_on()
    assert world.chatdb.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'later'::regnamespace") == 1


def test_two_sets_of_tables_are_refused_with_a_sentence(world: World) -> None:
    url = own_role(world.chatdb, "twice")
    with Gateway(world.settings | {"DATABASE_URL": url}):
        pass
    world.chatdb.execute('CREATE SCHEMA twice AUTHORIZATION twice; CREATE TABLE twice."Chat" (LIKE public."Chat")')
    (sentence,) = sentences(refused(world.settings | {"DATABASE_URL": url}))
    assert "public and twice" in sentence


def test_tables_that_are_not_on_the_search_path_are_not_made_a_second_time(world: World) -> None:
    url = own_role(world.chatdb, "moved")
    with Gateway(world.settings | {"DATABASE_URL": url}):
        pass
    world.chatdb.execute("CREATE SCHEMA empty AUTHORIZATION moved")
    world.chatdb.server.admin.execute("ALTER ROLE moved SET search_path = empty")
    (sentence,) = sentences(refused(world.settings | {"DATABASE_URL": url}))
    assert "public" in sentence
    assert "search_path" in sentence


def test_a_second_set_of_faqs_costs_only_the_faqs(world: World, new_gateway: NewGateway) -> None:
    world.card_qna.execute("CREATE SCHEMA postgres; CREATE TABLE postgres.faqs (LIKE public.faqs)")
    gateway = new_gateway(world)
    assert gateway.http.get("/api/qna/faq").status_code == 500
    assert "postgres and public" in gateway.output()
