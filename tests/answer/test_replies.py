"""Replies translated into answers, and answers into rows, frames and entries: what is kept, and what is not."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from chat.frames import PlacedAnswer, answer_row, history_entry
from common.ids import new_uuid, read_uuid
from upstream.replies import Answer, ReplyUnusable, read_json, read_object, read_recommendation, read_reply

TRUTHY: list[Any] = [None, 0, 1, "", "true", "false", [], ["x"], {}, {"a": 1}, 1.0]
ODD_LISTS: list[Any] = [None, 0, "text", {"a": 1}, True]


def reply(content: Any, outer: Any = "밖", name: Any = "tool") -> dict[str, Any]:
    return {"answer": outer, "tool_response": {"tool_name": name, "tool_response_content": content}}


@pytest.mark.parametrize("value", TRUTHY, ids=repr)
def test_only_true_requires_a_login(value: Any) -> None:
    """In a reply as in what is stored; nothing else is taken for it."""
    assert read_reply(reply({"answer": "답", "login_required": value})).payload == {"login_required": False}
    assert frame({"login_required": value})["login_required"] is False
    assert frame({"login_required": True})["login_required"] is True
    assert read_reply(reply({"answer": "답", "login_required": True})).payload == {"login_required": True}


@pytest.mark.parametrize("value", ODD_LISTS, ids=repr)
def test_what_should_be_a_list_and_is_none_is_left_out(value: Any) -> None:
    content = {"answer": "답", "card_list": value, "relatedQuestions": value}
    assert read_reply(reply(content)).payload == {"login_required": False}
    assert frame({"card_list": value, "related_questions": value}).keys() == frame({}).keys()


def test_lists_are_kept_also_empty_ones() -> None:
    content = {"answer": "답", "card_list": [], "relatedQuestions": [{"가": [1]}], "related_questions": ["x"]}
    expected = {"login_required": False, "card_list": [], "related_questions": [{"가": [1]}]}
    assert read_reply(reply(content)).payload == expected
    assert expected.items() <= frame(expected).items()


def test_a_nested_answer_has_lists_in_either_place_and_the_outer_place_counts() -> None:
    inner = {"answer": "안", "card_list": ["안"], "relatedQuestions": ["안"], "login_required": True}
    assert read_reply(reply({"answer": inner})) == Answer(
        "안", "tool", {"login_required": True, "card_list": ["안"], "related_questions": ["안"]}
    )
    both = {"answer": inner, "card_list": ["밖"], "login_required": False}
    assert read_reply(reply(both)) == Answer(
        "안", "tool", {"login_required": False, "card_list": ["밖"], "related_questions": ["안"]}
    )


@pytest.mark.parametrize(
    ("content", "outer", "message"),
    [
        ({"answer": "안"}, "밖", "안"),
        ({"answer": " \n\0"}, "밖", "밖"),
        ({"answer": None}, "밖", "밖"),
        ({"answer": {"answer": 5}}, "밖", "밖"),
        ({"answer": {"answer": {"answer": "너무 깊이"}}}, "밖", "밖"),
        ("raw", "밖", "밖"),
        (["raw"], "밖", "밖"),
        ({"answer": "가\0나"}, None, "가나"),
        ({"answer": " 그대로 \n"}, None, " 그대로 \n"),
    ],
)
def test_the_message_is_the_tools_else_the_outer_one(content: Any, outer: Any, message: str) -> None:
    assert read_reply(reply(content, outer)).message == message


@pytest.mark.parametrize("outer", [None, "", " \t\n", "\0", 5, ["답"], {"answer": "답"}], ids=repr)
@pytest.mark.parametrize("content", [None, "raw", ["raw"], {}, {"answer": ""}], ids=repr)
def test_without_any_message_a_reply_is_unusable(content: Any, outer: Any) -> None:
    for one in (reply(content, outer), {"answer": outer}, {"answer": outer, "tool_response": content}, {}):
        with pytest.raises(ReplyUnusable):
            read_reply(one)


@pytest.mark.parametrize("tool", [None, {}, [], "text", 5, False], ids=repr)
def test_what_is_no_tool_response_is_none(tool: Any) -> None:
    assert read_reply({"answer": "답", "tool_response": tool}) == Answer("답")


@pytest.mark.parametrize(("name", "expected"), [("a\0b", "ab"), (5, None), (None, None), (["x"], None), ("", "")])
def test_the_name_of_a_tool_is_text(name: Any, expected: str | None) -> None:
    assert read_reply(reply({"answer": "답"}, name=name)).tool_name == expected


def test_nul_is_taken_out_of_everything_that_is_kept() -> None:
    content = {"answer": "답", "card_list": ["\0가", {"나\0": ["\0", {"다": "라\0"}]}, 1, None, True]}
    cards = ["가", {"나": ["", {"다": "라"}]}, 1, None, True]
    assert read_reply(reply(content)).payload["card_list"] == cards
    assert read_recommendation({"answer": "답\0", "card_list": content["card_list"]}) == Answer(
        "답", "consumption_recommend", {"login_required": False, "card_list": cards}
    )


@pytest.mark.parametrize(
    "value",
    [
        {"answer": "답", "card_list": None},
        {"answer": "답"},
        {"answer": "답", "card_list": {}},
        {"answer": "답", "card_list": "x"},
        {"answer": "답", "card_list": [], "login_required": None},
        {"answer": "답", "card_list": [], "login_required": 0},
        {"answer": "답", "card_list": [], "login_required": "false"},
        {"answer": " ", "card_list": []},
        {"answer": None, "card_list": []},
        {"card_list": []},
    ],
    ids=repr,
)
def test_a_recommendation_that_does_not_fit_is_unusable(value: dict[str, Any]) -> None:
    with pytest.raises(ReplyUnusable):
        read_recommendation(value)


@pytest.mark.parametrize("more", [{}, {"login_required": False}, {"login_required": True}, {"other": 1}], ids=repr)
def test_a_recommendation_never_asks_for_a_login(more: dict[str, Any]) -> None:
    """Its visitor has just logged in."""
    assert read_recommendation({"answer": "답", "card_list": ["카드"]} | more) == Answer(
        "답", "consumption_recommend", {"login_required": False, "card_list": ["카드"]}
    )


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -(2**63), -(2**63) - 1, -(10**30)])
def test_integers_stay_as_they_are_written(number: int) -> None:
    """Beside floats, which stay floats; also where one is stored and read."""
    placed = PlacedAnswer(new_uuid(), new_uuid(), datetime.now(UTC), Answer("답", None, read_payload(number)))
    for text in (answer_row(new_uuid(), None, new_uuid(), placed.answer)["payload"], placed.to_frame().decode()):
        assert f'"card_list":[{number},2.5,1e+30]' in str(text).replace("1e30", "1e+30")
    stored = row(None) | {"payload": f'{{"card_list": [{number}, 2.5]}}'}
    assert f'"card_list":[{number},2.5]' in PlacedAnswer.from_row(stored).to_frame().decode()  # type: ignore[arg-type]


def test_what_is_nested_too_deeply_for_long_integers_is_read_all_the_same() -> None:
    text = b"[" * 1010 + b"1" * 30 + b"]" * 1010
    assert isinstance(read_json(text), list)


def read_payload(number: int) -> dict[str, Any]:
    read: dict[str, Any] = read_json(f'{{"login_required": false, "card_list": [{number}, 2.5, 1e30]}}'.encode())
    return read


def test_a_byte_order_mark_is_passed_over_once_and_what_is_no_object_is_unusable() -> None:
    assert read_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    for body in (b"", b"[]", b"null", b'"x"', b"5", b"{", b'\xef\xbb\xbf\xef\xbb\xbf{"a": 1}', b'{"a": "\xff"}'):
        with pytest.raises(ReplyUnusable):
            read_object(body)


# What is stored, read and sent


def row(payload: Any, **more: Any) -> dict[str, Any]:
    """As ChatDB gives it."""
    return {
        "id": new_uuid(),
        "message_id": new_uuid(),
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "content": "답",
        "source_tool": None,
        "payload": None if payload is None else json.dumps(payload),
        "is_user": False,
        "is_helpful": None,
    } | more


def frame(payload: Any, **more: Any) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(PlacedAnswer.from_row(row(payload, **more)).to_frame())  # type: ignore[arg-type]
    return sent


def test_a_time_has_its_microseconds_also_where_they_are_none() -> None:
    """So that all of them sort as text."""
    assert frame({})["timestamp"] == "2026-01-02T03:04:05.000000+00:00"
    assert history_entry(row({}))["timestamp"] == "2026-01-02T03:04:05.000000+00:00"  # type: ignore[arg-type]


@pytest.mark.parametrize("payload", [None, [], "text", 5, True, {"card_list": 5, "other": "secret"}], ids=repr)
def test_an_odd_payload_of_an_older_version_is_a_plain_answer(payload: Any) -> None:
    assert frame(payload).keys() == {"sender", "timestamp", "message_id", "message", "login_required"}
    assert frame(payload)["login_required"] is False


@pytest.mark.parametrize("value", [None, 0, 1, "true", [], False], ids=repr)
def test_only_true_is_stopped(value: Any) -> None:
    assert "stopped" not in frame({"stopped": value})
    assert frame({"stopped": True})["stopped"] is True
    assert history_entry(row({"stopped": True}))["stopped"] is True  # type: ignore[arg-type]


def test_an_entry_of_the_history_has_what_the_frame_had_and_its_feedback() -> None:
    """A prompt has only what was said."""
    payload = {"login_required": True, "card_list": ["가"], "related_questions": ["나"]}
    entry = history_entry(row(payload, source_tool="tool", is_helpful=False))  # type: ignore[arg-type]
    sent = frame(payload, source_tool="tool")
    assert {name: entry[name] for name in entry.keys() & sent.keys() - {"message_id"}} == {
        name: sent[name] for name in sent.keys() - {"sender", "message", "message_id"}
    }
    assert (entry["content"], entry["is_helpful"], entry["is_user"]) == ("답", False, False)
    assert history_entry(row(None, is_user=True)).keys() == {"is_user", "content", "message_id", "timestamp"}  # type: ignore[arg-type]


# Ids


def test_ids_are_of_version_4_and_each_is_another() -> None:
    ids = {new_uuid() for _ in range(1000)}
    assert len(ids) == 1000
    assert {(id.version, id.variant) for id in ids} == {(4, "specified in RFC 4122")}


@pytest.mark.parametrize("change", ["{}x", "x{}", "{}\n", " {}", "{{{}}}", "urn:uuid:{}"])
def test_an_id_is_read_whole_or_not_at_all(change: str) -> None:
    id = str(new_uuid())
    assert str(read_uuid(id)) == str(read_uuid(id.upper())) == id
    assert read_uuid(change.format(id)) is read_uuid(id[1:]) is read_uuid(id.replace("-", "")) is None
    assert read_uuid(5) is read_uuid(None) is read_uuid([id]) is read_uuid(id.encode()) is None
