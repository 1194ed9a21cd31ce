"""A new workflow file acts on what is received after it was saved, whatever jobs run when it is loaded."""

import os
import time
from collections.abc import Callable

from models import Delivery, WorkflowSeen
from pipeline.follow_ups import decisions
from pipeline.follow_ups.preview import explanations
from pipeline.jobs import kinds, queue
from pipeline.operations.queries.views import get_view
from pipeline.receive.replay import replay
from tests.assertions import only, table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import ROOT, Pipeline, asks


def plan_again(pipeline: Pipeline, task_id: str = ROOT) -> None:
    """Run the job that any late event may enqueue."""
    with pipeline.service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, [task_id])
    pipeline.work()


def save_later(pipeline: Pipeline, *args: object, **keys: object) -> None:
    """Write a workflow file at a later millisecond than whatever was received."""
    time.sleep(0.02)
    pipeline.workflow(*args, **keys)  # type: ignore[arg-type]


def test_a_new_file_leaves_what_was_received_before_alone(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(after={"type": "annotation"})}, "other")
    receive_callback(pipeline.service, callback(boxes("car")))
    save_later(pipeline, {"ask": asks()})
    plan_again(pipeline)
    assert pipeline.states() == {}
    pipeline.receive(boxes("car", "van"), updated_at="2030-01-01T00:00:00Z")
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


def test_explain_says_that_a_result_came_before_the_step(pipeline: Pipeline) -> None:
    pipeline.receive(boxes("car"))
    save_later(pipeline, {"ask": asks()})
    plan_again(pipeline)
    with pipeline.service.reader.begin() as connection:
        seen = get_view(connection, ROOT)
        (step,) = explanations(connection, pipeline.service, seen, pipeline.service.workflows.loaded)
    first = step["conditions"][0]
    assert (first["name"], first["held"]) == ("received", False)
    assert "`weighbridge workflows backfill w`" in first["why"]


def test_a_new_step_leaves_what_was_received_before_alone(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    save_later(pipeline, {"ask": asks(), "more": asks()})
    plan_again(pipeline)
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


def test_a_replay_is_followed_by_every_file(pipeline: Pipeline) -> None:
    pipeline.receive(boxes("car"))
    save_later(pipeline, {"ask": asks()})
    plan_again(pipeline)
    assert pipeline.states() == {}
    replay(pipeline.service, only(pipeline.service, Delivery)["id"], "ana")
    pipeline.work()
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


def test_a_file_that_was_saved_long_ago_counts_from_a_minute_before_it_is_loaded(
    pipeline: Pipeline,
) -> None:
    pipeline.receive(boxes("car"))
    pipeline.workflow({"ask": asks()})
    old = time.time() - 86_400
    os.utime(pipeline.folder / "w.yaml", (old, old))
    plan_again(pipeline)
    (seen,) = table(pipeline.service, WorkflowSeen)
    assert (seen["workflow"], seen["step"]) == ("w", "ask")
    assert seen["active_from"].timestamp() > old
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


def test_an_edit_of_a_known_file_changes_nothing_about_it(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(when="length(annotations) > `5`")})
    pipeline.receive(boxes("car"))
    save_later(pipeline, {"ask": asks()})
    plan_again(pipeline)
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


def test_what_came_while_a_new_file_was_invalid_is_planned_once_it_is_fixed(pipeline: Pipeline) -> None:
    pipeline.write("workflow: w\nsteps: {ask: {after: {tipe: imageannotation}}}\n")
    pipeline.receive(boxes("car"))
    save_later(pipeline, {"ask": asks()})
    plan_again(pipeline)
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


def test_what_a_paused_workflow_missed_is_planned_all_the_same(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    with pipeline.service.engine.begin() as connection:
        decisions.pause(connection, "w", "ana")
    pipeline.receive(boxes("car"))
    with pipeline.service.engine.begin() as connection:
        decisions.resume(connection, "w", "ana")
    pipeline.work()
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


def test_two_services_agree_on_when_a_file_was_added(
    pipeline: Pipeline, open_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline.receive(boxes("car"))
    save_later(pipeline, {"ask": asks()})
    plan_again(pipeline)
    os.utime(pipeline.folder / "w.yaml")
    other = open_pipeline()
    plan_again(other)
    assert len(table(pipeline.service, WorkflowSeen)) == 1
    assert pipeline.states() == {}
