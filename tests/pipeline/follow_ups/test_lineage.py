"""The lineage of a task: the tasks above it, and the follow-ups below, level by level and no more than a maximum."""

from typing import Any

import pytest

from pipeline.follow_ups import lineage as lineage_module
from pipeline.follow_ups.lineage import lineage
from tests.factories.callbacks import boxes
from tests.factories.pipelines import EACH, ROOT, Pipeline, asks

SECOND_STEP = {"after": {"step": "each"}, "create": asks()["create"]}


def read(pipeline: Pipeline, task_id: str) -> dict[str, Any]:
    with pipeline.service.reader.begin() as connection:
        found = lineage(connection, task_id, pipeline.service.prices)
    assert found is not None
    return dict(found)


def test_a_lineage_goes_up_to_the_first_task_and_down_level_by_level(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH, "again": SECOND_STEP})
    pipeline.receive(boxes("car", "van"))
    first, second = pipeline.children("each")
    pipeline.finish(first, {"category": "yes"})
    (grandchild,) = pipeline.children("again")

    below = read(pipeline, ROOT)
    assert [one["task_id"] for one in below["ancestors"]] == [ROOT]
    assert [(one["task_id"], one["depth"]) for one in below["descendants"][2:]] == [(grandchild, 2)]
    assert {one["task_id"] for one in below["descendants"][:2]} == {first, second}
    above = read(pipeline, grandchild)
    assert [one["task_id"] for one in above["ancestors"]] == [ROOT, first, grandchild]
    assert above["descendants"] == []


def test_no_more_descendants_are_read_than_the_maximum(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.workflow({"each": EACH})
    pipeline.receive(boxes("car", "car", "car"))
    monkeypatch.setattr(lineage_module, "MAX_DESCENDANTS", 2)
    found = read(pipeline, ROOT)
    assert (len(found["descendants"]), found["truncated"]) == (2, True)


def test_the_lineage_of_an_unknown_task_is_none(pipeline: Pipeline) -> None:
    with pipeline.service.reader.begin() as connection:
        assert lineage(connection, "nosuch", pipeline.service.prices) is None
