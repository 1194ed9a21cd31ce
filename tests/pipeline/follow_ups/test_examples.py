"""The pipelines of examples/ against the stand-in for Scale, from the first task to the last."""

import io
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.follow_ups import backfill, inputs
from pipeline.follow_ups.signed_urls import parse_own_url
from pipeline.follow_ups.submit import Row
from pipeline.sync.imports import import_file
from sandbox.examples import EXAMPLES as REQUESTS
from sandbox.pytest_plugin import ScaleSandbox
from tests.factories.pipelines import Pipeline
from tests.factories.receivers import Receiver, subscribe
from workflows.definition.model import Workflow

EXAMPLES = Path(__file__).parents[3] / "examples"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""The pipelines are about what follows from what; the SQL behind them is tested on both databases elsewhere."""


def begin(pipeline: Pipeline, name: str, type_name: str, **fields: Any) -> str:
    """Load an example, create its first task at Scale, and return the task's id."""
    pipeline.write((EXAMPLES / f"{name}.yaml").read_text(), name)
    request = {"instruction": "Begin", **REQUESTS[type_name], **fields, "tags": [name]}
    created = pipeline.sandbox.create(type_name, callback_url="http://127.0.0.1:9/nowhere", **request)
    task_id: str = created["task_id"]
    return task_id


def review(pipeline: Pipeline, task_id: str, status: str, *comments: str) -> None:
    pipeline.sandbox.audit(task_id, status, "; ".join(comments) or None)
    pipeline.tell(task_id)
    pipeline.work()


def steps(pipeline: Pipeline) -> Counter[tuple[str, str]]:
    return Counter((row["step"], row["state"]) for row in pipeline.follow_ups().values())


def request_of(pipeline: Pipeline, task_id: str) -> dict[str, Any]:
    return pipeline.sandbox.original_request(task_id)


def polygon(uuid: str, left: int) -> dict[str, Any]:
    corners = [{"x": left, "y": 50}, {"x": left + 100, "y": 50}, {"x": left + 50, "y": 150}]
    return {"label": "vehicle", "uuid": uuid, "vertices": corners}


def test_a_third_task_follows_only_the_crops_that_show_a_truck(pipeline: Pipeline) -> None:
    first = begin(pipeline, "crop-kind-cuboid", "polygonannotation")
    # Without the cut: the image of this test is nowhere, and the pipeline is about what follows.
    file = pipeline.folder / "crop-kind-cuboid.yaml"
    file.write_text(file.read_text().replace("    crop: {padding: 10%, min_size: 64}\n", ""))
    pipeline.finish(first, {"annotations": [polygon("a", 10), polygon("b", 500)]})
    assert steps(pipeline) == {("kind", "created"): 2}
    for task_id, answer in zip(list(pipeline.children("kind")), ("car", "truck"), strict=True):
        pipeline.finish(task_id, {"category": answer})
    (cuboid,) = pipeline.children("cuboid")
    request = request_of(pipeline, cuboid)
    assert request["attachment"] == REQUESTS["polygonannotation"]["attachment"]
    assert request["layers"]["polygons"][0]["vertices"] == polygon("b", 500)["vertices"]


def load(pipeline: Pipeline, name: str) -> Workflow:
    pipeline.write((EXAMPLES / f"{name}.yaml").read_text(), name)
    workflow = pipeline.service.workflows.workflow(name)
    assert workflow is not None
    return workflow


def start(pipeline: Pipeline, name: str, row: dict[str, Any]) -> str:
    """Load an example, start it with one input, and return the input's id."""
    workflow = load(pipeline, name)
    found = inputs.read_inputs(pipeline.service, workflow, [Row(1, row)], "live")
    inputs.start(pipeline.service, workflow, found, "live", "ana")
    pipeline.work()
    return found[0].task_id


def test_three_labelers_who_disagree_lead_to_a_fourth_and_the_webhook_has_the_result(
    open_pipeline: Callable[..., Pipeline],
) -> None:
    receiver = Receiver()
    with receiver.peer:
        pipeline = open_pipeline(subscriber_hosts=(receiver.host,))
        chosen = {"workflow": ["three-way-consensus"], "step": ["agreed", "tie-breaker"]}
        events = ("join.finished", "task.accepted")
        secret = subscribe(pipeline, receiver, *events, filters=chosen, with_result=True)
        image = start(pipeline, "three-way-consensus", {"image": "https://static.example.com/street.jpg"})
        for number, task_id in enumerate(list(pipeline.children("ask"))):
            boxes = [{"label": "car", "left": 10, "top": 10, "width": 100, "height": 50}]
            if number == 2:
                boxes.append({"label": "car", "left": 300, "top": 10, "width": 40, "height": 40})
            pipeline.finish(task_id, {"annotations": boxes})
        assert steps(pipeline) == {("ask", "completed"): 3, ("tie-breaker", "created"): 1}
        (fourth,) = pipeline.children("tie-breaker")
        assert len(request_of(pipeline, fourth)["hypothesis"]["annotations"]) == 2
        pipeline.finish(
            fourth,
            {
                "annotations": [
                    {"type": "box", "label": "car", "left": 9, "top": 9, "width": 99, "height": 49}
                ]
            },
        )
        review(pipeline, fourth, "accepted")
        assert steps(pipeline)["tie-breaker", "completed"] == 1
        *joins, accepted = receiver.heard(secret)
    assert {(one["data"]["step"], one["data"]["verdict"]) for one in joins} == {
        ("agreed", "disagreed"), ("tie-breaker", "disagreed"),
    }  # fmt: skip
    assert {one["data"]["source_task_id"] for one in joins} == {image}
    assert len(joins[0]["data"]["result"]["left_out"]) == 1
    assert (accepted["type"], accepted["data"]["task_id"]) == ("task.accepted", fourth)
    assert [one["label"] for one in accepted["data"]["result"]["annotations"]] == ["car"]


def test_every_tenth_frame_is_labeled_and_then_the_whole_video_from_it(
    open_pipeline: Callable[..., Pipeline], sandbox: ScaleSandbox
) -> None:
    pipeline = open_pipeline(artifact_hosts=(sandbox.url.removeprefix("http://"),))
    frames = [f"https://static.example.com/frame-{number}.jpg" for number in range(11)]
    start(pipeline, "tenth-frame-first", {"frames": frames})
    (first,) = pipeline.children("first-pass")
    assert request_of(pipeline, first)["attachments"] == [frames[0], frames[10]]
    pipeline.finish(first)
    drawn = requests.get(pipeline.sandbox.task(first)["response"]["annotations"]["url"], timeout=10).json()
    (second,) = pipeline.children("second-pass")
    request = request_of(pipeline, second)
    assert request["attachments"] == frames
    settings = pipeline.service.settings
    file = parse_own_url(settings, request["hypothesis"]["annotations"]["url"])
    assert file is not None
    with pipeline.service.store.open(file.sha256) as content:
        spread = json.load(content)
    labels = [[one["label"] for one in frame["annotations"]] for frame in spread]
    assert [len(frame) for frame in labels[1:10]] == [0] * 9
    assert [labels[0], labels[10]] == [[one["label"] for one in frame["annotations"]] for frame in drawn]
    assert len(labels) == 20
    assert labels[0]


def test_every_tenth_frame_is_looked_at_once_more(pipeline: Pipeline) -> None:
    frames = [f"https://static.example.com/frame-{number}.jpg" for number in range(21)]
    first = begin(pipeline, "every-tenth-frame", "videoannotation", attachments=frames)
    pipeline.finish(first, {"annotations": {}})
    assert [request_of(pipeline, task_id)["attachment"] for task_id in pipeline.children("second-look")] == [
        frames[0], frames[10], frames[20],
    ]  # fmt: skip


def test_each_person_of_a_text_becomes_a_question(pipeline: Pipeline) -> None:
    first = begin(pipeline, "entities-to-texts", "namedentityrecognition")
    spans = [
        {"id": "s1", "start": 0, "end": 12, "text": "Ada Lovelace", "label": "person"},
        {"id": "s2", "start": 17, "end": 32, "text": "Charles Babbage", "label": "person"},
        {"id": "s3", "start": 36, "end": 42, "text": "London", "label": "place"},
    ]
    pipeline.finish(first, {"annotations": spans})
    asked = {
        request_of(pipeline, task_id)["metadata"]["person"] for task_id in pipeline.children("biography")
    }
    assert asked == {"Ada Lovelace", "Charles Babbage"}


def test_the_cuboids_of_a_scene_are_linked(pipeline: Pipeline) -> None:
    first = begin(pipeline, "cuboids-to-links", "lidarannotation")
    pipeline.finish(first, {"annotations": {}})
    (link,) = pipeline.children("link")
    assert request_of(pipeline, link)["lidar_task"] == first


def test_a_block_of_low_confidence_goes_to_a_second_person(pipeline: Pipeline) -> None:
    first = begin(pipeline, "low-confidence", "documenttranscription")
    location = {"type": "box", "left": 1, "top": 2, "width": 3, "height": 4}
    blocks = [
        {
            "id": f"b{n}",
            "type": "block",
            "label": "total",
            "text": "1",
            "page": 0,
            "location": location,
            **more,
        }
        for n, more in enumerate(({"confidence": 0.99}, {"confidence": 0.41}, {}))
    ]
    pipeline.finish(first, {"annotations": blocks})
    (second,) = pipeline.children("second-person")
    assert request_of(pipeline, second)["metadata"]["block"] == "b1"


@pytest.mark.parametrize("comments", [("Too large",), ()], ids=["a comment", "no comment"])
def test_what_is_rejected_is_asked_again_at_most_twice(pipeline: Pipeline, comments: tuple[str, ...]) -> None:
    first = begin(pipeline, "rejected-again", "imageannotation")
    pipeline.finish(first)
    review(pipeline, first, "rejected", *comments)
    for attempt in (1, 2):
        *_, task_id = pipeline.children("again")
        instruction = request_of(pipeline, task_id)["instruction"]
        assert instruction.count("The reviewer says:") == attempt
        assert instruction.count("Too large") == len(comments) * attempt
        pipeline.finish(task_id)
        review(pipeline, task_id, "rejected", *comments)
    assert [(row["step"], row["attempt"]) for row in pipeline.follow_ups().values()] == [
        ("again", 1),
        ("again", 2),
    ]


def test_an_import_of_two_thousand_tasks_and_a_backfill_with_its_cost_first(pipeline: Pipeline) -> None:
    tasks = [
        {
            "task_id": f"5f1e9b0000000000{number:08d}",
            "type": "annotation",
            "status": "completed",
            "created_at": "2026-01-01T00:00:00Z",
            "completed_at": f"2026-0{2 if number % 10 == 0 else 1}-10T00:00:00Z",
            "params": {"attachment": "https://static.example.com/street.jpg"},
            "response": {"annotations": []},
        }
        for number in range(2_000)
    ]
    for _ in import_file(pipeline.service, io.BytesIO(json.dumps(tasks).encode()), "live"):
        pass
    pipeline.work()
    pipeline.workflow({"look": {"after": {"type": "annotation"}, "create": LOOK}}, limits={"total": 5})
    workflow = pipeline.service.workflows.workflow("w")
    assert workflow is not None
    filters = {"since": _day("2026-02-01"), "until": _day("2026-03-01")}
    *_, found = backfill.preview(pipeline.service, workflow, filters)
    assert (found.matching, found.results) == (200, 200)
    assert found.follow_ups == {"created": 5, "held": 195}
    assert sum(found.cost.unpriced.values()) == 5
    with pipeline.service.engine.begin() as connection:
        backfill.start(connection, "w", filters, "ana")
    pipeline.work()
    assert steps(pipeline) == {("look", "created"): 5, ("look", "held"): 195}


LOOK = {
    "type": "categorization",
    "params": {
        "instruction": "Good?",
        "attachment_type": "image",
        "attachment": "${{ task.params.attachment }}",
        "categories": ["yes", "no"],
    },
}


def _day(text: str) -> Any:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
