"""Tests for result files of video and lidar tasks, in the forms that Scale documents."""

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.annotators import AnnotatorContext, fix_response, make_response
from sandbox.annotators.shapes import bounding_box
from scale.annotations import reader
from tests.sandbox.annotators.conftest import FRAMES, REQUESTS, SHAPES, FileStore

FILM = {"attachment": "https://example.com/drive.mp4", "attachment_type": "video", "geometries": SHAPES}


def written(
    type: str, params: dict[str, Any], store: FileStore, *, seed: int = 1, part: str = "annotations"
) -> Any:
    """The content of one file of an answer."""
    response = make_response(
        {"type": type, "params": params},
        AnnotatorContext(seed=seed, put_file=store.put, read_file=store.files.get),
    )
    return store.json(response[part]["url"])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    count=st.integers(1, 12),
    size=st.tuples(st.integers(60, 900), st.integers(60, 900)),
)
def test_a_video_file_has_an_element_for_each_frame_and_follows_objects_by_uuid(seed, count, size) -> None:
    store = FileStore()
    params = {
        **FRAMES,
        "attachments": [f"https://example.com/{n}" for n in range(count)],
        "geometries": SHAPES,
    }
    task = {"type": "videoannotation", "params": params}
    response = make_response(
        task, AnnotatorContext(seed=seed, put_file=store.put, image_size=lambda url: size)
    )
    frames = store.json(response["annotations"]["url"])
    assert len(frames) == count
    seen: dict[str, set[Any]] = {}
    places: dict[str, list[int]] = {}
    drawn_at: dict[str, set[Any]] = {}
    for position, frame in enumerate(frames):
        for annotation in frame["annotations"]:
            assert reader()(annotation, 0).warning is None
            seen.setdefault(annotation["uuid"], set()).add((annotation["label"], annotation["type"]))
            places.setdefault(annotation["uuid"], []).append(position)
            drawn = bounding_box(annotation)
            drawn_at.setdefault(annotation["uuid"], set()).add(drawn)
            assert -1e-6 <= drawn.left <= drawn.right <= size[0] + 1e-6
            assert -1e-6 <= drawn.top <= drawn.bottom <= size[1] + 1e-6
    assert all(len(current) == 1 for current in seen.values())
    assert all(len(drawn_at[uuid]) > 1 for uuid, there in places.items() if len(there) > 2)
    assert all(there == list(range(there[0], there[-1] + 1)) for there in places.values())
    assert {kind for current in seen.values() for _, kind in current} == set(SHAPES)


def test_the_rate_and_duration_of_a_video_give_its_number_of_frames(store: FileStore) -> None:
    assert len(written("videoannotation", FILM | {"frame_rate": 2, "duration_time": 3.5}, store)) == 7
    assert len(written("videoannotation", FILM | {"frame_rate": "1", "duration_time": "4"}, store)) == 4
    assert len(written("videoannotation", FILM | {"frame_rate": 1000, "duration_time": 10**6}, store)) == 2000


def test_requested_events_lie_within_the_video(store: FileStore) -> None:
    params = FILM | {"events_to_annotate": ["turn", "stop", "start", "wait"], "duration_time": 20}
    events = written("videoannotation", params, store, part="events")["events"]
    assert [event["label"] for event in events] == params["events_to_annotate"]
    read = reader("event", discriminated=False)
    for event in events:
        assert read(event, 0).warning is None
        assert event["type"] == ("range" if "end" in event else "point")
        assert 0 <= event["start"] <= event.get("end", event["start"]) < 20
    assert "events" not in make_response(
        {"type": "videoannotation", "params": FILM}, AnnotatorContext(seed=1, put_file=store.put)
    )


def test_a_playback_file_is_keyed_by_uuid_and_its_frames_by_number_in_the_source(store: FileStore) -> None:
    params = FILM | {"duration_time": 6, "annotation_frame_rate": 2, "video_frame_rate": 24}
    (wrapped,) = written("videoplaybackannotation", params, store)
    for followed in wrapped["annotations"].values():
        assert followed["geometry"] in SHAPES
        assert followed["label"] in SHAPES[followed["geometry"]]["objects_to_annotate"]
        keys = [frame["key"] for frame in followed["frames"]]
        assert all(after - before == 12 for before, after in pairwise(keys))
        for frame in followed["frames"]:
            assert frame["timestamp"] == round(frame["key"] / 24, 3)
            assert reader(followed["geometry"])(frame, 0).warning is None
            assert "attributes" in frame
    assert written("videoplaybackannotation", params, store, part="events") == {"events": []}


@pytest.mark.parametrize("type", ["videoannotation", "videoplaybackannotation"])
def test_a_hypothesis_file_comes_back_moved_and_a_locked_base_as_it_was(type: str, store: FileStore) -> None:
    earlier = make_response({"type": type, "params": FILM}, AnnotatorContext(seed=1, put_file=store.put))
    start = store.json(earlier["annotations"]["url"])
    given_again = {"annotations": earlier["annotations"]}
    editable = written(type, FILM | {"hypothesis": given_again}, store, seed=2)
    assert editable != start
    assert uuids(editable) == uuids(start)
    base = {
        "base_annotations": given_again,
        "can_edit_base_annotations": False,
        "can_add_base_annotations": False,
    }
    assert written(type, FILM | base, store, seed=2) == start


def uuids(content: list[Any]) -> Any:
    if "annotations" in content[0] and isinstance(content[0]["annotations"], dict):
        return set(content[0]["annotations"])
    return [[annotation["uuid"] for annotation in frame["annotations"]] for frame in content]


def test_a_base_file_that_cannot_be_read_and_takes_no_additions_leaves_the_frames_empty(
    store: FileStore,
) -> None:
    base = {
        "base_annotations": {"annotations": {"url": "https://example.com/x"}},
        "can_add_base_annotations": False,
    }
    frames = written("videoannotation", FILM | base | {"duration_time": 2}, store)
    assert frames == [{"annotations": []}, {"annotations": []}]


def test_video_layers_are_followed_from_the_first_frame(store: FileStore) -> None:
    layers = [{"boxes": [{"label": "bus", "left": 50, "top": 60, "width": 20, "height": 30}]}, {}]
    url = store.put(json.dumps(layers).encode(), "application/json")
    geometries = {"box": {"objects_to_annotate": ["car", "bus"]}}
    frames = written("videoannotation", FRAMES | {"geometries": geometries, "layers": {"url": url}}, store)
    first = frames[0]["annotations"][0]
    assert (first["label"], first["left"], first["top"], first["width"], first["height"]) == (
        "bus",
        48,
        58,
        24,
        34,
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), reach=st.integers(5, 200), unit=st.sampled_from([None, 0.5, 2]))
def test_cuboids_are_read_frame_by_frame_and_stay_within_reach(seed, reach, unit) -> None:
    store = FileStore()
    params = REQUESTS["lidarannotation"] | {"max_distance_meters": reach, "meters_per_unit": unit}
    frames = written("lidarannotation", params, store, seed=seed)
    assert len(frames) == 4
    read = reader("cuboid3d", discriminated=False)
    for frame in frames:
        for cuboid in frame["cuboids"]:
            assert read(cuboid, 0).warning is None
            assert cuboid["label"] in ("car", "bus")
            assert cuboid["uuid"] == cuboid["uuid"].upper()
            assert math.hypot(cuboid["position"]["x"], cuboid["position"]["y"]) * (unit or 1) <= reach + 0.01
            assert -math.pi <= cuboid["yaw"] <= math.pi
            assert "pitch" not in cuboid


def test_stationary_cuboids_stay_and_others_move_ahead(store: FileStore) -> None:
    for seed in range(10):
        tracks: dict[str, list[Any]] = {}
        for frame in written("lidarannotation", REQUESTS["lidarannotation"], store, seed=seed):
            for cuboid in frame["cuboids"]:
                tracks.setdefault(cuboid["uuid"], []).append(cuboid)
        for first, *later in tracks.values():
            for cuboid in later:
                dx = cuboid["position"]["x"] - first["position"]["x"]
                dy = cuboid["position"]["y"] - first["position"]["y"]
                assert (math.hypot(dx, dy) == 0) == first["stationary"]
                ahead = -dx * math.sin(first["yaw"]) + dy * math.cos(first["yaw"])
                assert ahead == pytest.approx(math.hypot(dx, dy), abs=0.01)


def test_pitch_and_roll_are_present_if_enabled(store: FileStore) -> None:
    frames = written("lidarannotation", REQUESTS["lidarannotation"] | {"pitch_and_roll_enabled": True}, store)
    assert all({"pitch", "roll"} <= cuboid.keys() for frame in frames for cuboid in frame["cuboids"])


def test_every_point_of_a_frame_has_an_index_of_an_object_or_zero(store: FileStore) -> None:
    frame = {"points": [{"x": 0, "y": 0, "z": 0}] * 77}
    url = store.put(json.dumps(frame).encode(), "application/json")
    params = {
        "attachments": [url, "https://example.com/unreadable"],
        "labels": REQUESTS["lidarsegmentation"]["labels"],
    }
    content = written("lidarsegmentation", params, store, part="point_segmentations")
    assert [len(indexes) for indexes in content["point_objects"]] == [77, 1200]
    assert [entry["index"] for entry in content["objects"]] == list(range(1, len(content["objects"]) + 1))
    assert {i for indexes in content["point_objects"] for i in indexes} <= set(
        range(len(content["objects"]) + 1)
    )
    assert all(("instance" in entry) == (entry["label"] != "road") for entry in content["objects"])


def test_linked_shapes_have_the_uuid_of_their_cuboid(store: FileStore) -> None:
    params = REQUESTS["lidarlinking"]
    frames = written("lidarlinking", params, store)
    assert len(frames) == 4
    for frame in frames:
        for camera in frame["camera_responses"]:
            assert isinstance(camera["camera_used"], int)
            for shape in camera["annotations"]:
                row = reader()(shape, 0)
                assert (row.warning, row.type, row.uuid) == (None, "box", shape["cuboid_uuid"])
                assert "uuid" not in shape
                assert shape["label"] in params["labels"]


def test_a_fixed_file_keeps_the_objects_of_the_one_it_replaces(store: FileStore) -> None:
    for type, key in (("lidarannotation", "cuboids"), ("videoannotation", "annotations")):
        task = {"type": type, "params": REQUESTS[type]}
        response = make_response(task, AnnotatorContext(seed=1, put_file=store.put))
        for read_file in (store.files.get, lambda url: None):  # where it can't be read it is made again
            fixed = fix_response(
                task, response, AnnotatorContext(seed=1, put_file=store.put, read_file=read_file)
            )
            old, new = (store.json(current["annotations"]["url"]) for current in (response, fixed))
            assert old != new
            assert [[a["uuid"] for a in frame[key]] for frame in old] == [
                [a["uuid"] for a in frame[key]] for frame in new
            ]
