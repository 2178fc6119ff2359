"""An answer grows by start, tool and deltas, and ends with the answer itself."""

from collections.abc import Iterator

import pytest

from tests.support.backends import Drop, Held, Json, Stream, answer, event
from tests.support.card_qna import FAQS
from tests.support.chat import Frame
from tests.support.cluster import answers_of, session_locked
from tests.support.gateway import Gateway
from tests.support.streams import TEXT, Reader, Tap, delta, last, pieces, units, watching
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio

MALFORMED = "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."


async def streamed(world: World, reader: Reader, *sent: bytes | float) -> Frame:
    """The answer to a prompt for which the LLM server sends this."""
    text = unique("질문")
    world.llm.on(text, Stream(sent))
    await reader.visitor.prompt(text)
    return await reader.until_answer()


async def test_start_tool_and_deltas_come_before_the_answer(world: World, reader: Reader) -> None:
    """Each as it is documented, the first of them the start."""
    frame = await streamed(world, reader, event({"tool_name": "query_faq_database"}), *pieces())
    about = {"message_id": frame["message_id"], "attempt": 1}
    assert reader.frames[:2] == [{"type": "start"} | about, {"type": "tool", "tool_name": "query_faq_database"} | about]
    assert reader.kinds.count("delta") > 3
    assert TEXT.startswith(reader.text())
    assert frame["message"] == TEXT
    await reader.visitor.nothing_pending()


async def test_a_tool_that_comes_with_text_is_shown_with_it(world: World, reader: Reader) -> None:
    """Both may stand in one object; a later tool is shown too, the same one not again."""
    text, tap = unique("질문"), Tap()
    world.llm.on(text, tap)
    await reader.visitor.prompt(text)
    tap.send(event({"tool_name": "query_faq_database", "delta": "찾는 중"}))
    await reader.until_text("찾는 중")
    tap.send(event({"tool_name": "query_faq_database"}), delta(" ..."))
    await reader.until_text("찾는 중 ...")
    tap.send(event({"tool_name": "query_term_database\0" + "x" * 5000}))
    await reader.next()
    tap.end("답")
    await reader.until_answer()
    assert reader.kinds == ["start", "tool", "delta", "delta", "tool", "answer"]
    assert reader.of_type("tool")[1]["tool_name"].startswith("query_term_databasex")


async def test_a_reply_that_is_no_stream_has_a_start_and_the_answer(reader: Reader) -> None:
    """Whether the LLM server is going to stream nobody knows when it is asked."""
    await reader.visitor.prompt(unique("질문"))
    await reader.until_answer()
    assert reader.kinds == ["start", "answer"]


async def test_the_start_comes_before_the_llm_server_has_said_anything(world: World, reader: Reader) -> None:
    """When it is asked, not when it answers."""
    text, held = unique("질문"), Held(answer("늦은 답"))
    world.llm.on(text, held)
    await reader.visitor.prompt(text)
    assert (await reader.next())["type"] == "start"
    held.release()
    assert (await reader.next())["message"] == "늦은 답"


async def test_an_answer_from_memory_has_no_start(reader: Reader) -> None:
    """By itself, and behind another prompt."""
    await reader.visitor.prompt(FAQS[0].question)
    await reader.visitor.prompt(unique("질문"))
    await reader.visitor.prompt(FAQS[1].question)
    for _ in range(3):
        await reader.until_answer()
    assert reader.kinds == ["answer", "start", "answer", "answer"]


async def test_offsets_count_utf_16_and_no_piece_ends_within_a_code_point(world: World, reader: Reader) -> None:
    """Emoji, their sequences, combining marks, decomposed Hangul, and what is right to left."""
    text = 'a😀b👩‍👩‍👧‍👦c\u0301e\u0308 한글 \u1112\u1161\u11ab 🇰🇷 👍🏽 שלום \u2028\u0085 "\\\t\x01 𝒳𝒴 끝'
    text_sent, tap = unique("질문"), Tap()
    world.llm.on(text_sent, tap)
    await reader.visitor.prompt(text_sent)
    for n, character in enumerate(text, 1):
        tap.send(delta(character))
        await reader.until_text(text[:n])
    tap.end(text)
    assert (await reader.until_answer())["message"] == text
    offset = 0
    for frame in reader.of_type("delta"):
        assert frame["offset"] == offset
        offset += units(frame["text"])
    assert offset == units(text)


async def test_half_a_code_point_is_passed_over(world: World, reader: Reader) -> None:
    """A delta with half a surrogate pair, on either side, or bytes that are no UTF-8; the answer is the truth."""
    bad = [rb'data: {"delta": "\ud83d"}', rb'data: {"delta": "x\ude00"}', b'data: {"delta": "\xed\xa0\xbd"}']
    frame = await streamed(
        world, reader, delta("가"), 0.1, *(one + b"\n\n" for one in bad), delta("나"), 0.2, last("가😀나")
    )
    assert (reader.text(), frame["message"]) == ("가나", "가😀나")


async def test_empty_text_makes_no_delta_and_nul_is_left_out(world: World, reader: Reader) -> None:
    """Nothing but NUL is nothing."""
    sent = [delta(""), delta("\0"), event({"delta": None}), event({"delta": 5}), event({"tool_name": ""})]
    frame = await streamed(world, reader, *sent, 0.1, delta("가\0나"), 0.2, last("가나"))
    assert reader.kinds == ["start", "delta", "answer"]
    assert (reader.text(), frame["message"]) == ("가나", "가나")


async def test_one_delta_of_half_a_megabyte(world: World, reader: Reader) -> None:
    """Comes whole."""
    big = "카드😀" * 45_000
    frame = await streamed(world, reader, delta(big), 0.5, last(big))
    assert reader.text() == frame["message"] == big
    assert reader.kinds == ["start", "delta", "answer"]


async def test_ten_thousand_deltas_become_few(world: World, reader: Reader) -> None:
    """As fast as they can be read: what comes together is sent together."""
    text = "".join(chr(0xAC00 + n % 11172) for n in range(10_000))
    packets = [b"".join(delta(one) for one in text[n : n + 20]) for n in range(0, 10_000, 20)]
    frame = await streamed(world, reader, *packets, 0.5, last(text))
    assert reader.text() == frame["message"] == text
    assert reader.kinds.count("delta") < 300


async def test_deltas_that_come_with_the_answer_are_not_sent(world: World, reader: Reader) -> None:
    """In one packet with it, or just before: the Reader finds those that come after the answer."""
    for n in range(30):
        packet = delta("나") + delta("다") + last("가나다") + delta("라")
        assert (await streamed(world, reader, delta("가"), 0.001 * (n % 2), packet))["message"] == "가나다"
        assert "가나다".startswith(reader.text(reader.frames[-1]["message_id"]))
    await reader.visitor.nothing_pending()


async def test_the_deltas_of_a_second_prompt_come_after_the_answer_of_the_first(world: World, reader: Reader) -> None:
    """Sent at once, one is answered after the other."""
    texts = [unique("질문") for _ in range(3)]
    for text in texts:
        world.llm.on(text, Stream(pieces(f"답: {text}", 0.01)))
    ids = [await reader.visitor.prompt(text) for text in texts]
    for _ in texts:
        await reader.until_answer()
    order = [frame["message_id"] for frame in reader.frames]
    assert order == sorted(order, key=ids.index)
    assert [reader.answers[id]["message"] for id in ids] == [f"답: {text}" for text in texts]


BROKEN = {
    "ends without its last object": Stream([delta("반쯤"), 0.1]),
    "breaks off": Stream([delta("반쯤"), 0.1], then="break"),
    "is reset": Stream([delta("반쯤"), 0.1], then="reset"),
    "says that it failed": Stream([delta("반쯤"), 0.1, event({"error": "비밀"}), last("늦었다")]),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_stream_that_fails_is_answered_by_the_failures_sentence(
    world: World, reader: Reader, fault: str
) -> None:
    """Nothing of its deltas is stored, and it is not asked again."""
    text = unique("질문")
    world.llm.on(text, BROKEN[fault])
    await reader.visitor.prompt(text)
    frame = await reader.until_answer()
    assert (frame["message"], "stopped" in frame) == (MALFORMED, False)
    assert reader.text() == "반쯤"
    assert [row["content"] for row in answers_of(world.chatdb, reader.visitor.session_id)] == [MALFORMED]
    await reader.visitor.prompt(unique("계속"))
    assert (await reader.until_answer())["message"].startswith("re: ")
    assert len(world.llm.calls_with(query=text)) == 1


async def test_a_failure_before_any_text_has_a_start_too(world: World, reader: Reader) -> None:
    """A status, and a connection that is reset."""
    for reply in (Json({}, 503), Drop()):
        text = unique("질문")
        world.llm.on(text, reply)
        await reader.visitor.prompt(text)
        await reader.until_answer()
    assert reader.kinds == ["start", "answer", "start", "answer"]


@pytest.fixture(scope="module")
def impatient(world: World) -> Iterator[Gateway]:
    """A gateway that is soon out of patience with the database."""
    with Gateway(world.settings | {"DB_TIMEOUT": "0.5"}) as gateway:
        yield gateway


@pytest.mark.parametrize("held_up", [False, True])
async def test_no_delta_comes_while_the_answer_is_being_stored(world: World, impatient: Gateway, held_up: bool) -> None:
    """However slow the database is; also where the answer cannot be stored and is shown before it is."""
    text, tap = unique("질문"), Tap()
    world.llm.on(text, tap)
    async with watching(impatient) as reader:
        await reader.visitor.prompt(text)
        tap.send(delta("가"))
        await reader.until_text("가")
        with session_locked(world.chatdb, reader.visitor.session_id):
            tap.send(delta("나") + delta("다"), last("가나다"), delta("라"))
            await world.llm.called(query=text)
            if held_up:
                await reader.until_answer()
        if not held_up:
            await reader.until_answer()
        (frame,) = reader.answers.values()
        assert frame["message"] == "가나다"
        await reader.visitor.prompt(unique("계속"))
        await reader.until_answer()
        assert [kind for kind in reader.kinds if kind != "delta"] == ["start", "answer", "start", "answer"]
