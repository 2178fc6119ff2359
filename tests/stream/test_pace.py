"""When deltas are sent, and what a client that reads slowly, or never, gets of them."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.observability.scrape import scrape
from tests.support.backends import Stream, answer, event
from tests.support.chat import new_id
from tests.support.cluster import answers_of, holder_of
from tests.support.gateway import Gateway
from tests.support.raw import TEXT as TEXT_FRAME
from tests.support.raw import RawSocket
from tests.support.streams import Reader, Tap, delta, pieces, watching
from tests.support.waiting import become
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio

DELTA_SECONDS = 0.04
SLOW_SECONDS = 1.0
HUNDRED = "가나다라마바사아자차" * 10
DEAF_PIECES = 1700  # of a hundred characters: half a megabyte
SEND_TIMEOUT = 2.0
MORE_PROMPTS = 8  # whose answers fill what the kernel buffers


@pytest.fixture(scope="module")
def leisurely(world: World) -> Iterator[Gateway]:
    """A gateway with a second between two deltas."""
    with Gateway(world.settings | {"DELTA_SECONDS": str(SLOW_SECONDS)}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def impatient(world: World) -> Iterator[Gateway]:
    """A gateway that waits two seconds for a client that does not read."""
    with Gateway(world.settings | {"SEND_TIMEOUT": str(SEND_TIMEOUT)}) as gateway:
        yield gateway


async def seconds_until(reader: Reader, text: str) -> float:
    """How long it takes until a text is there."""
    since = time.monotonic()
    await reader.until_text(text)
    return time.monotonic() - since


async def test_the_first_text_and_the_first_after_a_pause_come_at_once(world: World, leisurely: Gateway) -> None:
    """Also with a tool before it; what comes soon after it waits."""
    text, tap = unique("질문"), Tap()
    world.llm.on(text, tap)
    async with watching(leisurely) as reader:
        await reader.visitor.prompt(text)
        await reader.next()
        tap.send(event({"tool_name": "query_faq_database"}), delta("가"))
        assert await seconds_until(reader, "가") < SLOW_SECONDS * 0.8
        tap.send(delta("나"))
        assert await seconds_until(reader, "가나") > SLOW_SECONDS * 0.2
        await asyncio.sleep(SLOW_SECONDS * 1.3)  # the pause
        tap.send(delta("다"))
        assert await seconds_until(reader, "가나다") < SLOW_SECONDS * 0.8
        session_id = reader.visitor.session_id
    await asyncio.sleep(SLOW_SECONDS * 1.3)
    async with watching(leisurely, session_id) as again:
        assert await seconds_until(again, "가나다") < SLOW_SECONDS * 0.8
        tap.end("가나다라")
        await again.until_answer()
        assert again.kinds == ["start", "tool", "delta", "answer"]


@pytest.mark.parametrize("seconds", [DELTA_SECONDS, SLOW_SECONDS])
async def test_deltas_come_together_every_delta_seconds(
    world: World, reader: Reader, leisurely: Gateway, seconds: float
) -> None:
    """No more of them than the setting allows in the time that the answer took."""
    text = unique("질문")
    world.llm.on(text, Stream(pieces(HUNDRED * 2, 0.012)))

    async def count(reader: Reader) -> None:
        await reader.visitor.prompt(text)
        await reader.until_answer()
        times = [at for at, kind in zip(reader.times, reader.kinds, strict=True) if kind == "delta"]
        assert 2 <= len(times) <= (reader.times[-1] - times[0]) / seconds + 3
        assert len(times) >= (times[-1] - times[0]) / seconds / 3

    if seconds == DELTA_SECONDS:
        await count(reader)
    else:
        async with watching(leisurely) as slow:
            await count(slow)


def megabytes(gateway: Gateway) -> float:
    """The memory that a gateway uses."""
    return float(psutil.Process(gateway.process.pid).memory_info().rss) / 2**20


def read_frames(client: RawSocket) -> list[dict[str, Any]]:
    """All frames up to an answer."""
    frames: list[dict[str, Any]] = []
    while not frames or "sender" not in frames[-1]:
        opcode, payload = client.read_frame()
        if opcode == TEXT_FRAME:
            frames.append(json.loads(payload))
    return frames


def make_big(world: World) -> tuple[str, Tap, str]:
    """A prompt, the stream that answers it, and the answer."""
    text, tap = unique("큰 답"), Tap()
    world.llm.on(text, tap)
    return text, tap, HUNDRED * DEAF_PIECES


async def stream_to_the_deaf(gateway: Gateway, tap: Tap) -> None:
    """Half a megabyte in a few seconds; a metric says when all of it was taken in."""
    before = megabytes(gateway)
    for _ in range(DEAF_PIECES // 100):
        for _ in range(10):
            tap.send(*(delta(HUNDRED) for _ in range(10)))
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert megabytes(gateway) < before + 10


async def test_a_client_that_reads_late_gets_few_and_long_deltas(world: World, impatient: Gateway) -> None:
    """There is no queue of them: while it does not read, hardly any is sent, and the memory stays as it was."""
    text, tap, whole = make_big(world)
    with RawSocket(impatient, receive_buffer=4096, segment_bytes=536) as deaf:
        deaf.handshake("stream=true")
        before = scrape(impatient).value("gateway_deltas_total")
        deaf.send_json({"message_id": new_id(), "message": text})
        await world.llm.called(query=text)
        await stream_to_the_deaf(impatient, tap)
        sent = scrape(impatient).value("gateway_deltas_total") - before
        reading = asyncio.create_task(asyncio.to_thread(read_frames, deaf))
        await become(lambda: scrape(impatient).value("gateway_deltas_total") - before > sent, what="it is sent more")
        tap.end(whole)
        *frames, whole_frame = await reading
    assert whole_frame["message"] == whole
    made = ""
    for frame in frames[1:]:
        assert frame["offset"] == len(made)
        made += frame["text"]
    assert whole.startswith(made)
    assert len(made) > len(whole) // 2
    assert sent < 60
    assert max(len(frame["text"]) for frame in frames[1:]) > 10 * len(HUNDRED)


async def test_a_client_that_never_reads_is_dropped_when_its_answer_cannot_be_sent(
    world: World, impatient: Gateway
) -> None:
    """Not before; its answer is stored."""
    text, tap, whole = make_big(world)
    with RawSocket(impatient, receive_buffer=4096, segment_bytes=536) as deaf:
        session_id = deaf.handshake("stream=true")
        deaf.send_json({"message_id": new_id(), "message": text})
        await world.llm.called(query=text)
        await stream_to_the_deaf(impatient, tap)
        await asyncio.sleep(SEND_TIMEOUT)
        assert holder_of(world.chatdb, session_id) is not None
        tap.end(whole)
        world.llm.on(text, answer(whole))
        for _ in range(MORE_PROMPTS):
            deaf.send_json({"message_id": new_id(), "message": text})
        await become(lambda: holder_of(world.chatdb, session_id) is None, what="it is dropped")
    await become(lambda: len(answers_of(world.chatdb, session_id)) == 1 + MORE_PROMPTS)
    assert {row["content"] for row in answers_of(world.chatdb, session_id)} == {whole}


async def test_a_draft_is_forgotten_with_its_turn(world: World, impatient: Gateway) -> None:
    """Also where nobody sees it, or its visitor has left."""
    text, tap = unique("질문"), Tap()
    world.llm.on(text, tap)
    async with watching(impatient) as reader:
        await reader.visitor.prompt(text)
        tap.send(delta("가"))
        await reader.until_text()
        await become(lambda: scrape(impatient).value("gateway_drafts") == 1)
    tap.end("가나")
    await become(lambda: scrape(impatient).value("gateway_drafts") == 0)
    assert len(answers_of(world.chatdb, reader.visitor.session_id)) == 1
