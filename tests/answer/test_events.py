"""Server-sent events: what comes out does not depend on how the bytes are cut into pieces."""

import re
from itertools import combinations

import pytest
from hypothesis import configuration, given, settings
from hypothesis import strategies as st

from tests.support.processes import temporary_directory
from upstream.events import OTHER_TIMES, Events
from upstream.replies import ReplyUnusable

configuration.set_hypothesis_home_dir(temporary_directory("gateway-fuzz-"))

MARK = b"\xef\xbb\xbf"
STREAMS: dict[bytes, list[bytes]] = {
    b"": [],
    b"data: a\n\ndata: b\n\n": [b"a", b"b"],
    b"data: a\r\rdata: b\r\r": [b"a", b"b"],
    b"data: a\r\n\r\ndata: b\r\n\r\n": [b"a", b"b"],
    b"data: a\r\n\rdata: b\n\r\n": [b"a", b"b"],
    b"data: a\n\r\ndata: b\r\r\n": [b"a", b"b"],
    b"\r\n\n\r\rdata: a\n\n\n\n": [b"a"],
    b"data: a\ndata: b\r\ndata: c\n\n": [b"a\nb\nc"],
    b"data:a\n\ndata:  a\n\ndata:\ta\n\n": [b"a", b" a", b"\ta"],
    b"data\n\ndata:\n\ndata\ndata\n\n": [b"", b"", b"\n"],
    b"data:a:b\n\n": [b"a:b"],
    b": comment\ndata: a\n:\n:data: b\n\n": [b"a"],
    b"event: x\nid: 1\nretry: 5\ndata: a\nother\n\n": [b"a"],
    b"event: x\n\n: only a comment\n\n": [],
    b"Data: a\ndata : a\n data: a\ndatas: a\n\n": [],
    b"data: a\n\ndata: cut off\n": [b"a"],
    b"data: a\n\ndata: cut off": [b"a"],
    MARK + b"data: a\n\n": [b"a"],
    MARK + b"\ndata: a\n\n": [b"a"],
    MARK + MARK + b"data: a\n\n": [],
    b"\n" + MARK + b"data: a\n\n": [],
    b"data: a\n\n" + MARK + b"data: b\n\n": [b"a"],
    MARK[:2] + b"data: a\n\ndata: b\n\n": [b"b"],
    "data: 가\u2028나\u2029다\u0085라\n\n".encode(): ["가\u2028나\u2029다\u0085라".encode()],
    b"data: a\x0bb\x0cc\x1cd\x00e\n\n": [b"a\x0bb\x0cc\x1cd\x00e"],
    b"data: \xff\xfe\x85\n\n": [b"\xff\xfe\x85"],
}


def read(pieces: list[bytes], max_bytes: int = 1000) -> tuple[list[bytes], bool]:
    """The data of the events, and whether the stream was refused at last."""
    events, found = Events(max_bytes), list[bytes]()
    try:
        for piece in pieces:
            found.extend(events.feed(piece))
    except ReplyUnusable:
        return found, True
    return found, False


def cut(stream: bytes, places: tuple[int, ...]) -> list[bytes]:
    return [stream[begin:end] for begin, end in zip((0, *places), (*places, len(stream)), strict=True)]


@pytest.mark.parametrize("stream", STREAMS)
def test_every_cut_of_a_stream_gives_the_same_events(stream: bytes) -> None:
    expected = (STREAMS[stream], False)
    assert read([stream]) == expected
    assert read([bytes([byte]) for byte in stream]) == expected
    assert read([piece for byte in stream for piece in (b"", bytes([byte]), b"")]) == expected
    for count in (1, 2):
        for places in combinations(range(len(stream) + 1), count):
            assert read(cut(stream, places)) == expected


def by_the_standard(stream: bytes) -> list[bytes]:
    """All events of a stream that is there as a whole."""
    lines = re.split(b"\r\n|\n|\r", stream.removeprefix(MARK))[:-1]
    found, data = [], b""
    for line in lines:
        name, _, value = line.partition(b":")
        if not line:
            found += [data[:-1]] if data else []
            data = b""
        elif name == b"data":
            data += value.removeprefix(b" ") + b"\n"
    return found


PARTS = st.sampled_from([b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"x", MARK, MARK[:1], b"\x85", b"data: y\n\n"])


@settings(max_examples=500, database=None, deadline=None)
@given(st.lists(PARTS, max_size=30).map(b"".join), st.lists(st.integers(0, 60), max_size=8))
def test_any_stream_is_read_by_the_standard(stream: bytes, places: list[int]) -> None:
    inside = tuple(sorted(min(place, len(stream)) for place in places))
    assert read(cut(stream, inside)) == (by_the_standard(stream), False)


@settings(max_examples=300, database=None, deadline=None)
@given(st.lists(PARTS, max_size=30).map(b"".join), st.lists(st.integers(0, 60), max_size=8), st.integers(0, 8))
def test_a_limit_is_met_at_the_same_event_however_the_stream_is_cut(
    stream: bytes, places: list[int], max_bytes: int
) -> None:
    inside = tuple(sorted(min(place, len(stream)) for place in places))
    assert read(cut(stream, inside), max_bytes) == read([stream], max_bytes)


# Limits

LIMIT = 100
LARGEST = b"x" * LIMIT


@pytest.mark.parametrize(
    ("stream", "is_refused"),
    [
        pytest.param(b"data: " + LARGEST + b"\n\n", False, id="largest data"),
        pytest.param(b"data:" + LARGEST + b"x\n\n", True, id="larger data"),
        pytest.param(b"data: " + LARGEST[:50] + b"\ndata: " + LARGEST[:49] + b"\n\n", False, id="two lines"),
        pytest.param(b"data: " + LARGEST[:50] + b"\ndata: " + LARGEST[:50] + b"\n\n", True, id="two longer lines"),
        pytest.param(b"data\n" * (LIMIT + 1) + b"\n", False, id="lines of nothing"),
        pytest.param(b"data\n" * (LIMIT + 2) + b"\n", True, id="more lines of nothing"),
        pytest.param(b"x" * (LIMIT + 6), False, id="longest line"),
        pytest.param(b"x" * (LIMIT + 7), True, id="longer line without an end"),
        pytest.param(b"x" * (LIMIT + 7) + b"\n", True, id="longer line"),
        pytest.param((b"data: " + LARGEST + b"\n\n") * 2 * LIMIT, False, id="many events"),
        pytest.param(b": 8 bytes\n"[:9] + b"\n" + b"\n" * (OTHER_TIMES * LIMIT - 10), False, id="most of the rest"),
        pytest.param(b": 8 bytes\n"[:9] + b"\n" + b"\n" * (OTHER_TIMES * LIMIT - 9), True, id="more of the rest"),
    ],
)
def test_what_is_too_large_is_refused(stream: bytes, is_refused: bool) -> None:
    assert read([stream], LIMIT)[1] == is_refused
    assert read([bytes([byte]) for byte in stream], LIMIT)[1] == is_refused


def test_a_long_line_in_small_pieces_is_read_in_time() -> None:
    """A line of 4 MB in 400,000 pieces; to join it anew for each would take minutes."""
    pieces = [b"data: ", *[b"0123456789"] * 400_000, b"\n\n"]
    (data,), _ = read(pieces, 4_000_000)
    assert len(data) == 4_000_000
