"""Drafts: the text so far, and what of it somebody is shown, at chosen moments."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from chat.draft import MAX_TOOL_CHARS, Draft, View
from common.ids import new_uuid
from tests.support.backends import LlmStub, event
from tests.support.parts import Client, Parts, Visitor, parts
from tests.support.statements import ChatDb
from tests.support.streams import Tap, delta
from tests.support.waiting import become
from tests.support.world import NewWorld, World, unique

pytestmark = pytest.mark.anyio

FACE = "😀"  # two code units


def draft(attempt: int = 1) -> Draft:
    return Draft(new_uuid(), new_uuid(), attempt)


# The text so far


async def test_a_draft_counts_code_units_and_can_be_had_from_any() -> None:
    made = draft()
    for text in ("가", FACE, "나"):
        made.delta(text)
    assert (made.length, made.pieces) == (4, 3)
    assert [made.since(offset) for offset in (0, 1, 3, 4)] == [f"가{FACE}나", f"{FACE}나", "나", ""]
    assert made.has_news.is_set() and made.first_at


async def test_a_tools_name_is_news_and_has_an_end() -> None:
    made = draft()
    made.tool("x" * 1000)
    assert made.tool_name == "x" * MAX_TOOL_CHARS and MAX_TOOL_CHARS <= 100
    assert made.has_news.is_set()
    assert made.is_news_to(View(attempt=1))
    assert not made.is_news_to(View(attempt=1, tool_name=made.tool_name))
    assert made.is_news_to(View(attempt=0, tool_name=made.tool_name))
    made.delta("가")
    assert made.is_news_to(View(attempt=1, tool_name=made.tool_name))
    assert not made.is_news_to(View(attempt=1, offset=1, tool_name=made.tool_name))


async def test_who_waits_for_news_hears_of_the_end() -> None:
    made = draft()
    made.close()
    assert made.has_news.is_set() and not made.is_open


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([(1, 0, "가"), (1, 1, "나")], "가나"),
        ([(1, 0, "가나"), (1, 1, "나다")], "가나다"),  # one that came twice in part
        ([(1, 0, "가나다"), (1, 1, "나")], "가나다"),  # one that is old
        ([(1, 0, "가"), (1, 0, "가나다")], "가나다"),  # everything so far
        ([(1, 0, "가"), (1, 2, "다")], "가"),  # one before it was lost
        ([(1, 0, FACE), (1, 2, "나")], f"{FACE}나"),
        ([(1, 0, "가"), (2, 0, "나")], "나"),  # the next attempt begins anew
        ([(1, 0, "가"), (3, 1, "나")], ""),  # and what came of it before was lost
        ([(2, 0, "가"), (1, 0, "나"), (1, 1, "다")], "가"),  # an instance that was given up
    ],
    ids=str,
)
async def test_a_mirror_has_no_gap_and_mixes_no_attempts(pieces: list[tuple[int, int, str]], text: str) -> None:
    mirrored = draft(0)
    for attempt, offset, piece in pieces:
        mirrored.mirror(attempt, offset, piece, None)
    assert mirrored.since(0) == text
    assert mirrored.attempt == max(attempt for attempt, *_ in pieces)


async def test_a_mirror_forgets_the_tool_of_an_earlier_attempt() -> None:
    mirrored = draft(0)
    mirrored.mirror(1, 0, "가", "tool")
    assert mirrored.tool_name == "tool"
    mirrored.mirror(2, 5, "나", "other")
    assert mirrored.tool_name is None
    mirrored.mirror(1, 0, "가", "tool")
    assert mirrored.tool_name is None


# What is shown


@pytest.fixture(scope="module")
def world(new_world: NewWorld, db: ChatDb) -> World:
    return new_world()


class Made:
    """A prompt whose answer is being made, piece by piece."""

    def __init__(self, visitor: Visitor, llm: LlmStub) -> None:
        self.text = unique("질문")
        self.tap = Tap()
        llm.on(self.text, self.tap)
        self.id = visitor.prompt(self.text)

    async def asked(self) -> "Made":
        await self.tap.called()
        return self


def text_of(client: Client) -> str:
    text = ""
    for frame in client.frames:
        if frame.get("type") == "start":
            text = ""
        elif frame.get("type") == "delta":
            units = text.encode("utf-16-le")
            assert 2 * frame["offset"] <= len(units), f"a gap: {frame}"
            text = units[: 2 * frame["offset"]].decode("utf-16-le") + frame["text"]
    return text


async def test_a_visitor_who_does_not_read_gets_one_long_piece_when_they_read_again(here: Parts, llm: LlmStub) -> None:
    visitor = await here.visit(streams=True)
    made = await Made(visitor, llm).asked()
    await become(lambda: visitor.client.of_type("start"))
    visitor.client.unread = 1
    for n in range(20):
        made.tap.send(delta(str(n)))
    await become(lambda: here.chat.drafts._made[visitor.id].pieces == 20)
    await asyncio.sleep(0.05)
    assert visitor.client.of_type("delta") == []
    visitor.client.unread = 0
    expected = "".join(str(n) for n in range(20))
    await become(lambda: text_of(visitor.client) == expected)
    assert len(visitor.client.of_type("delta")) == 1
    made.tap.end("답")
    await visitor.client.until_told("답")


async def test_pieces_that_come_soon_after_each_other_are_shown_together(
    db: ChatDb, world: World, llm: LlmStub
) -> None:
    """The first at once, the others when the pause is over."""
    async with parts(db, world, delta_seconds=0.3) as here:
        visitor = await here.visit(streams=True)
        made = await Made(visitor, llm).asked()
        made.tap.send(delta("가"))
        await become(lambda: text_of(visitor.client) == "가")
        for letter in "나다라마바":
            made.tap.send(delta(letter))
            await asyncio.sleep(0.01)
        await become(lambda: text_of(visitor.client) == "가나다라마바")
        assert len(visitor.client.of_type("delta")) <= 3
        made.tap.end("답")
        await visitor.client.until_told("답")


async def test_only_sockets_that_opted_in_are_shown_anything(here: Parts, llm: LlmStub) -> None:
    """Each socket of a session for itself; who comes back is shown a start and everything so far."""
    visitor = await here.visit()
    made = await Made(visitor, llm).asked()
    made.tap.send(delta(f"가{FACE}"))
    await become(lambda: here.chat.drafts._made[visitor.id].pieces)
    again = await here.resume(visitor, streams=True)
    await become(lambda: text_of(again.client) == f"가{FACE}")
    third = await here.resume(visitor, streams=True)
    await become(lambda: text_of(third.client) == f"가{FACE}")
    assert [frame["offset"] for frame in third.client.of_type("delta")] == [0]
    fourth = await here.resume(visitor)
    made.tap.send(delta("나"))
    await become(lambda: here.chat.drafts._made[visitor.id].pieces == 2)
    await asyncio.sleep(0.03)
    assert [len(one.client.frames) for one in (visitor, fourth)] == [1, 1]
    assert text_of(third.client) == f"가{FACE}"
    made.tap.end("답")
    await fourth.client.until_told("답")


async def test_nothing_is_shown_while_an_answer_that_was_made_is_stored(db: ChatDb, here: Parts, llm: LlmStub) -> None:
    """Nor is the draft kept, which may be large."""
    visitor = await here.visit(streams=True)
    made = await Made(visitor, llm).asked()
    made.tap.send(delta("가"))
    await become(lambda: text_of(visitor.client) == "가")
    async with db.locked("ChatSession", visitor.id):
        made.tap.end("답")
        await become(lambda: db.waiting(1))
        assert len(here.chat.drafts) == 0
        await become(lambda: not len(here.chat.drafts.tasks))
    await visitor.client.until_told("답")


async def test_a_mirror_is_shown_as_it_grows_and_not_after_the_answer(db: ChatDb, here: Parts) -> None:
    """Though the instance that makes it has not noticed yet that there is one."""
    visitor = await here.visit()
    id = await db.prompt(visitor.id, instance_id=-7)
    again = await here.resume(visitor, streams=True)
    await become(lambda: id in here.chat.drafts._mirrors)

    def hear(offset: int, text: str) -> None:
        word = {"type": "draft", "message_id": str(id), "attempt": 1, "tool_name": None}
        here.chat.hear_word(orjson.dumps(word | {"offset": offset, "text": text}).decode())

    hear(0, "가")
    await become(lambda: text_of(again.client) == "가")
    await db.answer(visitor.id, id, content="답")
    await db.sql('INSERT INTO "Turn" (prompt_id, session_id, instance_id) VALUES ($1, $2, -7)', id, visitor.id)
    here.chat.delivery.look_at(visitor.id)
    await again.client.until_told("답")
    hear(1, "나")
    await asyncio.sleep(0.05)
    assert text_of(again.client) == "가"
    await db.sql('DELETE FROM "Turn" WHERE prompt_id = $1', id)
    await become(lambda: not here.chat.drafts._mirrors)


# What other instances are shown

OTHER = 4242  # the instance that wants to see


class Overheard:
    """The words to the other instance."""

    def __init__(self) -> None:
        self.words: list[dict[str, Any]] = []

    def hear(self, *notice: Any) -> None:
        assert len(notice[-1].encode()) < 8000
        self.words.append(orjson.loads(notice[-1]))

    @property
    def text(self) -> str:
        units = b""
        for word in self.words:
            assert 2 * word["offset"] <= len(units)
            units = units[: 2 * word["offset"]] + word["text"].encode("utf-16-le")
        return units.decode("utf-16-le")


@pytest.fixture
async def overheard(db: ChatDb) -> AsyncIterator[Overheard]:
    ear, listening = Overheard(), await asyncpg.connect(db.url)
    await listening.add_listener(f"gateway_words_{OTHER}", ear.hear)
    yield ear
    await listening.close()


def watch(visitor: Visitor, made: Made, attempt: int = 0, offset: int = 0, **more: Any) -> None:
    word = {"type": "watch", "message_id": str(made.id), "session_id": str(visitor.id), "instance_id": OTHER}
    visitor.parts.chat.hear_word(orjson.dumps(word | {"attempt": attempt, "offset": offset} | more).decode())


async def test_who_watches_is_told_everything_so_far_and_then_the_rest(
    here: Parts, llm: LlmStub, overheard: Overheard
) -> None:
    """In notices of less than 8,000 bytes, whatever the text, and not for every piece."""
    visitor = await here.visit()
    made = await Made(visitor, llm).asked()
    long = ("\x01" * 5 + FACE) * 600
    made.tap.send(event({"tool_name": "tool", "delta": long}))
    await become(lambda: here.chat.drafts._made[visitor.id].pieces)
    watch(visitor, made)
    await become(lambda: overheard.text == long)
    assert {(word["type"], word["attempt"], word["tool_name"]) for word in overheard.words} == {("draft", 1, "tool")}
    assert {word["message_id"] for word in overheard.words} == {str(made.id)}
    before = len(overheard.words)
    for n in range(20):
        made.tap.send(delta(str(n)))
        await asyncio.sleep(0.005)
    await become(lambda: overheard.text.endswith("1819"))
    assert len(overheard.words) - before <= 4
    made.tap.end("답")
    await visitor.client.until_told("답")


async def test_what_was_lost_on_the_way_is_told_again(here: Parts, llm: LlmStub, overheard: Overheard) -> None:
    """Who asks again says how much they have, and of which attempt."""
    visitor = await here.visit()
    made = await Made(visitor, llm).asked()
    made.tap.send(delta("가나다"))
    await become(lambda: here.chat.drafts._made[visitor.id].pieces)
    watch(visitor, made)
    await become(lambda: overheard.text == "가나다")
    watch(visitor, made, attempt=1, offset=3)
    watch(visitor, made, attempt=1, offset=1)
    await become(lambda: len(overheard.words) == 2)
    assert (overheard.words[1]["offset"], overheard.words[1]["text"]) == (1, "나다")
    watch(visitor, made, attempt=0, offset=3)
    await become(lambda: len(overheard.words) == 3)
    assert (overheard.words[2]["offset"], overheard.words[2]["text"]) == (0, "가나다")
    made.tap.end("답")
    await visitor.client.until_told("답")


async def test_who_asks_for_another_prompt_or_not_again_is_told_nothing(
    here: Parts, llm: LlmStub, overheard: Overheard
) -> None:
    visitor = await here.visit()
    made = await Made(visitor, llm).asked()
    made.tap.send(delta("가"))
    await become(lambda: here.chat.drafts._made[visitor.id].pieces)
    watch(visitor, made, message_id=str(new_uuid()))
    watch(visitor, made, session_id=str(new_uuid()))
    assert not len(here.chat.drafts.tasks)
    watch(visitor, made)
    await become(lambda: overheard.text == "가")
    view = here.chat.drafts._made[visitor.id].there[OTHER]
    view.lease_ends = view.due = 0.0
    made.tap.send(delta("나"))
    await become(lambda: not here.chat.drafts._made[visitor.id].there)
    assert overheard.text == "가"
    made.tap.end("답")
    await visitor.client.until_told("답")
