"""Previews and explanations decide as planning does, and write nothing."""

from collections import Counter
from typing import Any

from pipeline.follow_ups.preview import Preview, explanations
from pipeline.follow_ups.views import load_snapshot
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import EACH, ROOT, Pipeline, asks


def preview(pipeline: Pipeline) -> list[dict[str, Any]]:
    with pipeline.service.reader.begin() as connection:
        snapshot = load_snapshot(connection, ROOT)
    assert snapshot is not None
    return list(Preview(pipeline.service, pipeline.service.workflows.loaded).of(snapshot.view))


def explain(pipeline: Pipeline) -> list[dict[str, Any]]:
    with pipeline.service.reader.begin() as connection:
        snapshot = load_snapshot(connection, ROOT)
        assert snapshot is not None
        return explanations(connection, pipeline.service, snapshot.view, pipeline.service.workflows.loaded)


def test_a_preview_has_the_states_and_ids_that_planning_gives(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": {**EACH, "limits": {"total": 2}}})
    receive_callback(pipeline.service, callback(boxes("car", "car", "car")))
    before = preview(pipeline)
    assert Counter(one["state"] for one in before) == {"created": 2, "held": 1}
    assert pipeline.follow_ups() == {}
    pipeline.work()
    planned = pipeline.states()
    assert {one["unique_id"] for one in before} == set(planned)
    held = next(one["unique_id"] for one in before if one["state"] == "held")
    assert planned[held] == "held"
    assert {one["state"] for one in preview(pipeline)} == {"already_exists"}


def test_an_explanation_names_the_condition_that_failed(pipeline: Pipeline) -> None:
    pipeline.workflow({"many": asks(when="length(annotations) > `5`"), "any": asks()})
    receive_callback(pipeline.service, callback(boxes("car")))
    many, any_ = explain(pipeline)
    assert [condition["name"] for condition in many["conditions"] if condition["held"] is False] == ["when"]
    assert many["follow_ups"] == []
    assert all(condition["held"] for condition in any_["conditions"])
    assert [one["state"] for one in any_["follow_ups"]] == [None]
    pipeline.work()
    assert [one["state"] for one in explain(pipeline)[1]["follow_ups"]] == ["created"]
