"""Response versions and annotations in the API."""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import select, update

from models import Artifact, Response, Task
from pipeline.db.annotation_rows import write_annotations
from pipeline.service import Service
from scale.annotations import Annotation as Value
from tests.app.api.conftest import PAYLOADS, Deliver

Get = Callable[..., Any]

CASES = sorted(
    str(path.relative_to(PAYLOADS).with_suffix("").with_suffix(""))
    for path in PAYLOADS.glob("*/*.expected.json")
    if path.parent.name not in ("batch", "files")
)


def boxes(*labels: str, moved: int = 0) -> dict[str, Any]:
    return {
        "annotations": [
            {"label": label, "left": 10 * at + moved, "top": 0, "width": 8, "height": 8, "type": "box"}
            for at, label in enumerate(labels)
        ]
    }


def test_the_annotations_of_every_recorded_body_are_as_expected(deliver: Deliver, get: Get) -> None:
    names = ("position", "type", "label", "uuid", "frame", "attributes", "geometry", "warning")
    for number, case in enumerate(CASES):
        expected = json.loads((PAYLOADS / f"{case}.expected.json").read_text())
        whole = "task" in json.loads((PAYLOADS / f"{case}.json").read_text())
        receipt = deliver(case, **({"task_id": f"t{number}"} if whole else {}))
        task_id = get(f"/deliveries/{receipt.delivery_id}")["task_id"]
        rows = get(f"/tasks/{task_id}/annotations", limit=1000)["data"]
        wanted = expected.get("annotations", [])
        assert [{name: row[name] for name in names} for row in rows] == [
            {name: row.get(name) for name in names} for row in wanted
        ], case
        task = get(f"/tasks/{task_id}")
        assert task["annotation_count"] == len(wanted), case
        assert task["answer"] == expected.get("answer"), case
        assert task["error"] == expected.get("error"), case


def test_annotations_are_paged_by_position(deliver: Deliver, get: Get) -> None:
    deliver("annotation/accepted", task_id="t", response=boxes(*"abcde"))
    found, cursor = [], None
    while True:
        page = get("/tasks/t/annotations", limit=2, **({"cursor": cursor} if cursor else {}))
        found += [row["label"] for row in page["data"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == list("abcde")


def test_annotations_are_filtered_by_label_type_frame_and_uuid(deliver: Deliver, get: Get) -> None:
    deliver("imageannotation/every_shape", task_id="t")
    rows = get("/tasks/t/annotations")["data"]
    for name in ("label", "type", "uuid"):
        value = rows[0][name]
        assert get("/tasks/t/annotations", **{name: value})["data"] == [
            row for row in rows if row[name] == value
        ]
    assert get("/tasks/t/annotations", frame=3)["data"] == []


def test_every_version_is_listed_and_only_one_is_current(deliver: Deliver, get: Get) -> None:
    deliver("annotation/accepted", task_id="t", response=boxes("car"), updated_at="2021-05-13T00:00:00Z")
    late = deliver(
        "annotation/accepted", task_id="t", response=boxes("bus"), updated_at="2021-05-12T12:00:00Z"
    )
    current, older = get("/tasks/t/responses")["data"]
    assert [current["number"], older["number"]] == [2, 1]
    assert [current["is_current"], older["is_current"]] == [True, False]
    assert older["delivery_id"] == str(late.delivery_id)
    assert current["event"] == "accepted"
    assert current["status"] == "completed"
    assert current["annotation_count"] == 1
    assert current["response"] == boxes("car")
    assert [row["label"] for row in get("/tasks/t/annotations")["data"]] == ["car"]
    assert [row["label"] for row in get("/tasks/t/annotations", response=1)["data"]] == ["bus"]
    assert get("/tasks/t/responses/2")["artifacts"] == []


def test_a_recalled_task_keeps_its_versions_and_has_no_current_one(deliver: Deliver, get: Get) -> None:
    deliver("annotation/accepted", task_id="t", response=boxes("car"))
    deliver("annotation/recalled", task_id="t", updated_at="2031-01-01T00:00:00Z")
    assert get("/tasks/t")["response_number"] is None
    assert [version["is_current"] for version in get("/tasks/t/responses")["data"]] == [False]
    assert get("/tasks/t/annotations")["data"] == []
    assert len(get("/tasks/t/annotations", response=1)["data"]) == 1


def test_a_diff_says_what_a_version_changed(deliver: Deliver, get: Get) -> None:
    deliver("annotation/accepted", task_id="t", response=boxes("car", "bus", "dog"))
    changed = boxes("car", "van", "dog")
    changed["annotations"][2]["left"] += 2
    changed["annotations"] = [*changed["annotations"][1:], {**boxes("cat")["annotations"][0], "top": 900}]
    deliver("annotation/fixed", task_id="t", response=changed)
    found = get("/tasks/t/responses/2/diff", against=1)
    assert [row["label"] for row in found["added"]] == ["cat"]
    assert [row["label"] for row in found["removed"]] == ["car"]
    assert [(row["before"]["label"], row["after"]["label"]) for row in found["relabeled"]] == [("bus", "van")]
    assert [row["after"]["label"] for row in found["moved"]] == ["dog"]
    assert found["moved"][0]["matched_by"] == "overlap"
    assert get("/tasks/t/responses/2/diff")["counts"] == found["counts"]
    assert get("/tasks/t/responses/1/diff", against=2)["counts"]["added"] == 1


def test_versions_that_are_not_there_are_problems(client: Any, deliver: Deliver) -> None:
    deliver("annotation/accepted", task_id="t")
    for path, status in (
        ("/tasks/t/annotations?response=7", 404),
        ("/tasks/t/annotations?response=0", 400),
        ("/tasks/t/responses/9", 404),
        ("/tasks/t/responses/99999999999999999999", 404),
        ("/tasks/t/responses/1/diff", 400),
        ("/tasks/t/responses/1/diff?against=2", 404),
        ("/tasks/nobody/responses", 404),
        ("/tasks/nobody/annotations", 404),
        ("/tasks/nobody/responses/1/diff?against=2", 404),
    ):
        answer = client.get(f"/api/v1{path}")
        assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), path


def test_annotations_of_frames_have_the_time_and_the_image_of_their_frame(
    deliver: Deliver, get: Get, service: Service
) -> None:
    receipt = deliver("videoannotation/file_of_frames", task_id="t")
    with service.engine.begin() as connection:
        response_id = connection.scalar(select(Response.id))
        connection.execute(
            update(Task).values(
                params={"attachment": "https://example.com/v.mp4", "start_time": 2, "frame_rate": 5}
            )
        )
        connection.execute(update(Artifact).values(state="stored"))
        rows = [Value(n, "box", "car", None, frame, None, {}, None) for n, frame in enumerate((0, 10, None))]
        write_annotations(connection, response_id, 1, rows)
    assert receipt.status == "processed"
    found = get("/tasks/t/annotations")["data"]
    video = "https://example.com/v.mp4"
    assert [(row["time"], row["image"]) for row in found] == [(2.0, video), (4.0, video), (None, None)]
    with service.engine.begin() as connection:
        connection.execute(
            update(Task).values(params={"attachments": [f"https://example.com/{n}.png" for n in range(3)]})
        )
    assert [row["image"] for row in get("/tasks/t/annotations")["data"]] == [
        "https://example.com/0.png",
        None,
        None,
    ]
