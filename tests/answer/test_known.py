"""Questions and terms that are answered from memory, and the counting of their views."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.card_qna import IdKind, build_card_qna
from tests.support.chat import PLAIN_ANSWER, visit
from tests.support.gateway import Gateway
from tests.support.postgres import PostgresServer
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World, unique

pytestmark = pytest.mark.anyio


async def test_exactly_a_question_is_answered_from_the_cache(default_gateway: Gateway, default_world: World) -> None:
    for faq in default_gateway.http.get("/api/qna/faq?top_k=6").json():
        async with visit(default_gateway) as visitor:
            frame = await visitor.ask(faq["question"])
            assert set(frame) == PLAIN_ANSWER
            assert frame["message"] == faq["answer"]
            assert frame["login_required"] is False
            assert default_world.llm.calls_with(session_id=visitor.session_id) == []
            (turn,) = default_world.turns(visitor.session_id)
            assert (turn["prompt"], turn["answer"]) == (faq["question"], faq["answer"])


async def test_exactly_a_term_is_answered_from_the_cache(default_gateway: Gateway, default_world: World) -> None:
    for term in default_gateway.http.get("/api/qna/terms?top_k=8").json():
        async with visit(default_gateway) as visitor:
            frame = await visitor.ask(term["term"])
            assert set(frame) == PLAIN_ANSWER
            assert frame["message"] == term["definition"]
            assert default_world.llm.calls_with(session_id=visitor.session_id) == []


async def test_what_is_not_exactly_a_question_is_asked_of_the_llm_server(
    default_gateway: Gateway, default_world: World
) -> None:
    question = default_gateway.http.get("/api/qna/faq").json()[0]["question"]
    async with visit(default_gateway) as visitor:
        for text in (question + "?", question[:-1], question + " 네?"):
            assert (await visitor.ask(text))["message"] == f"re: {text}"
        assert len(default_world.llm.calls_with(session_id=visitor.session_id)) == 3


@pytest.fixture(scope="module")
def counting_world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def counting_gateway(counting_world: World) -> Iterator[Gateway]:
    """A gateway in whose card_qna_db nothing else is counted."""
    with Gateway(counting_world.settings) as gateway:
        gateway.http.get("/api/qna/faq?top_k=100")
        gateway.http.get("/api/qna/terms?top_k=100")
        yield gateway


def views(world: World) -> dict[str, int]:
    rows = world.card_qna.fetch("SELECT question AS name, views FROM faqs UNION ALL SELECT term, views FROM terms")
    return {row["name"]: row["views"] or 0 for row in rows}


async def test_each_hit_counts_exactly_one_view(counting_gateway: Gateway, counting_world: World) -> None:
    before = views(counting_world)
    hits = {"연회비는 언제 청구되나요?": 3, "한도를 올리고 싶어요": 2, "리볼빙": 4, "가맹점": 1}
    async with visit(counting_gateway) as visitor:
        for text, times in hits.items():
            for _ in range(times):
                await visitor.ask(text)
        await visitor.ask(unique("연회비는 언제 청구되나요?"))
    expected = before | {text: before[text] + times for text, times in hits.items()}
    await become(lambda: views(counting_world) == expected, what=f"{expected}, from {before}")


@pytest.mark.parametrize("ids", ["padded"])
async def test_views_of_string_ids_are_counted_too(
    new_world: NewWorld, new_gateway: NewGateway, postgres: PostgresServer, ids: IdKind
) -> None:
    world = new_world(card_qna=build_card_qna(postgres.database(), ids))
    gateway = new_gateway(world)
    gateway.http.get("/api/qna/faq?top_k=100")
    gateway.http.get("/api/qna/terms?top_k=100")
    before = views(world)
    async with visit(gateway) as visitor:
        await visitor.ask("해외에서 쓸 수 있나요?")
        await visitor.ask("할부")
        await visitor.ask("할부")
    expected = before | {"해외에서 쓸 수 있나요?": 1, "할부": 2}
    await become(lambda: views(world) == expected)


@pytest.mark.parametrize("start", ["uvicorn", "python"])
async def test_no_view_is_lost_when_the_gateway_stops(new_world: NewWorld, new_gateway: NewGateway, start: str) -> None:
    world = new_world()
    gateway = new_gateway(world, start=start)
    gateway.http.get("/api/qna/faq?top_k=100")
    before = views(world)
    question = "해외에서 쓸 수 있나요?"

    async def ask_often() -> None:
        async with visit(gateway) as visitor:
            for _ in range(10):
                await visitor.ask(question)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(ask_often())
    await asyncio.to_thread(gateway.stop)
    assert views(world) == before | {question: before[question] + 100}


async def test_a_changed_answer_is_given_soon(new_world: NewWorld, new_gateway: NewGateway) -> None:
    world = new_world()
    gateway = new_gateway(world, QNA_REFRESH_SECONDS="0.2")
    gateway.http.get("/api/qna/faq?top_k=100")
    question = "결제일을 바꾸고 싶어요"
    world.card_qna.execute(f"UPDATE faqs SET answer = '이제 다릅니다.' WHERE question = '{question}'")
    gateway.http.get("/api/qna/faq?top_k=100")

    async def answered() -> bool:
        async with visit(gateway) as visitor:
            return bool((await visitor.ask(question))["message"] == "이제 다릅니다.")

    await become(answered)
