"""Attacks by what is stored: pages, comparisons, previews, downloads and drawings that would fill the process that answers."""

import io
import itertools
import json
import re
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import insert, select, update

from models import (
    Artifact,
    AuditEntry,
    Batch,
    Delivery,
    FollowUp,
    Join,
    Notification,
    Subscriber,
    Task,
)
from pipeline.db.ids import created_at, format_timestamp, new_id, utcnow
from pipeline.db.sizes import MAX_PAGE_CHARACTERS, MAX_VALUE_CHARACTERS
from pipeline.events.results import signed_link
from pipeline.follow_ups.signed_urls import signed_url
from pipeline.operations.diff import MAX_COMPARISONS, TooDense, diff
from pipeline.service import Service
from scale.annotations import Annotation
from tests.factories.large_reads import large_read_elsewhere
from tests.security.conftest import TOKEN

pytestmark = pytest.mark.timeout(600)  # tracing memory takes several times as long as what it traces

MEGABYTE = "x" * 1_000_000
QUARTER = "x" * 250_000
MANY = 600_000
MAX_PEAK_BYTES = 96 * 1024 * 1024
"""Memory of one GET. MANY empty objects, which are 1.8 MB of JSON, take 140 MiB where they are parsed and written again."""
MAX_STREAM_BYTES = 40 * 1024 * 1024
"""Memory of one download, of any size."""


def pages(client: FlaskClient, path: str, limit: int = 1000) -> Iterator[tuple[int, list[Any]]]:
    """Size and rows of each page of a list."""
    cursor: str | None = None
    while True:
        answer = client.get(path, query_string={"limit": limit, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        yield len(answer.data), answer.json["data"]
        cursor = answer.json["next_cursor"]
        if cursor is None:
            return


# Answers.


def test_a_page_of_large_annotations_is_bounded_in_bytes_and_loses_none(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    boxes = [
        {
            "type": "box",
            "label": "x",
            "left": n,
            "top": 0,
            "width": 1,
            "height": 1,
            "attributes": {"a": QUARTER},
        }
        for n in range(20)
    ]
    deliver("t", {"annotations": boxes})
    found = list(pages(client, "/api/v1/tasks/t/annotations"))
    assert len(found) > 1
    assert all(size < MAX_PAGE_CHARACTERS + 20_000 for size, _ in found)
    assert [row["position"] for _, rows in found for row in rows] == list(range(20))


def test_a_page_of_tasks_with_large_metadata_is_bounded(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    for number in range(12):
        deliver(f"t{number}", {"annotations": []}, metadata={"a": QUARTER})
    found = list(pages(client, "/api/v1/tasks"))
    assert len(found) > 1
    assert all(size < MAX_PAGE_CHARACTERS + 20_000 for size, _ in found)
    assert {row["task_id"] for _, rows in found for row in rows} == {f"t{number}" for number in range(12)}


def test_a_large_response_is_left_out_of_json_and_can_be_downloaded(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    response = {"answer": ["a" * 20] * (MAX_VALUE_CHARACTERS // 20)}
    deliver("t", response)
    for path in ("/api/v1/tasks/t", "/api/v1/tasks/t/responses", "/api/v1/tasks/t/responses/1"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert len(answer.data) < 20_000, path
    assert client.get("/api/v1/tasks/t").json["left_out"] == ["answer"]
    (summary,) = client.get("/api/v1/tasks/t/responses").json["data"]
    assert summary["response"] is None
    assert summary["response_characters"] > MAX_VALUE_CHARACTERS
    assert json.loads(client.get("/api/v1/tasks/t/responses/1/content").data) == response


def test_a_small_response_is_in_the_list_and_nothing_is_left_out(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    deliver("t", {"annotations": []})
    assert client.get("/api/v1/tasks/t").json["left_out"] == []
    assert client.get("/api/v1/tasks/t/responses").json["data"][0]["response"] == {"annotations": []}


@pytest.mark.parametrize("endpoint", ["plan", "explain"])
def test_a_large_task_is_not_planned_in_the_web_process(
    client: FlaskClient, deliver: Callable[..., None], endpoint: str
) -> None:
    deliver("t", {"answer": [MEGABYTE] * 12})
    answer = client.get(f"/api/v1/tasks/t/{endpoint}")
    assert answer.status_code == 409
    assert "weighbridge workflows plan" in answer.json["detail"]


def test_a_value_above_the_limit_is_left_out_of_a_list_and_the_rest_of_its_row_stays(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    box = {"type": "box", "label": "x", "left": 1, "top": 0, "width": 1, "height": 1}
    deliver("t", {"annotations": [{**box, "attributes": {"a": MEGABYTE}}, box]}, metadata={"a": MEGABYTE})
    large, small = client.get("/api/v1/tasks/t/annotations").json["data"]
    assert large["attributes"] is None
    assert large["geometry"] == small["geometry"]
    assert client.get("/api/v1/tasks").json["data"][0]["metadata"] is None
    detail = client.get("/api/v1/tasks/t").json
    assert (detail["metadata"], detail["left_out"]) == (None, ["metadata"])


def test_the_page_of_a_task_with_a_large_request_says_why_it_shows_no_attachment(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    sign_in(client)
    deliver("t", {"annotations": []}, params={"attachments": ["x" * 1_000] * 600, "attachment_type": "image"})
    assert "The request of this task is too large for a page" in client.get("/console/tasks/t").text
    deliver("small", {"annotations": []}, params={"attachment_type": "image"})
    assert "too large for a page" not in client.get("/console/tasks/small").text


# Memory.


def measured(client: FlaskClient, path: str) -> tuple[int, int, int]:
    """Status and size of an answer, and the largest memory that it took."""
    tracemalloc.start()
    try:
        answer = client.get(path, buffered=False)
        size = sum(map(len, answer.response))
        answer.close()
        return answer.status_code, size, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def objects(number: int = MANY) -> list[Any]:
    return [{} for _ in range(number)]


@pytest.fixture
def hostile(app: Flask, deliver: Callable[..., None]) -> dict[str, list[Any]]:
    """Rows whose JSON is large in every column that a sender, an author or an operator can fill. Returns the values of the
    parameters of a path."""
    service: Service = app.extensions["weighbridge"]
    box = {"type": "box", "label": "x", "uuid": "u", "left": 1, "top": 0, "width": 1, "height": 1}
    params = {"attachment": "http://127.0.0.1:9/a.png", "attachment_type": "image"}
    almost_left_out = {"a": objects(MAX_VALUE_CHARACTERS // 4)}
    results: dict[str, Any] = {
        "answer": {"answer": objects()},
        "one": {"annotations": [{**box, "attributes": {"a": objects()}}]},
        "several": {"annotations": [{**box, "attributes": almost_left_out} for _ in range(6)]},
    }
    large = {"a": objects()}
    described = {"metadata": large, "params": {**params, **large}, "prior_responses": objects()}
    for day in (1, 2):
        for task_id, response in results.items():
            of_task = described if (task_id, day) == ("answer", 2) else {"params": params}
            changed = {**response, "day": day}
            deliver(task_id, changed, updated_at=f"2026-01-0{day}T00:00:00Z", **of_task)
    files = [f"https://files.example/{number}?{'x' * 2_000}" for number in range(10_000)]
    deliver("files", {"annotations": {"labeled": {"c": files}}, "labelMapping": {}}, type="segmentannotation")
    subscriber, now = new_id(), utcnow()
    step = {"workflow": "w", "step": "s", "source_task_id": "answer"}
    with service.engine.begin() as connection:

        def add(model: Any, **values: Any) -> None:
            connection.execute(insert(model).values(**values))

        add(
            FollowUp, **step, unique_id="f", id=new_id(), workflow_digest="d", state="completed", environment="live",
            task_type="annotation", request=large, task_id="one", planned_at=now,
        )  # fmt: skip
        add(Join, **step, id="j", awaited_step="s", opened_at=now, fired_at=now, result=large)
        add(Batch, environment="live", name="b", details=large)
        add(Subscriber, id=subscriber, url="https://a.example", events=["task"], secret="s", created_at=now)
        add(
            Notification, id=new_id(), subscriber_id=subscriber, event="task.completed", key="k", payload=large,
            state="pending", attempts=[], created_at=now,
        )  # fmt: skip
        add(AuditEntry, id=new_id(), at=now, actor="a", action="a", subject="s", details=large)
        connection.execute(update(Task).where(Task.task_id == "one").values(follow_up_unique_id="f"))
        connection.execute(update(Artifact).where(Artifact.ordinal == 1).values(details=large))
        (artifact,) = connection.scalars(select(Artifact.id).where(Artifact.ordinal == 1))
        first, _ = connection.scalars(
            select(Delivery.id).where(Delivery.task_id == "several").order_by(Delivery.id)
        )
    return {
        "task_id": [*results, "files"],
        "number": [2],
        "position": [0],
        "delivery_id": [first],
        "unique_id": ["f"],
        "join_id": ["j"],
        "subscriber_id": [subscriber],
        "artifact_id": [artifact],
        "signed": [signed_link(service.settings, task_id, 1).rpartition("/")[2] for task_id in results],
        "as_of": [format_timestamp(created_at(first) + timedelta(milliseconds=1), "microseconds")],
    }


def paths(app: Flask, values: dict[str, list[Any]]) -> Iterator[str]:
    """The path of every route that is read with GET. A parameter that has no value here names nothing."""
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and rule.endpoint != "console.static":
            known = [
                values.get(name, [0 if name in ("frame", "camera") else UUID(int=0)])
                for name in rule.arguments
            ]
            for chosen in itertools.product(*known):
                yield adapter.build(rule.endpoint, dict(zip(rule.arguments, chosen, strict=True)), "GET")


def sign_in(client: FlaskClient) -> None:
    page = client.get("/console/sign-in").text
    (token,) = re.findall(r'name="csrf_token" value="([^"]+)"', page)
    assert client.post("/console/sign-in", data={"csrf_token": token, "token": TOKEN}).status_code == 302


def test_no_answer_to_a_get_takes_more_memory_than_the_bound(
    app: Flask, client: FlaskClient, hostile: dict[str, list[Any]]
) -> None:
    sign_in(client)
    more = (
        f"/api/v1/insights?as_of={hostile['as_of'][0]}",
        "/api/v1/tasks?limit=1000",
        "/api/v1/artifacts?limit=1000",
        "/console/tasks/answer/raw?format=json",
        "/console/tasks?format=json",
    )
    found = {path: measured(client, path) for path in (*paths(app, hostile), *more)}
    assert len(found) > 120
    assert {path: peak // 2**20 for path, (_, _, peak) in found.items() if peak > MAX_PEAK_BYTES} == {}
    assert [path for path, (status, _, _) in found.items() if status == 500] == []


def test_a_download_takes_the_same_memory_whatever_its_size(
    app: Flask, client: FlaskClient, deliver: Callable[..., None]
) -> None:
    service: Service = app.extensions["weighbridge"]
    sign_in(client)
    text = "\U0001f600" + "x" * 44_000_000  # four bytes a character where it is a string
    box = {"type": "box", "label": "x", "left": 1, "top": 0, "width": 1, "height": 1}
    response = {"annotations": [{**box, "attributes": {"a": text}}]}
    deliver("t", response)
    with service.reader.begin() as connection:
        row = connection.execute(select(Delivery)).mappings().one()
    paths_of_downloads = {
        "body": f"/api/v1/deliveries/{row['id']}/body",
        "response": "/api/v1/tasks/t/responses/1/content",
        "result": f"/results/{signed_link(service.settings, 't', 1).rpartition('/')[2]}",
        "raw": "/console/tasks/t/raw?format=json",
        "delivery": f"/console/deliveries/{row['id']}",
    }
    for path in paths_of_downloads.values():
        status, _, peak = measured(client, path)
        assert (status, peak < MAX_STREAM_BYTES) == (200, True), (path, peak // 2**20)
    body = client.get(paths_of_downloads["body"])
    assert body.content_length == row["size_bytes"]
    assert sha256(body.data).hexdigest() == row["sha256"]
    assert client.get(paths_of_downloads["response"]).json == response
    assert client.get(paths_of_downloads["raw"]).json == {"request": None, "response": response}
    (shown,) = client.get(paths_of_downloads["result"]).json["annotations"]
    assert (shown["label"], shown["attributes"]) == ("x", {"a": text})


COPY_ALL = """
workflow: copy-all
steps:
  each:
    after: {type: annotation}
    for_each: annotation
    create:
      type: imageannotation
      params:
        attachment: https://a.example/a.png
        instruction: Look
        geometries: {box: {objects_to_annotate: [car]}}
        metadata: {all: "${{ annotations }}"}
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "path", ["/api/v1/tasks/t/plan", "/api/v1/tasks/t/explain", "/console/workflows/copy-all?task=t"]
)
def test_requests_that_repeat_a_whole_result_are_not_planned_in_the_web_process(
    client: FlaskClient, deliver: Callable[..., None], tmp_path: Path, path: str
) -> None:
    (tmp_path / "workflows/copy-all.yaml").write_text(COPY_ALL)
    sign_in(client)
    deliver("t", {"annotations": many_boxes(300, 1)})
    status, _, peak = measured(client, path)
    assert (status, peak < MAX_PEAK_BYTES) == (409, True), peak // 2**20
    assert "weighbridge workflows plan" in client.get(path).text


def test_files_and_masks_that_take_much_memory_are_not_drawn(
    app: Flask, client: FlaskClient, deliver: Callable[..., None]
) -> None:
    service: Service = app.extensions["weighbridge"]
    sign_in(client)

    def kept(content: bytes) -> str:
        digest, _ = service.store.put(io.BytesIO(content))
        return signed_url(service.settings, digest, "application/octet-stream")

    image = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(image, "PNG")
    rle = {"size": [50_000, 50_000], "counts": "0"}
    mask = {"type": "mask", "left": 0, "top": 0, "width": 50_000, "height": 50_000, "pixels": 1, "rle": rle}
    deliver("image", {"annotations": [mask]}, params={"attachment": kept(image.getvalue())})
    points = kept(b'{"points":[' + b"{}," * 2_000_000 + b"{}]}")
    deliver("lidar", {"annotations": []}, params={"attachments": [points], "attachment_type": "json"})
    assert client.get("/console/attachments/image/0").content_type == "image/png"  # no smaller preview
    assert "svg" in client.get("/console/attachments/image/thumbnail").content_type
    for path, expected in (
        ("/console/tasks/image/masks/1/0.png", 404),
        ("/console/tasks/lidar/points/0", 413),
        ("/console/cameras/lidar/0/0", 502),
    ):
        status, _, peak = measured(client, path)
        assert (status, peak < MAX_PEAK_BYTES) == (expected, True), (path, peak // 2**20)


def test_one_large_read_is_answered_at_a_time_and_small_ones_meanwhile(
    client: FlaskClient, deliver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.db.memory_budget.TURN_TIMEOUT_SECONDS", 0.01)
    for day in (1, 2):
        updated_at = f"2026-01-0{day}T00:00:00Z"
        deliver("large", {"annotations": many_boxes(8_000, day)}, updated_at=updated_at)
        deliver("small", {"annotations": many_boxes(100, day)}, updated_at=updated_at)
        deliver(
            "refused",
            {"annotations": [{"a": text} for text in [MEGABYTE] * 9], "day": day},
            updated_at=updated_at,
        )
    large, small, refused = (
        f"/api/v1/tasks/{name}/responses/2/diff" for name in ("large", "small", "refused")
    )
    with large_read_elsewhere():
        busy = client.get(large)
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "5")
        assert client.get(small).status_code == 200
    assert [client.get(path).status_code for path in (large, refused, large)] == [200, 400, 200]


# Comparisons.


def many_boxes(number: int, day: int) -> list[dict[str, Any]]:
    """Boxes as Scale sends them, each moved a little from day to day."""
    return [
        {
            "type": "box",
            "label": "car",
            "uuid": f"{n:032x}",
            "left": n % 200 * 40.25 + day,
            "top": n // 200 * 50.75,
            "width": 30.125,
            "height": 40.5,
            "attributes": {"occluded": False, "color": "red", "direction": "left", "parked": "yes"},
        }
        for n in range(number)
    ]


def test_two_versions_of_20_000_boxes_are_compared(client: FlaskClient, deliver: Callable[..., None]) -> None:
    for day, number in ((1, 19_990), (2, 20_000)):
        deliver("t", {"annotations": many_boxes(number, day)}, updated_at=f"2026-01-0{day}T00:00:00Z")
    found = client.get("/api/v1/tasks/t/responses/2/diff").json
    assert found["counts"] == {
        "added": 10,
        "removed": 0,
        "moved": 19_990,
        "relabeled": 0,
        "attributes_changed": 0,
        "unchanged": 0,
    }
    assert [row["position"] for row in found["added"]] == list(range(19_990, 20_000))
    assert (
        found["moved"][0]["after"]["geometry"]["left"] == found["moved"][0]["before"]["geometry"]["left"] + 1
    )


def test_versions_that_are_too_large_are_refused_with_what_to_download(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    box = {"type": "box", "label": "x", "left": 1, "top": 0, "width": 1, "height": 1}
    for day in (1, 2):
        response = {"annotations": [{**box, "attributes": {"a": MEGABYTE}}] * 9, "day": day}
        deliver("t", response, updated_at=f"2026-01-0{day}T00:00:00Z")
    answer = client.get("/api/v1/tasks/t/responses/2/diff")
    assert answer.status_code == 400
    assert "at most 16,777,216 are compared" in answer.json["detail"]
    for number in (1, 2):
        content = f"/api/v1/tasks/t/responses/{number}/content"
        assert content in answer.json["detail"]
        assert client.get(content).status_code == 200


def boxes(number: int, offset: int) -> list[Annotation]:
    """Boxes that all overlap."""
    return [
        Annotation(
            n,
            "box",
            "x",
            None,
            None,
            None,
            {"left": n / 100 + offset / 1000, "top": 0, "width": 900, "height": 900},
            None,
        )
        for n in range(number)
    ]


def points(number: int, offset: int) -> list[Annotation]:
    """Points within a few pixels of each other."""
    return [
        Annotation(n, "point", "x", None, None, None, {"x": n % 5 + offset, "y": offset}, None)
        for n in range(number)
    ]


@pytest.mark.parametrize("shapes", [boxes, points])
def test_versions_that_all_overlap_are_refused_before_they_are_compared(
    shapes: Callable[[int, int], list[Annotation]],
) -> None:
    number = int(MAX_COMPARISONS**0.5) + 10
    with pytest.raises(TooDense):
        diff(shapes(number, 0), shapes(number, 1))


@pytest.mark.parametrize("shapes", [boxes, points])
def test_dense_versions_below_the_bound_are_compared(shapes: Callable[[int, int], list[Annotation]]) -> None:
    found = diff(shapes(300, 0), shapes(300, 1))
    assert len(found.moved) + len(found.added) + found.unchanged == 300
    assert len(found.added) == len(found.removed)


def test_a_dense_comparison_is_answered_with_400(client: FlaskClient, deliver: Callable[..., None]) -> None:
    number = int(MAX_COMPARISONS**0.5) + 10

    def annotations(offset: int) -> list[dict[str, Any]]:
        return [
            {"label": "x", "left": n / 100 + offset / 1000, "top": 0, "width": 900, "height": 900}
            for n in range(number)
        ]

    deliver("t", {"annotations": annotations(0)}, updated_at="2026-01-01T00:00:00Z")
    deliver("t", {"annotations": annotations(1)}, updated_at="2026-01-02T00:00:00Z")
    answer = client.get("/api/v1/tasks/t/responses/2/diff")
    assert answer.status_code == 400
    assert "comparisons" in answer.json["detail"]
