"""Two instances that say what happens to them, and the story of a turn that changes hands."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from tests.observability.scrape import Scrape, scrape
from tests.support.backends import Hang, answer
from tests.support.chat import visit
from tests.support.cluster import Cluster, Tally, instance_ids, tally
from tests.support.gateway import Gateway
from tests.support.network import TcpProxy
from tests.support.waiting import become
from tests.support.world import NewWorld, World, add_personas, unique

# Small enough to be reached by a test, large enough not to be by one that does not want to.
LIMITS = {"MAX_PENDING_PROMPTS": "1", "PROMPTS_PER_MINUTE": "12", "MAX_SESSIONS": "6"}


@dataclass(frozen=True)
class Pair:
    """Two instances on one database, and a persona in it."""

    cluster: Cluster
    persona: int

    @property
    def here(self) -> Gateway:
        return self.cluster[0]

    @property
    def there(self) -> Gateway:
        return self.cluster[1]


@pytest.fixture(scope="package")
def pair(new_world: NewWorld) -> Iterator[Pair]:
    """Shared by the package, in production: bring your own sessions, leave none, end no instance."""
    with Cluster(
        new_world(), 2, start="python", ENVIRONMENT="production", FRONTEND_HOST="https://chat.example", **LIMITS
    ) as cluster:
        yield Pair(cluster, *add_personas(cluster.world.chatdb, "김하늘"))


@dataclass(frozen=True)
class Cuttable:
    """An instance in production whose ways to its two databases can be cut and frozen."""

    gateway: Gateway
    world: World
    chatdb: TcpProxy
    listen: TcpProxy
    card_qna_db: TcpProxy


@pytest.fixture(scope="package")
def cuttable(new_world: NewWorld) -> Iterator[Cuttable]:
    """Shared by the package, with a DB_TIMEOUT of 1 s: mend what you have cut."""
    world = new_world()
    port = world.chatdb.server.port
    with TcpProxy(port) as chatdb, TcpProxy(port) as listen, TcpProxy(port) as card_qna_db:
        settings = world.settings | {
            "ENVIRONMENT": "production",
            "FRONTEND_HOST": "https://chat.example",
            "DB_TIMEOUT": "1",
            "DATABASE_URL": world.chatdb.url_at(chatdb.port),
            "LISTEN_DATABASE_URL": world.chatdb.url_at(listen.port),
            "FAQ_DATABASE_URL": world.card_qna.url_at(card_qna_db.port),
        }
        with Gateway(settings, start="python") as gateway:
            yield Cuttable(gateway, world, chatdb, listen, card_qna_db)


@dataclass(frozen=True)
class TakenOver:
    """What the surviving instance shows before and after it has taken over the other's turn, and what it has said."""

    before: Scrape
    after: Scrape
    output: str
    lost_id: int


@pytest.fixture(scope="package")
async def taken_over(new_world: NewWorld) -> AsyncIterator[TakenOver]:
    """One of two instances is killed in the middle of a turn; the other answers it."""
    world = new_world()
    with Cluster(world, 2, start="python", ENVIRONMENT="production") as cluster:
        mortal, survivor = cluster
        message = unique("주인을 잃은 질문")
        world.llm.on(message, Hang(), answer("이어받은 답"))
        async with visit(mortal) as visitor:
            await visitor.prompt(message)
            await world.llm.called(query=message)
            lost_id = world.chatdb.value('SELECT instance_id FROM "Turn"')
            before = scrape(survivor)
            mortal.kill()
        await become(lambda: tally(world.chatdb) == Tally(1, 1, 0, 0), what="the other instance has answered")
        assert instance_ids(world.chatdb) != []
        yield TakenOver(before, scrape(survivor), survivor.output(), lost_id)
