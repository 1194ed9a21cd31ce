import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scale import envelope
from scale.envelope import (
    ABSENT,
    MAX_DEPTH,
    InvalidCallback,
    parse_callback,
    parse_date,
    parse_json,
    response_digest,
    storable,
)
from tests.scale import any_json

TASK_ID = "5f10aa0100c4e10017d2aa01"
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy


def body(**task: Any) -> bytes:
    whole = {
        "task_id": TASK_ID,
        "task": {"task_id": TASK_ID, "type": "annotation", "status": "completed", **task},
    }
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": 1e400}', {"a": float("inf")}),
        (b'{"a": ' + b"7" * 30 + b"}", {"a": 7.777777777777778e29}),
        (b'{"a": ' + b"7" * 400 + b"}", {"a": "7" * 400}),
        (b'{"a": -' + b"7" * 9000 + b"}", {"a": "-" + "7" * 9000}),
        (b'{"a": "\\ud800x"}', {"a": "\ud800x"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"a": "ü"}'.encode("utf-16"), {"a": "ü"}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": NaN, "a": 2}', {"a": 2}),
    ],
    ids=[
        "a number beyond any float",
        "an integer beyond 64 bits",
        "400 digits",
        "more digits than Python reads",
        "a lone surrogate",
        "a byte order mark",
        "UTF-16",
        "a key twice",
        "a key twice next to NaN",
    ],
)
def test_json_that_orjson_refuses_is_read_all_the_same(raw: bytes, value: Any) -> None:
    assert parse_json(raw) == value


def test_large_integers_are_read_alike_by_both_readers() -> None:
    for digits in (
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
    ):
        alone, with_nan = parse_json(f"[{digits}]".encode()), parse_json(f"[{digits}, NaN]".encode())
        assert (type(alone[0]), alone[0]) == (type(with_nan[0]), with_nan[0])


@pytest.mark.parametrize("raw", [b"", b"{", b"not json", b"\xff\xfe\x00", b'{"a": "\x01"}', b"{'a': 1}"])
def test_what_is_not_json_is_not_understood(raw: bytes) -> None:
    with pytest.raises(InvalidCallback, match="not JSON"):
        parse_json(raw)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1000, 1024, 1025, 100_000])
@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_a_body_that_is_nested_too_deep_is_invalid(depth: int, opened: str) -> None:
    closed = "]" if opened == "[" else "}"
    for around in ("%s", '{"text": "[[{", "long": "%s"}' % (" " * 9000) + "%.0s"):
        raw = around % (opened * depth + "1" + closed * depth)
        if "long" in raw:
            raw = raw.replace('"%s"' % (" " * 9000), opened * depth + "1" + closed * depth)
        with pytest.raises(InvalidCallback, match="deeper"):
            parse_json(raw.encode())


def test_the_deepest_body_that_is_taken_can_be_written_again() -> None:
    value = parse_json(
        b'{"text": "[[[[ {{{{", "long": "' + b"x" * 5000 + b'", "deep": ' + b"[" * 199 + b"]" * 199 + b"}"
    )
    assert orjson.loads(orjson.dumps({"around": value})) == {"around": value}


def test_brackets_inside_strings_are_no_depth() -> None:
    assert parse_json(json.dumps({"instruction": "[({" * 5000}).encode()) == {"instruction": "[({" * 5000}


@pytest.mark.parametrize(
    ("printed", "moment"),
    [
        ("2016-9-03T07:38:32.368Z", datetime(2016, 9, 3, 7, 38, 32, 368000, tzinfo=UTC)),
        ("2016-09-03T07:38:32.368Z", datetime(2016, 9, 3, 7, 38, 32, 368000, tzinfo=UTC)),
        ("2016-09-03T07:38:32Z", datetime(2016, 9, 3, 7, 38, 32, tzinfo=UTC)),
        ("2016-09-03T07:38:32.368", datetime(2016, 9, 3, 7, 38, 32, 368000, tzinfo=UTC)),
        ("2016-9-3 7:08", datetime(2016, 9, 3, 7, 8, tzinfo=UTC)),
        ("2016-09-03", datetime(2016, 9, 3, tzinfo=UTC)),
        ("2016-9-03T07:38:32.368123456+02:00", datetime(2016, 9, 3, 5, 38, 32, 368123, tzinfo=UTC)),
        ("2016-9-03T07:38:32-0330", datetime(2016, 9, 3, 11, 8, 32, tzinfo=UTC)),
    ],
)
def test_every_printed_form_of_a_date_is_read(printed: str, moment: datetime) -> None:
    assert parse_date(printed) == moment
    assert parse_date(printed).utcoffset() == timedelta(0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "odd", ["", "soon", "2016-13-01", "2016-9-31T00:00Z", "0000-1-01", 12, None, ["2016-09-03"]]
)
def test_what_is_no_date_is_none(odd: Any) -> None:
    assert parse_date(odd) is None


@unhurried
@given(st.text(alphabet="0123456789-:TZ.+ ", max_size=32))
def test_reading_a_date_never_raises(text: str) -> None:
    moment = parse_date(text)
    assert moment is None or moment.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"[]", "a list, not an object"),
        (b'"x"', "a string, not an object"),
        (b"null", "null, not an object"),
        (b"{}", "no task_id and no batch"),
        (b'{"task": "x"}', "its task is a string, not an object"),
        (
            b'{"task_id": "a", "task": "x", "response": {"category": "y"}}',
            "its task is a string, not an object",
        ),
        (b'{"task_id": "a", "task": []}', "its task is a list, not an object"),
        (b'{"task_id": "", "task": {"type": "annotation"}}', "no task_id and no batch"),
        (b'{"error": "bad", "attachments": []}', "no task_id and no batch"),
    ],
)
def test_a_body_that_is_no_callback_is_invalid_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidCallback, match=reason):
        parse_callback(raw, "live")


def test_an_empty_task_id_is_completed_from_the_task_object() -> None:
    assert parse_callback(b'{"task_id": "", "task": {"task_id": "abc"}}', "live").task_id == "abc"


def test_two_task_ids_that_differ_are_flagged_and_the_first_counts() -> None:
    callback = parse_callback(b'{"task_id": "a", "task": {"task_id": "b"}}', "live")
    assert callback.task_id == "a"
    assert callback.warnings == ["task_id is 'a', task.task_id 'b': the first counts"]


def test_the_outer_response_counts_before_that_of_the_task() -> None:
    whole = {"task_id": "a", "response": {"category": "x"}, "task": {"response": {"category": "y"}}}
    assert parse_callback(json.dumps(whole).encode(), "live").response == {"category": "x"}
    del whole["response"]
    assert parse_callback(json.dumps(whole).encode(), "live").response == {"category": "y"}
    assert parse_callback(b'{"task_id": "a", "response": null, "task": {}}', "live").response is ABSENT


@pytest.mark.parametrize(
    ("task", "event"),
    [
        ({}, "completed"),
        ({"customer_review_status": "pending"}, "completed"),
        ({"customer_review_status": "accepted"}, "accepted"),
        ({"customer_review_status": "approved"}, "accepted"),
        ({"customer_review_status": "rejected"}, "rejected"),
        ({"customer_review_status": "fixed"}, "fixed"),
        ({"customer_review_status": "commented"}, "commented"),
        ({"audits": [{"audit_result": "fixed", "audited_at": "2021-05-12T11:00:00Z"}]}, "fixed"),
        ({"audits": [{"audit_result": "fixed", "audit_source": "scale"}]}, "completed"),
        ({"status": "pending"}, "recalled"),
        ({"status": "pending", "customer_review_status": "rejected"}, "recalled"),
        ({"status": "canceled"}, "canceled"),
        ({"status": "error"}, "error"),
        ({"response": {"error": "unreadable"}}, "error"),
        ({"response": {"error": None, "annotations": []}}, "completed"),
        ({"status": "wondering"}, "completed"),
    ],
)
def test_the_event_is_read_from_the_signs_of_life(task: dict[str, Any], event: str) -> None:
    assert parse_callback(body(**task), "live").event == event


def test_the_status_of_the_envelope_counts_before_that_of_the_task() -> None:
    callback = parse_callback(b'{"task_id": "a", "status": "error", "task": {"status": "completed"}}', "live")
    assert (callback.status, callback.event) == ("error", "error")


def test_the_clock_is_the_latest_of_all_dates_in_whatever_order_they_stand() -> None:
    dates = ["2021-05-11T09:30:00Z", "2021-05-12T09:30:00Z", "2021-05-13T09:30:00Z", "2021-05-14T09:30:00Z"]
    for updated, completed, audited, reviewed in itertools.permutations(dates):
        callback = parse_callback(
            body(
                created_at="2030-01-01T00:00:00Z",
                updated_at=updated,
                completed_at=completed,
                customer_audited_at=reviewed,
                audits=[{"audited_at": audited}, {"audited_at": dates[0]}],
            ),
            "live",
        )
        assert callback.clock == datetime(2021, 5, 14, 9, 30, tzinfo=UTC)


def test_the_latest_audit_of_the_customer_is_the_review_in_whatever_order_they_stand() -> None:
    audits = [
        {"audited_at": "2021-05-12T09:30:00Z", "audit_result": "accepted", "audit_source": "customer"},
        {"audited_at": "2021-05-13T09:30:00Z", "audit_result": "rejected", "audit_source": "customer"},
        {"audited_at": "2021-05-14T09:30:00Z", "audit_result": "fixed", "audit_source": "scale"},
        {"audit_result": "commented"},
    ]
    for shuffled in itertools.permutations(audits):
        assert parse_callback(body(audits=list(shuffled)), "live").event == "rejected"


def test_a_body_without_dates_has_no_clock() -> None:
    assert parse_callback(body(), "live").clock is None


@pytest.mark.parametrize(
    ("task", "key", "environment"),
    [
        ({}, "live", "live"),
        ({}, "test", "test"),
        ({"is_test": True}, "live", "test"),
        ({"is_test": False}, "test", "test"),
        ({"is_test": "true"}, "live", "live"),
    ],
)
def test_a_test_task_is_known_by_its_key_or_its_flag(
    task: dict[str, Any], key: str, environment: str
) -> None:
    assert parse_callback(body(**task), key).environment == environment


@pytest.mark.parametrize(
    ("task", "succeeded"),
    [
        ({}, None),
        ({"callback_succeeded": False, "callback_completed": True}, False),
        ({"callback_completed": True}, True),
        ({"callback_succeeded_at": "2016-09-03T07:38:32Z"}, True),
    ],
)
def test_the_outcome_of_the_callback_is_read_under_each_of_its_names(
    task: dict[str, Any], succeeded: bool | None
) -> None:
    parsed = parse_callback(body(**task), "live").task
    assert parsed is not None
    assert parsed.callback_succeeded is succeeded


@unhurried
@given(
    st.dictionaries(
        st.sampled_from(["task_id", "task", "response", "status", "batch", "name"]), any_json.values
    )
)
def test_any_value_in_any_field_of_the_envelope_is_parsed_or_invalid(whole: dict[str, Any]) -> None:
    try:
        callback = parse_callback(json.dumps(whole).encode(), "live")
    except InvalidCallback:
        return
    assert callback.task_id or callback.batch


@unhurried
@given(any_json.tasks)
def test_any_value_in_any_field_of_the_task_costs_at_most_that_field(task: dict[str, Any]) -> None:
    callback = parse_callback(body(**task), "live")
    assert callback.task_id == TASK_ID
    assert callback.task is not None
    assert response_digest(callback.response) == response_digest(callback.response)


@unhurried
@given(st.dictionaries(st.text(max_size=5), any_json.values, max_size=6))
def test_the_digest_does_not_depend_on_the_order_of_keys(response: dict[str, Any]) -> None:
    turned = dict(reversed(response.items()))
    assert response_digest(turned) == response_digest(response)


def test_the_digest_tells_responses_apart() -> None:
    responses: list[Any] = [ABSENT, {}, [], {"a": 1}, {"a": 2}, {"a": "\ud800"}, {"a": [1, 2]}, {"a": [2, 1]}]
    assert len({response_digest(response) for response in responses}) == len(responses)


@unhurried
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_callback_or_invalid(raw: bytes) -> None:
    with pytest.raises(InvalidCallback):
        parse_callback(raw, "live")


@unhurried
@given(any_json.values)
def test_what_is_storable_has_no_nul_and_no_lone_surrogate(value: Any) -> None:
    for written in (
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    ):
        read = parse_json(written)
        clean = storable(read, written)
        orjson.dumps(clean)
        assert "\\u0000" not in json.dumps(clean)


def test_a_value_with_nothing_to_replace_comes_back_untouched() -> None:
    raw = json.dumps({"instruction": 'say "hello"\n', "label": "ü"}, ensure_ascii=False).encode()
    value = parse_json(raw)
    assert storable(value, raw) is value


def test_a_nul_becomes_the_replacement_character_in_keys_too() -> None:
    raw = b'{"a\\u0000": ["x\\u0000y", {"b": "\\ud800"}]}'
    assert storable(parse_json(raw), raw) == {"a\ufffd": ["x\ufffdy", {"b": "\ufffd"}]}


def parsed_both_ways(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, list[Any]]:
    """Whether the body's response is parsed once, and what parse_callback() returns or raises with and without that."""
    monkeypatch.setattr(envelope, "MIN_REPEATED_BYTES", 0)
    is_parsed_once = envelope._parse_repeated(raw) is not None
    found: list[Any] = []
    for least in (0, len(raw)):
        monkeypatch.setattr(envelope, "MIN_REPEATED_BYTES", least)
        try:
            found.append(repr(parse_callback(raw, "live")))
        except InvalidCallback as problem:
            found.append(str(problem))
    return is_parsed_once, found


RESPONSE = {"annotations": [{"label": "}]", "left": 1.5}], "response": {"a": [{}]}}
TWICE = {
    "response": RESPONSE,
    "task_id": "t",
    "task": {"task_id": "t", "type": "annotation", "response": RESPONSE},
}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    ("value", "is_parsed_once"),
    [
        (
            {"response": {"a": [1]}, "task_id": "t", "task": {"response": {"a": [1]}, "type": "annotation"}},
            True,
        ),
        ({"task": {"response": {"a": [1]}, "type": "x"}, "task_id": "t", "response": {"a": [1]}}, True),
        (
            {"task": {"response": {"a": [1]}}, "task_id": "t", "response": {"a": [1]}},
            False,
        ),  # `}` follows both
        ({"response": {"a": float("nan")}, "task_id": "t", "task": {"response": {"a": float("nan")}}}, True),
        ({"response": {}, "task_id": "t", "task": {"response": {}}}, True),
        (TWICE, False),  # the outermost ones are not found
        ({"response": {"a": 1}, "task_id": "t", "task": {"response": {"a": 2}}}, False),
        ({"response": [{"a": 1}], "task_id": "t", "task": {"response": [{"a": 1}]}}, False),
        ({"response": {"a": 1}, "task_id": "t", "task": {"params": {"response": {"a": 1}}}}, False),
        ({"task_id": "t", "task": {"response": {"a": 1}}, "x": {"response": {"a": 1}}}, False),
        ({"response": {"a": 1}, "task_id": "t", "task": [{"response": {"a": 1}}]}, False),
        ({"response": {"a": 1}, "task_id": "t", "task": None}, False),
        ([{"response": {"a": 1}}, {"response": {"a": 1}}], False),
    ],
)
def test_a_response_that_is_repeated_is_parsed_once(
    value: Any, is_parsed_once: bool, separators: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.dumps(value, separators=separators).encode()
    once, (short, plain) = parsed_both_ways(raw, monkeypatch)
    assert (once, short) == (is_parsed_once, plain)


@pytest.mark.parametrize("end", range(-30, 0))
def test_a_body_that_is_cut_off_or_goes_on_is_refused_as_ever(
    end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = b'{"response": {"a": {}}, "task_id": "t", "task": {"response": {"a": {}}}}'
    for broken in (raw[:end], raw[:end] + b"}" + raw[end:], raw[:end] + raw[end + 1 :]):
        _, (short, plain) = parsed_both_ways(broken, monkeypatch)
        assert short == plain


def test_a_response_named_in_a_text_is_no_response(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"response": {"a": 1}})
    raw = json.dumps(
        {"task_id": "t", "instruction": text, "task": {"instruction": text, "type": "x"}}
    ).encode()
    once, (short, plain) = parsed_both_ways(raw, monkeypatch)
    assert (once, short) == (False, plain)


@unhurried
@given(
    st.recursive(
        st.none() | st.integers(0, 3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["response", "task", "task_id", "a"]), inner, max_size=4)
        ),
        max_leaves=30,
    ),
    st.data(),
)
def test_any_repetition_is_parsed_as_json_says(value: Any, data: st.DataObject) -> None:
    response = data.draw(st.sampled_from([{}, {"a": {}}, {"response": {"a": 1}}, [1], 7]))
    raw = json.dumps(
        {"response": response, "task_id": "t", "x": value, "task": {"y": value, "response": response}}
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        _, (short, plain) = parsed_both_ways(raw.encode(), monkeypatch)
    assert short == plain
