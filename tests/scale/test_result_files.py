import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale import result_files
from scale.annotations import Annotation
from scale.result_files import ResultFileReader, UnreadableFile
from tests.amounts import amount
from tests.scale.any_json import values

FILES = Path(__file__).parents[1] / "payloads" / "files"
CASES = sorted(path.name.removesuffix(".rows.json") for path in FILES.glob("*.rows.json"))


def rows(
    content: Any, role: str = "annotations", task_type: str | None = "videoannotation"
) -> list[Annotation]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return list(ResultFileReader(role, task_type, {}, io.BytesIO(body)))


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_file_becomes_the_rows_next_to_it(case: str) -> None:
    expected = json.loads((FILES / f"{case}.rows.json").read_text())
    with (FILES / f"{case}.json").open("rb") as file:
        reading = ResultFileReader(expected["role"], expected["task_type"], expected["params"], file)
        assert [row._asdict() for row in reading] == expected["rows"]
    assert reading.global_attributes == expected["global_attributes"]
    assert reading.warnings == expected["warnings"]


def test_positions_count_through_the_file() -> None:
    box = {"type": "box", "left": 1, "top": 2, "width": 3, "height": 4}
    frames = [{"annotations": [box] * 3}, {}, {"annotations": [box] * 2}]
    assert [(row.position, row.frame) for row in rows(frames)] == [(0, 0), (1, 0), (2, 0), (3, 2), (4, 2)]


def test_the_rows_before_a_break_are_given_and_then_the_break_is_named() -> None:
    reading = ResultFileReader(
        "annotations",
        "videoannotation",
        {},
        io.BytesIO(b'[{"annotations": [{"type": "point", "x": 1, "y": 2}, {"ty'),
    )
    assert next(reading).type == "point"
    with pytest.raises(UnreadableFile, match="not JSON: parse error: premature EOF"):
        next(reading)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "premature EOF"),
        (b"   ", "premature EOF"),
        (b"<html>", "invalid char"),
        (b"\x89PNG\r\n\x1a\n", "not JSON"),
        (b"\x1f\x8b\x08", "not JSON"),
        (b"[] []", "trailing garbage"),
        (b'[{"annotations": []}', "premature EOF"),
        (b'["\xff"]', "invalid bytes"),
        (b"[1e999]", "overflow"),
        (b'"text"', "a string"),
        (b"7", "a number"),
        (b"null", "null"),
        (b'[{"annotations": ["\\udfff"]}]', "not Unicode"),
        (b"[" * 100_000, "too deeply|premature EOF"),
        (b'{"point_objects": [1, 2]}', "list of lists"),
        (b'{"point_objects": [[1, null]]}', "without an index in frame 0"),
        (b'{"point_labels": [[], [1.5]]}', "without an index in frame 1"),
        (b'{"point_objects": [[[1]]]}', "without an index"),
    ],
)
def test_a_file_that_can_not_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason) as caught:
        rows(content)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert len(rows(b'\xef\xbb\xbf[{"annotations": [{"type": "point", "x": 1, "y": 2}]}]')) == 1


def test_an_empty_file_of_any_form_has_no_rows() -> None:
    for content in (
        [],
        {},
        [{}],
        [None],
        {"annotations": []},
        {"annotations": {}},
        {"events": []},
        [{"camera_responses": []}],
    ):
        assert rows(content) == []


def test_one_value_that_is_larger_than_memory_allows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "MAX_VALUE_BYTES", 300_000)
    vertices = [{"x": n, "y": n} for n in range(100_000)]
    with pytest.raises(UnreadableFile, match="larger than 300,000 bytes"):
        rows([{"annotations": [{"type": "polygon", "vertices": vertices}]}])
    waiting = {
        "annotations": {"u": {"frames": [{"key": n, "x": 1, "y": 2} for n in range(50_000)], "label": "late"}}
    }
    with pytest.raises(UnreadableFile, match="larger"):
        rows(waiting)
    early = {
        "annotations": {
            "u": {"label": "early", "geometry": "point", "frames": waiting["annotations"]["u"]["frames"]}
        }
    }
    assert len(rows(early)) == 50_000
    assert len(rows([{}] * 500_000)) == 0
    assert (
        len(rows({"objects": [{"index": 1}], "point_objects": [[1] * 500_000]}, "point_segmentations")) == 1
    )


def test_global_attributes_without_end_are_left_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "MAX_GLOBAL_ATTRIBUTES", 100)
    frames = [{"annotations": [], "global_attributes": {"n": n}} for n in range(100)]
    reading = ResultFileReader("annotations", "videoannotation", {}, io.BytesIO(json.dumps(frames).encode()))
    assert list(reading) == []
    assert 10 < len(reading.global_attributes) < 20
    assert len(reading.warnings) == 1


def test_points_of_too_many_objects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "MAX_POINT_COUNTS", 1000)
    with pytest.raises(UnreadableFile, match="1,000 pairs"):
        rows({"point_objects": [list(range(2000))]}, "point_segmentations", "lidarsegmentation")


@given(values, st.sampled_from(["annotations", "events", "point_segmentations"]))
def test_whatever_the_json_only_an_unreadable_file_is_raised(content: Any, role: str) -> None:
    for form in (
        content,
        [content],
        [{"annotations": content}],
        {"annotations": {"u": content}},
        {"annotations": {"u": {"label": content, "geometry": "box", "frames": [content]}}},
        [{"camera_responses": [content, {"annotations": [content]}]}],
        {"objects": content, "point_objects": [[1]]},
        [{"cuboids": [content], "global_attributes": content}],
        {"events": [content]},
    ):
        try:
            found = rows(json.dumps(form).encode(), role)
        except UnreadableFile:
            continue
        assert [row.position for row in found] == list(range(len(found)))


# A file that is made as it is read: `head`, then `piece` over and over, then `tail`.
READ_IN_BOUNDS = """
import resource, sys
from scale.result_files import ResultFileReader

class File:
    def __init__(self, head, piece, tail, size):
        self.head, self.piece, self.tail, self.left = head, piece, tail, size
    def read(self, size):
        if size == 0:
            return b""
        if self.head:
            head, self.head = self.head, b""
            return head
        if self.left > 0:
            self.left -= len(self.piece)
            return self.piece if self.left > 0 else self.piece.rstrip(b",")
        tail, self.tail = self.tail, b""
        return tail

head, piece, tail, role, size, above = sys.argv[1:]
idle = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
bound = idle + int(above) * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
one = piece.encode() + b","
file = File(head.encode(), one * (65536 // len(one)), tail.encode(), int(size))
print(sum(1 for _ in ResultFileReader(role, "videoannotation", {}, file)))
"""
BOX = '{"uuid":"3c5ae8ef-6f4c-4b8e-9ec3-2b9d5a0f1d11","label":"car","type":"box","left":10.5,"top":3,"width":40.25,"height":9}'
FRAME = f'{{"annotations":[{",".join([BOX] * 20)}],"global_attributes":{{"weather":"rain"}}}}'


def rows_within(
    megabytes: int, head: str, piece: str, tail: str, size: int, role: str = "annotations"
) -> int:
    command = [sys.executable, "-c", READ_IN_BOUNDS, head, piece, tail, role, str(size), str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FILES.parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_large_file_is_read_within_100_mb_over_an_idle_process() -> None:
    size = amount(120_000_000, 1_000_000_000)
    assert rows_within(100, "[", FRAME, "]", size) > size // 125


@pytest.mark.parametrize(
    ("head", "piece", "tail", "role", "fewest"),
    [
        ('[{"annotations":[', BOX, "]}]", "annotations", 300_000),
        (
            '{"annotations":{"u":{"label":"car","geometry":"box","frames":[',
            '{"key":1,"left":1,"top":2,"width":3,"height":4}',
            "]}}}",
            "annotations",
            800_000,
        ),
        ('{"events":[', '{"label":"turns","type":"range","start":3,"end":9}', "]}", "events", 700_000),
        ('{"objects":[{"label":"car","index":1}],"point_objects":[[', "1", "]]}", "point_segmentations", 1),
        (
            '{"objects":[{"label":"car","index":1}],"point_objects":[',
            f"[{'1,2,' * 500}0]",
            "]}",
            "point_segmentations",
            1,
        ),
    ],
)
def test_one_list_that_is_the_whole_file_is_read_within_the_same_bound(
    head: str, piece: str, tail: str, role: str, fewest: int
) -> None:
    assert rows_within(100, head, piece, tail, 40_000_000, role) >= fewest
