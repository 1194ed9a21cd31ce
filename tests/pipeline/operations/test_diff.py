"""What one response version changed against another."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.operations.diff import Diff, _hash_of, diff
from scale.annotations import Annotation

Geometry = dict[str, Any]


def row(
    label: str | None = "car",
    geometry: Geometry | None = None,
    *,
    uuid: str | None = None,
    type: str = "box",
    frame: int | None = None,
    attributes: dict[str, Any] | None = None,
    position: int = 0,
    warning: str | None = None,
) -> Annotation:
    return Annotation(position, type, label, uuid, frame, attributes, geometry or box(), warning)


def box(left: float = 0, top: float = 0, width: float = 10, height: float = 10) -> Geometry:
    return {"left": left, "top": top, "width": width, "height": height}


def polygon(*points: tuple[float, float]) -> Geometry:
    return {"vertices": [{"x": x, "y": y} for x, y in points]}


def counts(found: Diff) -> tuple[int, int, int, int, int]:
    """added, removed, moved, relabeled, unchanged"""
    return (
        len(found.added),
        len(found.removed),
        len(found.moved),
        len(found.relabeled),
        found.unchanged,
    )


def test_the_same_annotations_in_another_order_are_no_change() -> None:
    rows = [row(label, box(at * 20)) for at, label in enumerate("abc")]
    assert counts(diff(rows, rows[::-1])) == (0, 0, 0, 0, 3)


def test_a_number_written_as_a_float_is_the_same_place() -> None:
    assert counts(diff([row(geometry=box(1))], [row(geometry=box(1.0))])) == (0, 0, 0, 0, 1)


def test_a_uuid_names_an_annotation_however_far_it_was_moved() -> None:
    found = diff([row(uuid="u")], [row("bus", box(900), uuid="u")])
    assert counts(found) == (0, 0, 1, 1, 0)
    assert found.moved[0].matched_by == "uuid"
    assert found.moved[0].score is None


def test_a_uuid_that_comes_back_in_every_frame_is_compared_frame_by_frame() -> None:
    before = [row(uuid="u", frame=frame) for frame in range(3)]
    after = [row(uuid="u", frame=0), row(uuid="u", frame=1, geometry=box(5)), row(uuid="u", frame=3)]
    found = diff(before, after)
    assert [change.after.frame for change in found.moved] == [1]
    assert [annotation.frame for annotation in found.added] == [3]
    assert [annotation.frame for annotation in found.removed] == [2]


def test_without_a_uuid_the_greatest_overlap_decides() -> None:
    before = [row("a", box(0)), row("b", box(4))]
    after = [row("a", box(1)), row("b", box(5))]
    found = diff(before, after)
    assert [(change.before.label, change.after.label) for change in found.moved] == [("a", "a"), ("b", "b")]
    assert all(change.matched_by == "overlap" for change in found.moved)
    assert found.moved[0].score is not None
    assert 0.5 < found.moved[0].score < 1


def test_less_than_half_of_an_overlap_is_another_annotation() -> None:
    assert counts(diff([row()], [row(geometry=box(6))])) == (1, 1, 0, 0, 0)


def test_annotations_of_another_type_or_frame_are_not_compared_by_place() -> None:
    assert counts(diff([row(frame=1)], [row(frame=2)])) == (1, 1, 0, 0, 0)
    assert counts(diff([row(geometry=box(0))], [row(geometry=box(1), type="ellipse")])) == (1, 1, 0, 0, 0)


def test_new_uuids_do_not_hide_that_nothing_moved() -> None:
    found = diff([row(uuid="old")], [row(uuid="new")])
    assert counts(found) == (0, 0, 0, 0, 1)


def test_polygons_and_lines_overlap_by_their_bounding_boxes() -> None:
    for type_, points in (("polygon", ((0, 0), (10, 0), (10, 10))), ("line", ((0, 5), (100, 5)))):
        moved = tuple((x + 1, y) for x, y in points)
        found = diff(
            [row(geometry=polygon(*points), type=type_)], [row(geometry=polygon(*moved), type=type_)]
        )
        assert counts(found) == (0, 0, 1, 0, 0), type_


def test_points_are_matched_by_distance_the_nearest_first() -> None:
    before = [row("a", {"x": 0, "y": 0}, type="point"), row("b", {"x": 10, "y": 0}, type="point")]
    after = [row("b", {"x": 11, "y": 0}, type="point"), row("a", {"x": 3, "y": 4}, type="point")]
    found = diff(before, after)
    assert {(change.before.label, change.after.label): change.score for change in found.moved} == {
        ("a", "a"): 5.0,
        ("b", "b"): 1.0,
    }
    far = [row("a", {"x": 0, "y": 21}, type="point")]
    assert counts(diff(before[:1], far)) == (1, 1, 0, 0, 0)


def test_lidar_cuboids_are_matched_by_the_distance_of_their_centres() -> None:
    def cuboid(x: float) -> Annotation:
        geometry = {"position": {"x": x, "y": 0, "z": 0}, "dimensions": {"x": 2, "y": 4, "z": 2}, "yaw": 0}
        return row(geometry=geometry, type="cuboid3d", frame=0)

    assert counts(diff([cuboid(0)], [cuboid(1.5)])) == (0, 0, 1, 0, 0)
    assert counts(diff([cuboid(0)], [cuboid(2.5)])) == (1, 1, 0, 0, 0)


def test_spans_and_events_overlap_along_their_length() -> None:
    for type_ in ("span", "event"):
        before = [row(geometry={"start": 10, "end": 30}, type=type_)]
        assert counts(diff(before, [row(geometry={"start": 12, "end": 30}, type=type_)])) == (0, 0, 1, 0, 0)
        assert counts(diff(before, [row(geometry={"start": 31, "end": 50}, type=type_)])) == (1, 1, 0, 0, 0)


def test_changed_attributes_are_distinguished_from_what_was_moved() -> None:
    found = diff([row(attributes={"color": "red"})], [row(attributes={"color": "blue"})])
    assert counts(found) == (0, 0, 0, 0, 0)
    assert len(found.attributes_changed) == 1
    assert counts(diff([row(attributes=None)], [row(attributes={})])) == (0, 0, 0, 0, 1)


def test_what_was_kept_raw_is_the_same_or_another() -> None:
    raw = row(geometry={"left": "many"}, warning="left is a string, not a number")
    assert counts(diff([raw], [raw])) == (0, 0, 0, 0, 1)
    assert counts(diff([raw], [raw._replace(geometry={"left": "few"})])) == (1, 1, 0, 0, 0)


def test_nothing_against_nothing_is_nothing() -> None:
    assert counts(diff([], [])) == (0, 0, 0, 0, 0)
    assert counts(diff([], [row()])) == (1, 0, 0, 0, 0)
    assert counts(diff([row()], [])) == (0, 1, 0, 0, 0)


numbers = st.one_of(st.integers(-50, 50), st.floats(-50, 50, allow_nan=False, width=16))
geometries = st.one_of(
    st.builds(box, numbers, numbers, st.integers(0, 30), st.integers(0, 30)),
    st.builds(lambda x, y: {"x": x, "y": y}, numbers, numbers),
    st.builds(lambda points: polygon(*points), st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3)),
    st.builds(lambda value: {"odd": [value, None]}, numbers),
)
lists = st.lists(
    st.builds(
        row,
        st.sampled_from(["a", "b", None]),
        geometries,
        uuid=st.sampled_from([None, "u", "v"]),
        type=st.sampled_from(["box", "point"]),
        frame=st.sampled_from([None, 0, 1]),
        position=st.integers(0, 9),
    ),
    max_size=8,
)


@given(lists, lists)
def test_every_annotation_is_counted_exactly_once(before: list[Annotation], after: list[Annotation]) -> None:
    found = diff(before, after)
    changed = {id(change.after) for change in found.moved + found.relabeled + found.attributes_changed}
    assert len(found.removed) + len(changed) + found.unchanged == len(before)
    assert len(found.added) + len(changed) + found.unchanged == len(after)


@given(lists)
def test_a_version_does_not_differ_from_itself(rows: list[Annotation]) -> None:
    assert counts(diff(rows, rows)) == (0, 0, 0, 0, len(rows))


@pytest.mark.slow
def test_twenty_thousand_annotations_are_not_compared_each_with_each() -> None:
    chance = random.Random(1)
    before = [
        row(geometry=box(chance.uniform(0, 4000), chance.uniform(0, 4000), 40, 30), position=at)
        for at in range(20_000)
    ]
    after = [
        annotation._replace(geometry={**annotation.geometry, "left": annotation.geometry["left"] + 1})
        for annotation in before
    ]
    found = diff(before, after)
    assert len(found.moved) == 20_000


def test_no_sender_can_choose_geometries_that_have_one_hash() -> None:
    """Python's own hash of -1 is that of -2, and that of 2**61 is that of 1: such geometries would all be compared with each other."""
    for numbers in ((-1, -2), (1, 2**61), (2.0**63, 2**63 + 1)):
        found = {_hash_of({"points": list(chosen)}) for chosen in itertools.product(numbers, repeat=8)}
        assert len(found) == 2**8


def test_equal_numbers_have_one_hash() -> None:
    for one, other in ((1, 1.0), (0, -0.0), (2**70, float(2**70)), (10**400, 10**400)):
        assert one == other
        assert _hash_of([one]) == _hash_of([other])
