"""Where the JSON text of a file ends, and how much of it may be in memory."""

import io

import ijson
import pytest

from scale.json_stream import JsonSource, ValueTooLarge, build_value, error_message, finish, json_events


def value_of(content: bytes, size: float = float("inf")) -> tuple[object, JsonSource, bool]:
    source = JsonSource(io.BytesIO(content), size)
    events = json_events(source)
    value = build_value(*next(events), events)
    binary = finish(events)
    return value, source, binary or source.has_binary_part


@pytest.mark.parametrize("padding", [b"", b"  ", b"\n", b"\x00", b"  \x00\x00\x00\x00", b"\x00 \x00\r\n"])
def test_padding_after_the_text_is_not_part_of_it(padding: bytes) -> None:
    assert value_of(b'[{"a": 1}]' + padding)[::2] == ([{"a": 1}], False)


@pytest.mark.parametrize(
    "binary",
    [
        b"\x00\x01\x02",
        b"  \x00\x00\x00\x80\x3f",
        b"\x01\x02\x03",
        b"   \xff\xfe\x00",
        b"\x00" * 200_000 + b"a",
    ],
)
def test_typed_arrays_after_the_text_are_noticed(binary: bytes) -> None:
    assert value_of(b'[{"a": 1}]' + binary)[::2] == ([{"a": 1}], True)


def test_a_byte_order_mark_is_not_part_of_the_text() -> None:
    assert value_of(b"\xef\xbb\xbf[1]")[0] == [1]


@pytest.mark.parametrize("before", [0, 1, 65_520, 65_530, 65_535])
def test_references_into_the_binary_part_are_noticed_wherever_they_lie(before: int) -> None:
    content = b"[" + b" " * before + b'{"points": {"$items": "float32:0:12"}}]\x00\x01'
    assert value_of(content)[1].has_references
    assert not value_of(b"[" + b" " * before + b'{"points": "$items"}]\x00\x01')[1].has_references


@pytest.mark.parametrize("more", [b"[2]", b" x", b"]", b"\n{"])
def test_text_after_the_text_is_an_error(more: bytes) -> None:
    with pytest.raises(ijson.JSONError):
        value_of(b"[1]" + more)


def test_a_text_that_a_nul_byte_cuts_is_incomplete() -> None:
    with pytest.raises(ijson.IncompleteJSONError) as raised:
        value_of(b'[{"a": \x00 1}]')
    assert error_message(raised.value) == "parse error: premature EOF"


def test_a_value_beyond_the_bound_is_not_read() -> None:
    with pytest.raises(ValueTooLarge):
        value_of(b"[" + b"1," * 200_000 + b"1]", 100_000)
