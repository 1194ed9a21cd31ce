"""Tests for linked lidar tasks: a lidarlinking task refers to the cuboids of its lidar_task."""

from typing import Any

import pytest
import requests

from sandbox.examples import example
from sandbox.pytest_plugin import ScaleSandbox


def read_frames(task: dict[str, Any]) -> list[dict[str, Any]]:
    return requests.get(task["response"]["annotations"]["url"], timeout=10).json()


def cuboids_of(frame: dict[str, Any]) -> dict[str, str]:
    return {cuboid["uuid"]: cuboid["label"] for cuboid in frame["cuboids"]}


def shapes_of(frame: dict[str, Any]) -> list[dict[str, Any]]:
    return [shape for camera in frame["camera_responses"] for shape in camera["annotations"]]


def create(sandbox: ScaleSandbox, type_name: str, **changes: Any) -> dict[str, Any]:
    return sandbox.create(type_name, key=sandbox.test_key, **{**example(type_name), **changes})


@pytest.mark.parametrize("selected", [None, [1], [1, 0]])
def test_shapes_have_the_uuid_and_label_of_a_cuboid_of_the_same_frame(
    sandbox: ScaleSandbox, selected: list[int] | None
):
    source = create(sandbox, "lidarannotation")
    given = {} if selected is None else {"lidar_task_frames": selected}
    linking = create(sandbox, "lidarlinking", lidar_task=source["task_id"], attachments=None, **given)
    source_frames = read_frames(source)
    expected = source_frames if selected is None else [source_frames[number] for number in selected]
    frames = read_frames(linking)
    assert len(frames) == len(expected)
    linked = 0
    for frame, cuboids in zip(frames, map(cuboids_of, expected), strict=True):
        for shape in shapes_of(frame):
            if not shape.get("not_in_lidar"):
                assert shape["label"] == cuboids[shape["cuboid_uuid"]]
                linked += 1
    assert linked


def test_a_dependent_refers_to_the_cuboids_of_its_parent(sandbox: ScaleSandbox):
    source = create(sandbox, "lidarannotation", dependents={"defs": [{"type": "lidarlinking"}]})
    (linking,) = sandbox.wait_for(
        lambda: sandbox.tasks(key=sandbox.test_key, type="lidarlinking", status="completed")
    )
    known = {uuid for frame in read_frames(source) for uuid in cuboids_of(frame)}
    named = {
        s["cuboid_uuid"] for f in read_frames(linking) for s in shapes_of(f) if not s.get("not_in_lidar")
    }
    assert named
    assert named <= known


def test_a_task_of_another_account_is_not_read(sandbox: ScaleSandbox):
    source = create(sandbox, "lidarannotation")
    task = sandbox.create("lidarlinking", **{**example("lidarlinking"), "lidar_task": source["task_id"]})[
        "task_id"
    ]
    sandbox.wait_for(lambda: sandbox.task(task)["status"] == "completed")
    known = {uuid for frame in read_frames(source) for uuid in cuboids_of(frame)}
    named = {shape["cuboid_uuid"] for frame in read_frames(sandbox.task(task)) for shape in shapes_of(frame)}
    assert named.isdisjoint(known)


def test_a_fix_keeps_the_links(sandbox: ScaleSandbox):
    source = create(sandbox, "lidarannotation")
    linking = create(sandbox, "lidarlinking", lidar_task=source["task_id"])
    fixed = sandbox.audit(linking["task_id"], "fixed", key=sandbox.test_key)
    uuids = [[s["cuboid_uuid"] for s in shapes_of(frame)] for frame in read_frames(linking)]
    assert [[s["cuboid_uuid"] for s in shapes_of(frame)] for frame in read_frames(fixed)] == uuids
