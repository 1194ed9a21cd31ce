"""VERIFY_BEFORE_CREATE: a callback is confirmed by Scale before a task is created for it."""

import json
from collections.abc import Callable

import pytest

from pipeline.follow_ups import decisions, inputs
from pipeline.follow_ups.submit import Row
from tests.factories.callbacks import receive_callback
from tests.factories.pipelines import ROOT, Pipeline, asks
from workflows.planning.inputs import input_task


@pytest.fixture
def careful(open_pipeline: Callable[..., Pipeline]) -> Pipeline:
    careful = open_pipeline(verify_before_create=True)
    careful.workflow({"ask": {**asks(), "after": {"type": "categorization"}}})
    return careful


def a_question(pipeline: Pipeline) -> str:
    task = pipeline.sandbox.create(
        "categorization",
        instruction="?",
        attachment_type="text",
        attachment="tomato",
        categories=["yes", "no"],
        callback_url="http://127.0.0.1:9/callbacks/scale",
    )
    return str(task["task_id"])


def test_a_callback_that_scale_vouches_for_is_followed(careful: Pipeline) -> None:
    task_id = a_question(careful)
    careful.finish(task_id, {"category": "yes"})
    assert careful.states() == {f"w.ask.{task_id}": "created"}


def test_a_forged_callback_buys_nothing_until_a_person_says_so(careful: Pipeline) -> None:
    task_id = a_question(careful)
    careful.sandbox.complete(task_id, {"category": "yes"})
    careful.receive({"category": "no"}, task_id=task_id, type="categorization")
    (row,) = careful.follow_ups().values()
    assert row["state"] == "held"
    assert row["reason"] == f"Scale has another response of the source task {task_id} than the callback"
    assert len(careful.sandbox.tasks()) == 1
    with careful.service.engine.begin() as connection:
        decisions.approve(connection, row["unique_id"], "ana")
    careful.work()
    assert careful.states() == {f"w.ask.{task_id}": "created"}


def test_a_callback_of_a_task_that_scale_does_not_know_buys_nothing(careful: Pipeline) -> None:
    careful.receive({"category": "no"}, type="categorization")
    (row,) = careful.follow_ups().values()
    assert row["state"] == "held"
    assert f"Scale does not confirm the source task {ROOT}" in row["reason"]
    assert careful.sandbox.tasks() == []


def test_an_input_needs_no_word_of_scale_and_a_forged_one_gets_it(careful: Pipeline) -> None:
    ask = {**asks(), "start": {"columns": ["text"]}}
    del ask["after"]
    careful.workflow({"ask": ask})
    workflow = careful.service.workflows.workflow("w")
    assert workflow is not None
    given = inputs.read_inputs(careful.service, workflow, [Row(1, {"text": "tomato"})], "live")
    inputs.start(careful.service, workflow, given, "live", "ana")
    careful.work()
    assert list(careful.states().values()) == ["created"]
    forged = input_task("w", "input-forged", {"text": "potato"})
    receive_callback(careful.service, json.dumps(forged).encode())
    careful.work()
    assert careful.states()["w.ask.input-forged"] == "held"
