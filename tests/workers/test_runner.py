"""The job runner: what a job raises is mapped to its consequence."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert

from models import Job, WorkflowPause
from pipeline.db.ids import utcnow
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import RetryLater
from pipeline.service import Service
from tests.assertions import TimeSpan, only, table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.jobs import ask, claim, expire, finish
from tests.factories.pipelines import Pipeline, asks
from workers import runner
from workers.runner import run_due_jobs


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`performed(function)`: plans are made by this function instead."""
    return lambda function: monkeypatch.setitem(runner.HANDLERS, kinds.PLAN, function)


def test_a_job_that_raises_is_tried_again_later(service: Service, performed: Callable[..., None]) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("not today")

    performed(fail)
    ask(service, "a")
    with TimeSpan() as then:
        runner.run_due_jobs(service)
    row = only(service, Job)
    assert (row["state"], row["attempts"], row["last_error"]) == ("ready", 1, "ValueError: not today")
    assert row["run_at"] in then.shift(0, 2)


def test_an_error_of_the_database_in_a_job_is_stored_without_values(
    service: Service, performed: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def write_twice(service: Service, _: queue.Job) -> None:
        row = {"workflow": "secret", "paused_by": "ana", "paused_at": utcnow()}
        with service.engine.begin() as connection:
            for _ in range(2):
                connection.execute(insert(WorkflowPause).values(row))

    performed(write_twice)
    ask(service, "a")
    runner.run_due_jobs(service)
    error = only(service, Job)["last_error"]
    assert error in (
        "IntegrityError: UNIQUE constraint failed: workflow_pauses.workflow",
        'UniqueViolation: duplicate key value violates unique constraint "pk_workflow_pauses"',
    )
    assert any(error in str(vars(record).get("error")) for record in caplog.records)
    assert "secret" not in caplog.text


def test_a_job_that_waits_in_order_says_for_what(service: Service, performed: Callable[..., None]) -> None:
    def wait(*_: Any) -> None:
        raise RetryLater("Scale asks to slow down", 90)

    performed(wait)
    ask(service, "a")
    with TimeSpan() as then:
        runner.run_due_jobs(service)
    assert (only(service, Job)["attempts"], only(service, Job)["last_error"]) == (
        0,
        "Scale asks to slow down",
    )
    assert only(service, Job)["run_at"] in then.shift(90)


def test_a_worker_that_has_finished_a_job_looks_for_the_next(
    service: Service, performed: Callable[..., None]
) -> None:
    seen = []

    def plan(service: Service, job: queue.Job) -> None:
        seen.append(job.subject)
        finish(service, job)

    performed(plan)
    ask(service, "a", "b", "c")
    assert runner.run_due_jobs(service) == []
    assert sorted(seen) == ["a", "b", "c"]


def test_a_job_of_a_kind_that_only_a_newer_version_knows_waits_and_holds_nobody_up(
    service: Service, performed: Callable[..., None]
) -> None:
    performed(finish)
    ask(service, "later", kind="newer", delay=-10)
    ask(service, "a")
    with TimeSpan() as then:
        runner.run_due_jobs(service)
    row = only(service, Job)
    assert (row["key"], row["state"], row["attempts"]) == ("newer:later", "ready", 0)
    assert "newer" in row["last_error"]
    assert row["run_at"] in then.shift(60)


def test_what_a_job_did_is_undone_when_it_has_lost_its_lease(
    service: Service, performed: Callable[..., None]
) -> None:
    def too_late(service: Service, job: queue.Job) -> None:
        expire(service)
        claim(service)
        with service.engine.begin() as connection:
            queue.enqueue(connection, kinds.CREATE, ["twice"])
            queue.finish(connection, job)

    performed(too_late)
    ask(service, "a")
    runner.run_job(service, claim(service))
    assert [row["key"] for row in table(service, Job)] == ["plan:a"]


def test_a_job_that_enqueues_many_dispatches_them_to_other_workers(
    open_pipeline: Callable[..., Pipeline],
) -> None:
    pipeline = open_pipeline(worker_concurrency=4)
    pipeline.workflow({"each": asks(for_each="annotation")})
    dispatched: list[list[UUID]] = []
    receive_callback(pipeline.service, callback(boxes("car")))
    run_due_jobs(pipeline.service, dispatch=lambda ids: dispatched.append(list(ids)))
    assert dispatched == []
    receive_callback(pipeline.service, callback(boxes(*["car"] * 30), task_id="5f1e9b000000000000000002"))
    run_due_jobs(pipeline.service, dispatch=lambda ids: dispatched.append(list(ids)))
    assert [len(ids) for ids in dispatched] == [3]


def test_creations_wait_for_scale_together_once_the_key_has_worked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[str] = []
    together = threading.Barrier(service.settings.creation_concurrency)

    def create(service: Service, job: queue.Job) -> None:
        if job.queue in service.accepting:
            together.wait(60)  # breaks unless as many run at once
        else:
            alone.append(job.subject)
            service.accepting.add(job.queue)
        finish(service, job)

    monkeypatch.setitem(runner.HANDLERS, kinds.CREATE, create)
    with service.engine.begin() as connection:
        subjects = [f"follow-up-{n}" for n in range(together.parties + 1)]
        queue.enqueue(connection, kinds.CREATE, subjects, queue="live")
    runner.run_due_jobs(service)
    assert len(alone) == 1
    assert table(service, Job) == []


# Jobs of other queues, while more jobs of the first one come than are run.


@pytest.fixture
def endless_plans(service: Service, performed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is always due, because each enqueues the next one. A run of jobs ends soon."""

    def plan_and_ask(service: Service, job: queue.Job) -> None:
        finish(service, job)
        ask(service, f"{job.subject}+")

    performed(plan_and_ask)
    monkeypatch.setattr(runner, "MAX_RUN_SECONDS", 0.2)
    ask(service, "a")


@pytest.mark.usefixtures("endless_plans")
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kinds.CREATE, "live"), (kinds.CREATE, "test"), (kinds.PARSE, None), (kinds.FETCH, None)],
)
def test_no_job_waits_until_nothing_else_is_due(
    service: Service, monkeypatch: pytest.MonkeyPatch, kind: str, name: str | None
) -> None:
    monkeypatch.setitem(runner.HANDLERS, kind, finish)
    with service.engine.begin() as connection:
        queue.enqueue(connection, kind, ["waits"], queue=name)
    run_due_jobs(service)
    assert [row["kind"] for row in table(service, Job)] == [kinds.PLAN]


@pytest.mark.parametrize(
    ("due", "turn"),
    [
        ([kinds.PLAN, kinds.CREATE], [kinds.PLAN, kinds.CREATE]),
        ([kinds.PLAN, kinds.CREATE, kinds.FETCH], [kinds.PLAN, kinds.CREATE, kinds.FETCH]),
        ([kinds.CREATE, kinds.FETCH, kinds.PARSE], [kinds.CREATE, kinds.FETCH]),
    ],
)
def test_creations_in_threads_and_fetches_take_turns_with_other_jobs(
    service: Service, due: list[str], turn: list[str]
) -> None:
    with service.engine.begin() as connection:
        for kind in due:
            queue.enqueue(connection, kind, "abcdef", queue="live" if kind == kinds.CREATE else None)
    service.accepting.add("live")
    claimed = [runner.next_job(service)]
    while len(claimed) < 6:
        claimed.append(runner.next_job(service, after=claimed[-1], has_free_thread=True))
        if claimed[-1] is not None and claimed[-1].kind == kinds.FETCH:
            finish(service, claimed[-1])
    assert [job and job.kind for job in claimed] == turn * (6 // len(turn))


def test_plans_come_first_where_a_creation_would_occupy_the_worker(service: Service) -> None:
    """Because it waits for Scale in the worker itself, or for a thread."""
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.CREATE, ["1"], queue="live")
    ask(service, "a", "b", "c")
    first = runner.next_job(service)
    second = runner.next_job(service, after=first, has_free_thread=True)
    service.accepting.add("live")
    third = runner.next_job(service, after=second, has_free_thread=False)
    assert [job and job.kind for job in (first, second, third)] == [kinds.PLAN] * 3
