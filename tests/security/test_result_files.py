"""Attacks with the files behind results: small ones that cost much memory, many rows or much time."""

import contextlib
import io
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from PIL import Image

from pipeline.artifacts import extract
from scale import result_files
from scale.masks import UnreadableMask, read_index_image
from scale.result_files import MAX_FRAME, ResultFileReader, UnreadableFile
from tests.counting import calls

T = TypeVar("T")
BOX = {"type": "box", "left": 1, "top": 2, "width": 3, "height": 4}


def reader_of(
    content: Any, role: str = "annotations", task_type: str = "videoannotation"
) -> ResultFileReader:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ResultFileReader(role, task_type, {}, io.BytesIO(body))


def until_unreadable(values: Iterator[T]) -> Iterator[T]:
    with contextlib.suppress(UnreadableFile):
        yield from values


# Work.


def frames(n: int) -> bytes:
    return json.dumps(
        [{"annotations": [BOX] * 3, "global_attributes": {"n": k % 7}} for k in range(n)]
    ).encode()


def tracks(n: int) -> bytes:
    keys = [{"key": k, "left": 1, "top": 2, "width": 3, "height": 4} for k in range(5)]
    return json.dumps(
        {"annotations": {f"u{k}": {"label": "x", "geometry": "box", "frames": keys} for k in range(n)}}
    ).encode()


def late_labels(n: int) -> bytes:
    keys = b",".join([b'{"key":1,"left":1,"top":2,"width":3,"height":4}'] * n)
    return b'{"annotations":{"u":{"frames":[' + keys + b'],"label":"x","geometry":"box"}}}'


def other_keys(n: int) -> bytes:
    return b'{"annotations":[],' + b",".join(b'"k%d":[1]' % k for k in range(n)) + b"}"


def repeated_lists(n: int) -> bytes:
    return b"{" + b",".join([b'"annotations":[{"type":"point","x":1,"y":2}]'] * n) + b"}"


def points(n: int) -> bytes:
    return json.dumps({"objects": [{"index": 1}], "point_objects": [[1] * 10] * n}).encode()


def clips(n: int) -> bytes:
    return json.dumps([{"clips": [{"timestamp": k, "text": "x"} for k in range(n)]}]).encode()


def padding(n: int) -> bytes:
    return b"[]" + b"\x00" * 1_000 * n


def nested(n: int) -> bytes:
    return json.dumps([{"annotations": [{"a": {"b": [{}] * 10}}] * n}]).encode()


@pytest.mark.parametrize(
    "form",
    [frames, tracks, late_labels, other_keys, repeated_lists, points, clips, padding, nested],
    ids=lambda form: form.__name__,
)
def test_a_file_of_twice_the_size_takes_twice_the_work(form: Callable[[int], bytes]) -> None:
    role = "point_segmentations" if form is points else "annotations"

    def work(n: int) -> int:
        reader = reader_of(form(n), role)
        return calls(lambda: sum(1 for _ in reader))

    work(10)
    once, twice = work(500), work(1_000)
    assert twice <= 2.2 * once


# Rows and what is written.


def test_a_file_of_more_rows_than_allowed_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "MAX_ROWS", 1_000)
    assert len(list(reader_of([BOX] * 1_000))) == 1_000
    reader = reader_of([BOX] * 1_001)
    with pytest.raises(UnreadableFile, match="more than 1,000 annotations"):
        list(reader)


def copied(size: int, times: int) -> bytes:
    """A track whose attributes are in the row of each of its frames."""
    keys = [{"key": k, "left": 1, "top": 2, "width": 3, "height": 4} for k in range(times)]
    track = {"label": "x", "geometry": "box", "attributes": {"a": "A" * size}, "frames": keys}
    return json.dumps({"annotations": {"u1": track}}).encode()


def written(content: bytes) -> int:
    reader = reader_of(content, task_type="videoplaybackannotation")
    return sum(len(batch) for batch in extract.batches(reader, lambda: reader.bytes_read))


def test_rows_that_are_far_larger_than_their_file_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "FREE_CHARACTERS", 1_000_000)
    monkeypatch.setattr(extract, "MAX_BATCH_CHARACTERS", 100_000)
    assert written(copied(100, 2_000)) == 2_000
    with pytest.raises(UnreadableFile, match=r"more than [\d,]+ characters, 10 times"):
        written(copied(50_000, 1_000))


def test_the_rows_before_the_limit_are_bounded_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "FREE_CHARACTERS", 1_000_000)
    monkeypatch.setattr(extract, "MAX_BATCH_CHARACTERS", 100_000)
    reader = reader_of(copied(50_000, 1_000), task_type="videoplaybackannotation")
    batches = extract.batches(reader, lambda: reader.bytes_read)
    given = list(until_unreadable(batches))
    assert 0 < sum(map(len, given)) * 50_000 < 1_000_000 + 10 * 200_000


# Memory.

VALUE = b"[" + b",".join([b"{}"] * 60_000) + b"]"
ONE_ROW = b'"annotations":[{"type":"point","x":1,"y":2}]'
MEMORY_ATTACKS = {
    "keys between lists": b"{" + b",".join(ONE_ROW + b',"k%d":' % k + VALUE for k in range(30)) + b"}",
    "keys before lists": b"{" + b",".join(b'"k%d":' % k + VALUE + b"," + ONE_ROW for k in range(30)) + b"}",
    "keys of a track": b'{"annotations":{"u":{"label":"x","geometry":"point"'
    + b"".join(b',"k%d":' % k + VALUE + b',"frames":[{"key":1,"x":1,"y":2}]' for k in range(30))
    + b"}}}",
    "objects of frames": b'{"annotations":[],'
    + b",".join(b'"u%d":{"a":' % k + VALUE + b"}" for k in range(30))
    + b"}",
    "keys of a camera": b'[{"camera_responses":[{"camera_used":1'
    + b"".join(b',"k%d":' % k + VALUE + b',"annotations":[{"type":"point","x":1,"y":2}]' for k in range(30))
    + b"}]}]",
}


@pytest.mark.slow
@pytest.mark.parametrize("content", MEMORY_ATTACKS.values(), ids=MEMORY_ATTACKS)
def test_values_that_no_row_needs_are_not_kept_in_memory(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value of 180 KB takes 4.5 MB as Python objects, all thirty 130 MB."""
    monkeypatch.setattr(result_files, "MAX_VALUE_BYTES", 400_000)
    reader = reader_of(content, task_type="videoplaybackannotation")
    tracemalloc.start()
    try:
        for _ in until_unreadable(reader):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000


def test_values_that_are_in_no_row_are_counted_and_the_first_ones_named() -> None:
    reader = reader_of(other_keys(10_000))
    assert list(reader) == []
    (warning,) = reader.warnings
    assert "10000" in warning
    assert len(warning) < 2_000


# Frame numbers.


@pytest.mark.parametrize("key", [MAX_FRAME + 1, 3_000_000, 2**31 - 1, "9" * 5_000, -1, 1.5, True])
def test_a_frame_number_beyond_any_video_is_in_no_column(key: Any) -> None:
    track = {"label": "x", "geometry": "point", "frames": [{"key": key, "x": 1, "y": 2}]}
    (row,) = reader_of({"annotations": {"u": track}}, task_type="videoplaybackannotation")
    assert row.frame is None
    assert row.warning == "annotation 0: its key is no frame number"


def test_a_list_of_more_frames_than_any_video_has_no_frame_numbers_beyond_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(result_files, "MAX_FRAME", 100)
    content = [None] * 101 + [{"annotations": [BOX]}]
    (row,) = reader_of(content)
    assert row.frame is None
    assert row.warning == "annotation 0: frame 101 is beyond 100"


# Index images.


def png(width: int, height: int) -> io.BytesIO:
    """A greyscale PNG of zeros, made without an array of its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, packed = zlib.compressobj(), b""
    for _ in range(height):
        packed += packer.compress(bytes(width + 1))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", packed + packer.flush()) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize(("width", "height"), [(1, 65_536), (65_536, 1), (1, 400_000)])
def test_an_index_image_with_an_extreme_side_is_refused_before_it_is_decoded(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = png(width, height)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(UnreadableMask, match="is longer than 65,535"):
        read_index_image(content)


def test_the_longest_sides_are_read() -> None:
    assert read_index_image(png(1, 65_535)).unlabeled == 65_535
    assert read_index_image(png(65_535, 1)).unlabeled == 65_535
