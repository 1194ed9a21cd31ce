"""A backfill runs a workflow over stored results exactly once: interrupted, stopped, limited, or with several workers."""

import json
import time
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from models import Backfill, Task
from pipeline.db.memory_budget import memory_budget
from pipeline.follow_ups import backfill
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.jobs import kinds, queue
from pipeline.sync.imports import import_file
from tests.assertions import only
from tests.factories.callbacks import boxes, callback, receive_callback, task
from tests.factories.pipelines import Pipeline, asks
from workers.runner import run_job


def task_id(number: int) -> str:
    return f"5f1e9b00000000000000{number:04d}"


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """Ten results that came before the workflow was there."""
    for number in range(10):
        fields: dict[str, Any] = {"task_id": task_id(number), "project": "even" if number % 2 == 0 else "odd"}
        if number == 3:
            fields["tags"] = ["night"]
        labels = ["bus"] if number == 4 else ["car"]
        receive_callback(pipeline.service, callback(boxes(*labels), **fields))
    time.sleep(0.02)
    pipeline.workflow({"ask": asks()})
    pipeline.work()
    assert pipeline.states() == {}
    return pipeline


def start(pipeline: Pipeline, filters: dict[str, Any] | None = None, **options: Any) -> UUID:
    with pipeline.service.engine.begin() as connection:
        backfill_id, _ = backfill.start(connection, "w", filters or {}, "ana", **options)
    return backfill_id


def followed(pipeline: Pipeline) -> list[int]:
    return sorted(int(row["source_task_id"][-4:]) for row in pipeline.follow_ups().values())


def test_a_preview_says_how_many_results_are_too_large_for_it(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = filled.service.workflows.workflow("w")
    assert workflow is not None
    monkeypatch.setattr("pipeline.db.memory_budget.MAX_READ_BYTES", 100)
    with memory_budget():
        *_, found = backfill.preview(filled.service, workflow, {"project": "even"})
    assert (found.evaluated, found.left_out, found.is_complete) == (5, 5, False)
    assert (found.results, found.follow_ups, found.examples) == (0, {}, [])


def test_a_preview_counts_and_shows_requests_and_writes_nothing(filled: Pipeline) -> None:
    workflow = filled.service.workflows.workflow("w")
    assert workflow is not None
    *_, found = backfill.preview(filled.service, workflow, {"project": "even"})
    assert (found.matching, found.evaluated, found.results) == (5, 5, 5)
    assert found.is_complete
    assert found.follow_ups == {"created": 5}
    assert len(found.examples) == 5
    assert found.examples[0]["request"]["attachment"] == task_id(0)
    assert sum(found.cost.unpriced.values()) == 5
    *_, limited = backfill.preview(filled.service, workflow, {}, limit=3)
    assert limited.results == 3
    *_, bounded = backfill.preview(filled.service, workflow, {}, max_evaluated=4)
    assert not bounded.is_complete
    assert filled.states() == {}


def test_it_follows_every_result_once_and_again_is_free(filled: Pipeline) -> None:
    start(filled)
    filled.work()
    row = only(filled.service, Backfill)
    assert (row["state"], row["total"], row["evaluated"], row["results"], row["follow_ups"]) == (
        "completed", 10, 10, 10, 10,
    )  # fmt: skip
    assert row["finished_at"] is not None
    assert set(filled.states().values()) == {"created"}
    start(filled)
    filled.work()
    assert len(filled.at_scale()) == 10


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"project": "odd"}, [1, 3, 5, 7, 9]),
        ({"tag": "night"}, [3]),
        ({"label": "bus"}, [4]),
        ({"type": "annotation"}, []),
        ({"environment": "test"}, []),
    ],
    ids=lambda value: str(value),
)
def test_filters_choose_the_results(filled: Pipeline, filters: dict[str, Any], expected: list[int]) -> None:
    start(filled, filters)
    filled.work()
    assert followed(filled) == expected


def test_since_and_until_bound_the_newest_event(filled: Pipeline) -> None:
    with filled.service.reader.begin() as connection:
        clock = connection.scalar(select(Task.clock).limit(1))
    start(filled, {"since": clock, "until": clock})
    filled.work()
    assert followed(filled) == []
    start(filled, {"since": clock})
    filled.work()
    assert len(followed(filled)) == 10


def test_a_limit_counts_results_with_new_follow_ups_so_that_the_next_run_goes_on(filled: Pipeline) -> None:
    start(filled, limit=3)
    filled.work()
    assert followed(filled) == [0, 1, 2]
    start(filled, limit=3)
    filled.work()
    assert followed(filled) == [0, 1, 2, 3, 4, 5]


def test_one_that_is_interrupted_goes_on_where_it_was(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "BATCH_SIZE", 4)
    start(filled)
    claim_and_run(filled)
    assert only(filled.service, Backfill)["evaluated"] == 4
    filled.work()
    row = only(filled.service, Backfill)
    assert (row["state"], row["evaluated"], row["results"]) == ("completed", 10, 10)


def claim_and_run(pipeline: Pipeline) -> None:
    (job_id,) = [row["id"] for row in pipeline.jobs() if row["kind"] == kinds.BACKFILL]
    job = queue.claim(pipeline.service.engine, 60, job_id=job_id)
    assert job is not None
    run_job(pipeline.service, job)


def test_one_that_is_stopped_stays_so_until_it_is_resumed(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "BATCH_SIZE", 4)
    backfill_id = start(filled)
    claim_and_run(filled)
    with filled.service.engine.begin() as connection:
        backfill.stop(connection, backfill_id, "ana")
    filled.work()
    assert len(followed(filled)) == 4
    with filled.service.engine.begin() as connection, pytest.raises(InvalidTransition):
        backfill.stop(connection, backfill_id, "ana")
    with filled.service.engine.begin() as connection:
        backfill.resume(connection, backfill_id, "ana")
    filled.work()
    assert len(followed(filled)) == 10
    assert only(filled.service, Backfill)["evaluated"] == 10


def test_a_rate_spreads_the_results(filled: Pipeline) -> None:
    start(filled, per_minute=12)
    filled.work()
    assert len(followed(filled)) == 2  # ten seconds' worth; the rest waits
    while only(filled.service, Backfill)["state"] == "running":
        filled.skip_waiting()
    assert len(followed(filled)) == 10


def test_imported_results_are_followed_because_a_person_asked_for_it(pipeline: Pipeline) -> None:
    import io

    old = [
        task(task_id=task_id(n), response=boxes("car"), updated_at="2020-01-01T00:00:00Z") for n in range(3)
    ]
    for _ in import_file(pipeline.service, io.BytesIO(json.dumps(old).encode()), "live"):
        pass
    pipeline.work()
    time.sleep(0.02)
    pipeline.workflow({"ask": asks()})
    start(pipeline)
    pipeline.work()
    assert sorted(pipeline.states().values()) == ["created"] * 3


def test_the_limits_of_the_workflow_hold(filled: Pipeline) -> None:
    filled.workflow({"ask": asks(limits={"total": 4})})
    start(filled)
    filled.work()
    assert sorted(filled.states().values()) == ["created"] * 4 + ["held"] * 6


def test_several_workers_follow_each_result_once(filled: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "BATCH_SIZE", 2)
    start(filled)
    filled.work_with(4)
    filled.work()
    row = only(filled.service, Backfill)
    assert (row["state"], row["evaluated"], row["follow_ups"]) == ("completed", 10, 10)
    assert len(filled.at_scale()) == 10
