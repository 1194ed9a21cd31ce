"""Annotations of result files in workflows: the same names as in the API."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from models import Annotation, Task
from pipeline.follow_ups.views import load_snapshot
from pipeline.service import Service
from scale.layers import flatten
from tests.assertions import only, table
from tests.factories.callbacks import callback, receive_callback
from tests.fake_server import FakeServer, reply
from workers.runner import run_due_jobs

EVENTS = [
    {"label": "Section A", "type": "range", "start": 0, "end": 300},
    {"label": "Finding", "type": "point", "start": 120},
]
RAW = [{"annotations": [{"type": "blob", "label": "odd", "frame": 7, "uuid": "u1"}]}]
ROTATED = [{"annotations": [{"type": "box", "left": 1, "top": 2, "width": 3, "height": 4, "frame": "x"}]}]


@pytest.fixture
def read_file(open_service: Callable[..., Service]) -> Iterator[Callable[[Any, str], Service]]:
    """`read_file(content, role)` → a service that has read this file of a playback task."""
    content: dict[str, bytes] = {}
    with FakeServer(lambda asked: reply(content["file"])) as peer:

        def read(value: Any, role: str) -> Service:
            content["file"] = json.dumps(value).encode()
            service = open_service(artifact_hosts=(f"127.0.0.1:{peer.port}",))
            response = {role: {"url": f"{peer.url}/file"}}
            receive_callback(service, callback(response, type="videoplaybackannotation"))
            run_due_jobs(service)
            return service

        yield read


def seen(service: Service) -> list[dict[str, Any]]:
    with service.reader.begin() as connection:
        snapshot = load_snapshot(connection, only(service, Task)["task_id"])
    assert snapshot is not None
    return snapshot.view.annotations


def test_an_event_of_a_file_is_an_event_in_workflows_too(
    read_file: Callable[[Any, str], Service],
) -> None:
    service = read_file(EVENTS, "events")
    assert [row["type"] for row in table(service, Annotation)] == ["event", "event"]
    assert [one["type"] for one in seen(service)] == ["event", "event"]
    assert [one["label"] for one in seen(service)] == ["Section A", "Finding"]


@pytest.mark.parametrize(
    ("content", "role"), [(EVENTS, "events"), (RAW, "annotations"), (ROTATED, "annotations")]
)
def test_the_columns_of_a_row_win_over_equal_keys_of_its_geometry(
    content: Any, role: str, read_file: Callable[[Any, str], Service]
) -> None:
    service = read_file(content, role)
    rows = sorted(table(service, Annotation), key=lambda row: row["position"])
    for row, one in zip(rows, seen(service), strict=True):
        for name in ("type", "frame"):
            assert one[name] == row[name]
        for name in ("label", "uuid", "attributes"):
            assert row[name] is None or one[name] == row[name]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "box", "left": 1, "top": 2, "width": 3, "height": 4, "frame": 9, "label": "a", "uuid": "u"},
        {"type": "blob", "frame": 9, "label": "a", "uuid": "u", "attributes": {"a": 1}},
    ],
)
def test_the_same_holds_for_annotations_of_the_response_itself(item: dict[str, Any]) -> None:
    (one,) = flatten("imageannotation", {"annotations": [item]}, None)
    assert (one["type"], one["frame"], one["label"], one["uuid"]) == (item["type"], None, "a", "u")
