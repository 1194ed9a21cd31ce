"""Results that come by import or reconcile create nothing by themselves, however young they are; a callback does."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.follow_ups import decisions
from pipeline.sync import reconcile as reconciliation
from pipeline.sync.imports import import_file
from tests.factories.callbacks import boxes, callback, receive_callback, task
from tests.factories.pipelines import ROOT, Pipeline, asks


def import_tasks(pipeline: Pipeline, *tasks: dict[str, Any], **options: Any) -> None:
    for _ in import_file(pipeline.service, io.BytesIO(json.dumps(tasks).encode()), "live", **options):
        pass
    pipeline.work()


def lost_result(pipeline: Pipeline) -> str:
    """Return the id of a task that is finished at Scale, and whose callback never came."""
    request = {"attachment": "https://example.com/a.png", "objects_to_annotate": ["car"]}
    sandbox = pipeline.sandbox
    created = sandbox.create("annotation", callback_url="http://127.0.0.1:9/nowhere", **request)
    sandbox.complete(created["task_id"])
    task_id: str = created["task_id"]
    return task_id


def reconcile(pipeline: Pipeline, **options: Any) -> None:
    run = reconciliation.begin(pipeline.service, "live")
    for _ in reconciliation.reconcile(pipeline.service, run, **options):
        pass
    pipeline.work()


def test_the_follow_ups_of_an_imported_result_are_held_until_they_are_approved(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    import_tasks(pipeline, task(response=boxes("car")))
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["reason_code"]) == ("held", "imported")
    assert pipeline.at_scale() == {}
    with pipeline.service.engine.begin() as connection:
        decisions.approve(connection, row["unique_id"], "ana")
    pipeline.work()
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


def test_an_import_with_create_creates_them_however_old_the_result_is(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    old = task(response=boxes("car"), updated_at="2020-01-01T00:00:00Z", completed_at="2020-01-01T00:00:00Z")
    import_tasks(pipeline, old, create=True)
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}


@pytest.mark.parametrize("create", [False, True])
def test_the_follow_ups_of_a_reconciled_result_are_held_unless_they_are_asked_for(
    pipeline: Pipeline, create: bool
) -> None:
    pipeline.workflow({"ask": asks(after={"type": "annotation"})})
    lost_result(pipeline)
    reconcile(pipeline, create=create)
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["reason_code"]) == (("created", None) if create else ("held", "reconciled"))


def test_the_scheduled_reconcile_holds_them_too(open_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = open_pipeline(reconcile_every_seconds=3600)
    pipeline.workflow({"ask": asks(after={"type": "annotation"})})
    lost_result(pipeline)
    with pipeline.service.engine.begin() as connection:
        reconciliation.enqueue_due_runs(connection, pipeline.service)
    pipeline.work()
    assert [row["reason_code"] for row in pipeline.follow_ups().values()] == ["reconciled"]


def test_the_callback_of_a_reconciled_result_releases_what_was_held(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(after={"type": "annotation"})})
    task_id = lost_result(pipeline)
    reconcile(pipeline)
    assert pipeline.states() == {f"w.ask.{task_id}": "held"}
    pipeline.tell(task_id)
    pipeline.work()
    assert pipeline.states() == {f"w.ask.{task_id}": "created"}


def test_a_join_over_a_reconciled_result_is_held_too(pipeline: Pipeline) -> None:
    last = asks(after={"step": "each"}, join={"wait": "all"})
    pipeline.workflow({"each": asks(for_each="annotation"), "last": last})
    pipeline.receive(boxes("car", "van"))
    first, second = pipeline.children("each")
    pipeline.finish(first, {"category": "yes"})
    pipeline.sandbox.complete(second, {"category": "yes"})
    reconcile(pipeline)
    row = pipeline.follow_ups()[f"w.last.{ROOT}"]
    assert (row["state"], row["reason_code"]) == ("held", "reconciled")


def test_a_task_that_a_callback_names_without_describing_it_goes_on_by_itself(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(after={"type": "annotation"})})
    task_id = lost_result(pipeline)
    response = pipeline.sandbox.task(task_id)["response"]
    receive_callback(pipeline.service, json.dumps({"task_id": task_id, "response": response}).encode())
    pipeline.work()
    assert pipeline.states() == {f"w.ask.{task_id}": "created"}


def test_a_result_of_a_callback_is_not_held_by_an_import_of_the_same(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    receive_callback(pipeline.service, callback(boxes("car")))
    import_tasks(pipeline, task(response=boxes("car")))
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}
