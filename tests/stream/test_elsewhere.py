"""A resumed session sees its answer from the start, and grow, wherever it is made."""

import asyncio
import time

import pytest

from tests.observability.scrape import scrape
from tests.support.backends import Stream
from tests.support.cluster import Cluster, answers_of, instance_ids, kill_backends, resume, until_closed
from tests.support.streams import TEXT, Reader, Tap, delta, pieces, watching
from tests.support.waiting import become
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio

SOON = 1.0  # seconds; it takes some hundredths, three tenths are promised
HALF_A_SECOND = 1.5  # it takes four tenths and a bit
LISTENING = "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"


async def begin(world: World, reader: Reader, tap: Tap, text: str = "처음") -> str:
    """A prompt whose answer begins; the session's id."""
    query = unique("질문")
    world.llm.on(query, tap)
    await reader.visitor.prompt(query)
    tap.send(delta(text))
    await reader.until_text(text)
    return reader.visitor.session_id


@pytest.mark.parametrize("place", [0, 1])
async def test_it_begins_with_a_start_and_everything_so_far(
    world: World, three: Cluster, reader: Reader, place: int
) -> None:
    """On the instance that makes the answer and on another one, soon; and it goes on from there."""
    tap = Tap()
    session_id = await begin(world, reader, tap, TEXT)
    since = time.monotonic()
    async with watching(three[place], session_id) as again:
        await again.until_text(TEXT)
        assert time.monotonic() - since < SOON
        about = {"message_id": reader.frames[0]["message_id"], "attempt": 1}
        assert again.frames == [{"type": "start"} | about, {"type": "delta", "offset": 0, "text": TEXT} | about]
        tap.send(delta(" 그리고"))
        await again.until_text(TEXT + " 그리고")
        tap.end(TEXT + " 그리고 끝")
        assert (await again.until_answer())["message"] == TEXT + " 그리고 끝"
        await again.visitor.nothing_pending()


async def test_it_grows_at_least_twice_a_second_elsewhere(world: World, three: Cluster, reader: Reader) -> None:
    """From the first second on."""
    query, whole = unique("질문"), TEXT * 5
    world.llm.on(query, Stream(pieces(whole, 0.025)))
    await reader.visitor.prompt(query)
    await reader.until_text()
    async with watching(three[1], reader.visitor.session_id) as again:
        since = time.monotonic()
        assert (await again.until_answer())["message"] == whole
        times = [at for at, kind in zip(again.times, again.kinds, strict=True) if kind == "delta"]
        gaps = [after - before for before, after in zip([since, *times], times, strict=False)]
        assert len(gaps) >= 3
        assert max(gaps) < HALF_A_SECOND


async def test_a_session_may_move_again_and_again_and_back(world: World, three: Cluster, reader: Reader) -> None:
    """Each socket begins with everything so far."""
    tap, text = Tap(), "0"
    session_id = await begin(world, reader, tap, text)
    for n, place in enumerate((1, 2, 0, 1, 0, 2, 2, 1), 1):
        async with watching(three[place], session_id) as again:
            await again.until_text(text)
            text += str(n)
            tap.send(delta(str(n)))
            await again.until_text(text)
    async with watching(three[0], session_id) as again:
        await again.until_text(text)
        tap.end(text)
        assert (await again.until_answer())["message"] == text
    assert len(answers_of(world.chatdb, session_id)) == 1


@pytest.mark.parametrize("places", [(1, 1, 1), (1, 2, 1), (0, 1, 0)])
async def test_sockets_that_fight_for_a_session_see_everything_each(
    world: World, three: Cluster, reader: Reader, places: tuple[int, ...]
) -> None:
    """Also while the answer pauses; the older one is closed, and the session may go on with prompts."""
    tap = Tap()
    session_id = await begin(world, reader, tap)
    gone = reader
    for n in range(12):
        context = watching(three[places[n % 3]], session_id)
        newer = await context.__aenter__()
        since = time.monotonic()
        await newer.until_text("처음")
        assert time.monotonic() - since < SOON
        assert (await until_closed(gone.visitor.socket))[1] == 4001
        gone, left = newer, context
    following = await gone.visitor.prompt(unique("다음"))
    tap.end("처음과 끝")
    assert (await gone.until_answer())["message"] == "처음과 끝"
    assert (await gone.until_answer())["message_id"] == following
    await left.__aexit__(None, None, None)


async def test_what_stands_in_line_elsewhere_is_shown_in_its_turn(world: World, three: Cluster, reader: Reader) -> None:
    """Prompts that were sent before the session moved, and one that was sent after."""
    taps, queries = [Tap() for _ in range(4)], [unique("질문") for _ in range(4)]
    for query, tap in zip(queries, taps, strict=True):
        world.llm.on(query, tap)
    ids = [await reader.visitor.prompt(query) for query in queries[:3]]
    await reader.next()
    async with watching(three[1], reader.visitor.session_id) as again:
        ids.append(await again.visitor.prompt(queries[3]))
        for id, tap in zip(ids, taps, strict=True):
            await tap.called()
            tap.send(delta(f"답 {id}"))
            since = time.monotonic()
            await again.until_text(f"답 {id}", id)
            assert time.monotonic() - since < 1 + HALF_A_SECOND
            tap.end(f"답 {id}.")
            assert (await again.until_answer())["message_id"] == id
        order = [frame["message_id"] for frame in again.frames]
        assert order == sorted(order, key=ids.index)


async def test_nothing_is_shown_after_the_answer_elsewhere(world: World, three: Cluster) -> None:
    """Short answers, one after the other, that end while they are shown: the Reader finds what comes too late."""

    async def one(n: int) -> None:
        queries = [unique("짧은 질문") for _ in range(9)]
        for query in queries:
            world.llm.on(query, Stream(pieces("짧은 답입니다", 0.015 * (n % 4))))
        async with watching(three[0]) as reader:
            for query in queries:
                await reader.visitor.prompt(query)
            await reader.next()
        async with watching(three[1 + n % 2], reader.visitor.session_id, "1970-01-01T00:00:00+00:00") as again:
            for _ in queries:
                assert (await again.until_answer())["message"] == "짧은 답입니다"
            await again.visitor.nothing_pending()

    await asyncio.gather(*(one(n) for n in range(12)))


async def test_a_megabyte_is_mirrored_in_small_notices(world: World, three: Cluster, reader: Reader) -> None:
    """Of what takes the most bytes in JSON, with the longest name of a tool."""
    whole = '\x01"\\😀\x7f\u2028' * 90_000
    tap, name = Tap(), "\x02" * 1000
    session_id = await begin(world, reader, tap, "{")
    before = scrape(three[0]).value("gateway_previewed_bytes_total")
    async with watching(three[2], session_id) as again:
        await again.until_text("{")
        tap.send(
            b'data: {"tool_name": "' + b"\\u0002" * len(name) + b'"}\n\n',
            *(delta(whole[n : n + 90_000]) for n in range(0, len(whole), 90_000)),
        )
        await again.until_text("{" + whole)
        tap.end("끝")
        await again.until_answer()
    previewed = scrape(three[0]).value("gateway_previewed_bytes_total") - before
    assert len(whole.encode()) < previewed < 8 * len(whole.encode())
    assert "statement refused" not in three[0].output()


async def test_who_has_not_opted_in_costs_no_notice(world: World, three: Cluster, reader: Reader) -> None:
    """Nothing is mirrored that nobody looks at."""
    tap = Tap()
    session_id = await begin(world, reader, tap)
    before = scrape(three[0]).value("gateway_previewed_bytes_total")
    async with resume(three[1], session_id) as plain:
        tap.send(delta("과 끝"))
        await asyncio.sleep(1.2)
        tap.end("처음과 끝")
        assert (await plain.receive())["message"] == "처음과 끝"
    assert scrape(three[0]).value("gateway_previewed_bytes_total") == before


async def test_lost_listen_connections_heal(world: World, three: Cluster, reader: Reader) -> None:
    """All of them, killed while an answer is mirrored: nothing that was missed is missing in the end."""
    tap, text = Tap(), "처음"
    session_id = await begin(world, reader, tap, text)
    async with watching(three[1], session_id) as again:
        await again.until_text(text)
        for n in range(3):
            await become(lambda: kill_backends(world.chatdb, LISTENING, 3) >= 3, what="three were there to be killed")
            tap.send(delta(f" {n}"))
            text += f" {n}"
            await again.until_text(text)
        tap.end(text)
        assert (await again.until_answer())["message"] == text


STRANGE = (
    "", "no JSON", "[]", "1", "null", '{"type": "new"}', '{"type": "stop"}', '{"type": "stop", "message_id": 5}',
    '{"type": "watch"}', '{"type": "draft", "message_id": "x"}', '{"type": ["draft"]}',
    '{"type": "watch", "session_id": "%s", "message_id": "%s"}',
    '{"type": "watch", "session_id": "%s", "message_id": "%s", "instance_id": 1, "attempt": "1", "offset": null}',
    '{"type": "draft", "session_id": "%s", "message_id": "%s", "attempt": 1, "offset": 0}',
    '{"type": "draft", "session_id": "%s", "message_id": "%s", "attempt": 1, "offset": 9, "text": "", "tool_name": ""}',
    '{"type": "draft", "session_id": "%s", "message_id": "%s", "attempt": 0, "offset": 0, "text": "!", "tool_name": 1}',
)  # fmt: skip


async def test_words_that_are_not_understood_change_nothing(world: World, three: Cluster, reader: Reader) -> None:
    """Of another version, or of somebody else who can write to the database."""
    tap = Tap()
    session_id = await begin(world, reader, tap)
    async with watching(three[1], session_id) as again:
        await again.until_text("처음")
        for id in instance_ids(world.chatdb):
            for word in STRANGE:
                text = word % (session_id, reader.frames[0]["message_id"]) if "%" in word else word
                world.chatdb.fetch("SELECT pg_notify($1, $2)", f"gateway_words_{id}", text)
            world.chatdb.fetch("SELECT pg_notify($1, 'x')", f"gateway_instance_{id}")
        tap.send(delta("과 끝"))
        await again.until_text("처음과 끝")
        tap.end("처음과 끝")
        await again.until_answer()
    for gateway in three:
        assert "Traceback" not in gateway.output()
        assert "notice not understood" in gateway.output()
