"""Workflows that begin with inputs, without a paid first task."""

from typing import Any

import pytest

from pipeline.follow_ups import inputs
from pipeline.follow_ups.lineage import lineage
from pipeline.follow_ups.runs import run_of
from pipeline.follow_ups.submit import InvalidInput, Row
from pipeline.operations.queries.spend import spend
from tests.factories.pipelines import Pipeline, asks

LABEL = {
    "start": {"columns": ["image"]},
    "copies": [{"project": "team-a"}, {"project": "team-b", "instruction": "Be quick"}],
    "on_rejected": {"retry": 1, "params": {"instruction": "${{ join(' ', previous.review.comments) }}"}},
    "create": {
        "type": "annotation",
        "params": {"instruction": "Draw", "attachment": "${{ row.image }}", "objects_to_annotate": ["car"]},
    },
}
AGREED = {"after": {"step": "label"}, "join": {"reduce": "consensus-boxes"}}
BOX = {"label": "car", "left": 1, "top": 2, "width": 30, "height": 40}


def start(pipeline: Pipeline, *rows: dict[str, Any], environment: str = "live") -> list[tuple[str, str]]:
    workflow = pipeline.service.workflows.workflow("w")
    assert workflow is not None
    numbered = [Row(number, row) for number, row in enumerate(rows, 1)]
    found = inputs.read_inputs(pipeline.service, workflow, numbered, environment)
    assert [one.fault for one in found] == [None] * len(found)
    outcomes, _ = inputs.start(pipeline.service, workflow, found, environment, "ana")
    pipeline.work()
    return [(one.task_id, outcome) for one, outcome in outcomes]


def test_an_input_leads_to_its_tasks_once_and_costs_nothing_itself(pipeline: Pipeline) -> None:
    for project in ("team-a", "team-b"):
        pipeline.sandbox.call("POST", "/v1/projects", {"type": "annotation", "name": project})
    pipeline.workflow({"label": LABEL, "agreed": AGREED})
    ((task_id, outcome),) = start(pipeline, {"image": "https://images.example/1.png"})
    assert outcome == "created"
    assert start(pipeline, {"image": "https://images.example/1.png"}) == [(task_id, "already_exists")]
    requests = [pipeline.sandbox.original_request(child) for child in pipeline.children("label")]
    assert [(one["project"], one["instruction"]) for one in requests] == [
        ("team-a", "Draw"), ("team-b", "Be quick"),
    ]  # fmt: skip
    for child in list(pipeline.children("label")):
        pipeline.finish(child, {"annotations": [BOX]})
    (join,) = pipeline.joins().values()
    assert (join["source_task_id"], join["conclusion"]) == (task_id, "agreed")
    with pipeline.service.reader.begin() as connection:
        found = lineage(connection, task_id, pipeline.service.prices)
        rows, total = spend(connection, pipeline.service.prices)
    assert found is not None
    assert (found["run"]["state"], len(found["descendants"])) == ("completed", 2)
    assert [(row["workflow"], row["tasks"]) for row in rows] == [("w", 2)]
    assert total["tasks"] == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_is_rejected_is_sent_again_in_place_of_the_former_task(pipeline: Pipeline) -> None:
    pipeline.workflow({"label": {**LABEL, "copies": 1}})
    ((task_id, _),) = start(pipeline, {"image": "https://images.example/1.png"})
    (child,) = pipeline.children("label")
    pipeline.finish(child)
    pipeline.sandbox.audit(child, "rejected", "Too large")
    pipeline.tell(child)
    pipeline.work()
    first, second = pipeline.follow_ups().values()
    assert (second["unique_id"], second["source_task_id"], second["attempt"]) == (
        f"{first['unique_id']}.retry-1", task_id, 2,
    )  # fmt: skip
    assert pipeline.sandbox.original_request(second["task_id"])["instruction"] == "Too large"
    pipeline.sandbox.fail(second["task_id"])
    pipeline.tell(second["task_id"])
    pipeline.work()
    with pipeline.service.reader.begin() as connection:
        run = run_of(connection, task_id, pipeline.service.prices)
    assert (run["state"], run["counts"]) == ("failed", {"completed": 1, "error": 1})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_is_no_input_is_refused_with_its_line(pipeline: Pipeline) -> None:
    pipeline.workflow({"label": LABEL, "agreed": AGREED})
    start(pipeline, {"image": "a.png", "unique_id": "one"})
    workflow = pipeline.service.workflows.workflow("w")
    assert workflow is not None
    rows = [
        Row(1, {"city": "Bern"}),
        Row(2, {"image": "a.png", "unique_id": "a b"}),
        Row(3, {"image": "b.png", "unique_id": "one"}),
        Row(4, {"image": "c.png", "unique_id": "two"}),
        Row(5, {"image": "d.png", "unique_id": "two"}),
        Row(6, {"image": "d.png"}),
        Row(7, {"image": "d.png"}),
    ]
    found = inputs.read_inputs(pipeline.service, workflow, rows, "live")
    assert {one.line: one.fault for one in found} == {
        1: "has no image",
        2: "its unique_id must have 1 to 100 letters, digits, or . _ -",
        3: "its unique_id was used before for another input",
        4: None,
        5: "its unique_id is already used by line 4 for another input",
        6: None,
    }
    pipeline.workflow({"next": asks()}, "v")
    without = pipeline.service.workflows.workflow("v")
    assert without is not None
    with pytest.raises(InvalidInput, match="has a `start`"):
        inputs.read_inputs(pipeline.service, without, rows, "live")
