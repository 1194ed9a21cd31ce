"""The queue of record: one row a piece of work, leased, fenced, tried again, and dead when nothing helps."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from models import Job, KeyValue
from pipeline.db.ids import utcnow
from pipeline.jobs import queue
from pipeline.jobs.queue import LeaseLost, RetryLater
from pipeline.service import Service
from tests.pipeline.rows import Meanwhile, only, table
from workers import runner


def ask(service: Service, *subjects: str, kind: str = queue.PLAN, delay: float = 0) -> None:
    with service.engine.begin() as connection:
        queue.enqueue(connection, kind, subjects, delay=delay)


def claim(service: Service, lease: float = 60) -> queue.Job:
    job = queue.claim(service.engine, lease)
    assert job is not None
    return job


def finish(service: Service, job: queue.Job) -> None:
    with service.engine.begin() as connection:
        queue.finish(connection, job)


def expire(service: Service) -> None:
    """Let the lease, or the pause, of every job be over."""
    with service.engine.begin() as connection:
        connection.execute(update(Job).values(run_at=utcnow() - timedelta(seconds=1)))


# Asking.


def test_the_same_work_is_one_row_however_often_it_is_asked_for(here: Service) -> None:
    ask(here, "a", "b", "a")
    ask(here, "a")
    assert sorted((row["key"], row["enqueue_count"]) for row in table(here, Job)) == [
        ("plan:a", 2),
        ("plan:b", 1),
    ]


def test_a_thousand_subjects_are_asked_for_at_once(here: Service) -> None:
    with here.engine.begin() as connection:
        ids = queue.enqueue(connection, queue.PLAN, (f"s{n}" for n in range(1_200)))
    assert len(set(ids)) == len(table(here, Job)) == 1_200


def test_a_waiting_job_runs_at_the_earlier_of_two_times(here: Service) -> None:
    ask(here, "a", delay=100)
    with Meanwhile() as then:
        ask(here, "a", delay=10)
    assert only(here, Job)["run_at"] in then.plus(10)
    ask(here, "a", delay=1_000)
    assert only(here, Job)["run_at"] in then.plus(10)


def test_a_job_that_is_asked_for_in_a_transaction_that_fails_was_never_asked_for(here: Service) -> None:
    with here.engine.connect() as connection:
        queue.enqueue(connection, queue.PLAN, ["a"])
        connection.rollback()
    assert table(here, Job) == []


# Claiming.


def test_a_claimed_job_is_nobody_elses_until_its_lease_ends(here: Service) -> None:
    ask(here, "a")
    with Meanwhile() as then:
        job = claim(here)
    assert (job.kind, job.subject, job.attempts) == ("plan", "a", 1)
    assert queue.claim(here.engine, 60) is None
    assert only(here, Job)["run_at"] in then.plus(60)
    expire(here)
    again = claim(here)
    assert (again.id, again.attempts) == (job.id, 2)
    assert again.owner != job.owner


def test_the_job_that_has_waited_longest_is_claimed_first(here: Service) -> None:
    for subject, delay in (("second", -5), ("first", -10), ("third", -1), ("not yet", 5)):
        ask(here, subject, delay=delay)
    claimed = [claim(here).subject for _ in range(3)]
    assert claimed == ["first", "second", "third"]
    assert queue.claim(here.engine, 60) is None


def test_a_named_job_is_claimed_before_others_and_only_when_it_is_due(here: Service) -> None:
    ask(here, "a", delay=-10)
    ask(here, "b")
    ask(here, "c", delay=50)
    ids = {row["subject"]: row["id"] for row in table(here, Job)}
    named = queue.claim(here.engine, 60, job_id=ids["b"])
    assert named is not None
    assert named.subject == "b"
    assert queue.claim(here.engine, 60, job_id=ids["b"]) is None
    assert queue.claim(here.engine, 60, job_id=ids["c"]) is None


def test_ten_workers_at_once_claim_each_job_once(here: Service) -> None:
    ask(here, *(f"s{n}" for n in range(40)))
    claimed: list[str] = []

    def take_all() -> None:
        while (job := queue.claim(here.engine, 60)) is not None:
            claimed.append(job.subject)

    threads = [threading.Thread(target=take_all) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (
        job := queue.claim(here.engine, 60)
    ) is not None:  # PostgreSQL lets a worker go home while others hold rows
        claimed.append(job.subject)
    assert sorted(claimed) == sorted(f"s{n}" for n in range(40))


def test_what_is_due_is_listed_without_being_claimed(here: Service) -> None:
    ask(here, "late", delay=-5)
    ask(here, "now")
    ask(here, "later", delay=60)
    ids = {row["subject"]: row["id"] for row in table(here, Job)}
    with here.reader.begin() as connection:
        assert queue.due(connection, 10) == [ids["late"], ids["now"]]
        assert queue.due(connection, 1) == [ids["late"]]


# Fencing.


@pytest.mark.parametrize("change", ["finish", "postpone", "bury", "renew", "still_ours"])
def test_an_owner_who_lost_the_lease_changes_nothing(change: str, here: Service) -> None:
    ask(here, "a")
    late = claim(here)
    expire(here)
    owner = claim(here).owner

    def act() -> None:
        if change == "renew":
            queue.renew(here.engine, late, 60)
            return
        with here.engine.begin() as connection:
            connection.execute(update(Job).values(subject="changed"))
            more = ("why",) if change in ("postpone", "bury") else ()
            getattr(queue, change)(connection, late, *more)

    with pytest.raises(LeaseLost):
        act()
    row = only(here, Job)
    assert (row["subject"], row["lease_owner"], row["state"]) == ("a", owner, "running")


def test_a_job_that_was_deleted_meanwhile_is_lost_as_well(here: Service) -> None:
    ask(here, "a")
    first = claim(here)
    expire(here)
    finish(here, claim(here))
    with pytest.raises(LeaseLost):
        finish(here, first)


def test_a_lease_is_renewed_for_as_long_as_the_work_takes(here: Service) -> None:
    ask(here, "a")
    job = claim(here, lease=1)
    with queue.keep_lease(here.engine, job, 1) as still_leased:
        for _ in range(8):
            threading.Event().wait(0.25)
            still_leased()
            assert queue.claim(here.engine, 1) is None
    finish(here, job)


def test_long_work_learns_that_somebody_else_has_its_job(here: Service) -> None:
    ask(here, "a")
    job = claim(here)
    expire(here)
    claim(here)
    with queue.keep_lease(here.engine, job, 0.3) as still_leased:
        threading.Event().wait(0.5)
        with pytest.raises(LeaseLost):
            still_leased()


# Ends.


def test_a_finished_job_is_deleted(here: Service) -> None:
    ask(here, "a")
    finish(here, claim(here))
    assert table(here, Job) == []


def test_a_job_that_is_asked_for_while_it_runs_runs_once_more(here: Service) -> None:
    ask(here, "a")
    job = claim(here)
    ask(here, "a")
    ask(here, "a")
    assert queue.claim(here.engine, 60) is None
    finish(here, job)
    again = claim(here)
    assert (again.id, again.attempts) == (job.id, 1)
    finish(here, again)
    assert table(here, Job) == []


def test_back_off_doubles_up_to_an_hour_and_is_spread(here: Service) -> None:
    for attempts in (1, 2, 5, 10, 30):
        waits = {queue.backoff(attempts) for _ in range(200)}
        middle = min(2 ** (attempts - 1), 3_600)
        assert 0.75 * middle <= min(waits) < 0.8 * middle
        assert 1.2 * middle < max(waits) <= 1.25 * middle


def test_a_postponed_job_waits_keeps_its_error_and_counts(here: Service) -> None:
    ask(here, "a")
    job = claim(here)
    with Meanwhile() as then, here.engine.begin() as connection:
        queue.reschedule(connection, job, "no luck", delay=30)
    row = only(here, Job)
    assert (row["state"], row["attempts"], row["last_error"], row["lease_owner"]) == (
        "ready",
        1,
        "no luck",
        None,
    )
    assert row["run_at"] in then.plus(30)


def test_waiting_in_order_gives_the_attempt_back(here: Service) -> None:
    ask(here, "a")
    for _ in range(queue.MAX_ATTEMPTS[queue.PLAN] + 5):
        job = claim(here)
        with here.engine.begin() as connection:
            queue.reschedule(connection, job, "a pause", delay=0, count_attempt=False)
    assert (only(here, Job)["state"], only(here, Job)["attempts"]) == ("ready", 0)


def test_a_job_is_dead_after_its_last_attempt_and_says_why(here: Service) -> None:
    ask(here, "a")
    for attempt in range(queue.MAX_ATTEMPTS[queue.PLAN]):
        job = claim(here)
        with here.engine.begin() as connection:
            queue.reschedule(connection, job, f"failure {attempt}", delay=0)
    row = only(here, Job)
    assert (row["state"], row["last_error"]) == ("dead", f"failure {queue.MAX_ATTEMPTS[queue.PLAN] - 1}")
    assert queue.claim(here.engine, 60) is None


def test_a_job_that_always_kills_its_worker_is_dead_and_the_others_go_on(here: Service) -> None:
    ask(here, "killer", delay=-100)
    for _ in range(queue.MAX_ATTEMPTS[queue.PLAN]):
        assert claim(here).subject == "killer"
        expire(here)
    ask(here, "other")
    assert claim(here).subject == "other"
    killer = next(row for row in table(here, Job) if row["subject"] == "killer")
    assert (killer["state"], killer["last_error"]) == ("dead", "its worker vanished: 20 attempts and no end")


def test_a_dead_job_has_a_new_life_when_it_is_asked_for_again_or_retried(here: Service) -> None:
    for revive in (lambda: ask(here, "a"), lambda: retry(here)):
        ask(here, "a")
        job = claim(here)
        with here.engine.begin() as connection:
            queue.mark_dead(connection, job, "dead")
        revive()
        assert claim(here).attempts == 1
        expire(here)
        finish_all(here)


def retry(service: Service) -> None:
    with service.engine.begin() as connection:
        assert queue.retry(connection, only(service, Job)["id"])


def finish_all(service: Service) -> None:
    while (job := queue.claim(service.engine, 60)) is not None:
        finish(service, job)


def test_a_person_makes_a_waiting_job_run_now_and_cannot_touch_a_running_one(here: Service) -> None:
    ask(here, "a", delay=600)
    retry(here)
    job = claim(here)
    with here.engine.begin() as connection:
        assert not queue.retry(connection, job.id)


def test_jobs_whose_subject_is_gone_are_dropped_unless_they_run(here: Service) -> None:
    ask(here, "runs", delay=-5)
    claim(here)
    ask(here, "waits", "stays")
    with here.engine.begin() as connection:
        queue.delete_pending(connection, queue.PLAN, ["runs", "waits", "unknown"])
    assert sorted(row["subject"] for row in table(here, Job)) == ["runs", "stays"]


def test_jobs_are_counted_by_kind_and_state(here: Service) -> None:
    ask(here, "a", "b")
    ask(here, "c", kind=queue.FETCH, delay=60)
    claim(here)
    with here.reader.begin() as connection:
        assert queue.counts(connection) == {
            ("plan", "ready"): 1,
            ("plan", "running"): 1,
            ("fetch", "ready"): 1,
        }


@pytest.mark.parametrize("kind", queue.MAX_ATTEMPTS)
def test_no_job_is_dead_for_an_hour_of_trouble(kind: str) -> None:
    pauses = [queue.backoff(attempt) for attempt in range(1, queue.MAX_ATTEMPTS[kind])]
    assert sum(pauses) > 3_600


# What a worker does with them.


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`performed(function)`: plans are made by this function instead."""
    return lambda function: monkeypatch.setitem(runner.HANDLERS, queue.PLAN, function)


def test_a_job_that_raises_is_tried_again_later(here: Service, performed: Callable[..., None]) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("not today")

    performed(fail)
    ask(here, "a")
    with Meanwhile() as then:
        runner.run_due_jobs(here)
    row = only(here, Job)
    assert (row["state"], row["attempts"], row["last_error"]) == ("ready", 1, "ValueError: not today")
    assert row["run_at"] in then.plus(0, 2)


def test_what_the_database_refuses_a_job_is_told_without_the_values(
    here: Service, performed: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def write_twice(service: Service, _: queue.Job) -> None:
        row = {"key": "secret", "value": {}, "changed_at": utcnow()}
        with service.engine.begin() as connection:
            for _ in range(2):
                connection.execute(insert(KeyValue).values(row))

    performed(write_twice)
    ask(here, "a")
    runner.run_due_jobs(here)
    error = only(here, Job)["last_error"]
    assert error in (
        "IntegrityError: UNIQUE constraint failed: state.key",
        'UniqueViolation: duplicate key value violates unique constraint "pk_state"',
    )
    assert error in caplog.text
    assert "secret" not in caplog.text


def test_a_job_that_waits_in_order_says_for_what(here: Service, performed: Callable[..., None]) -> None:
    def wait(*_: Any) -> None:
        raise RetryLater("Scale asks to slow down", 90)

    performed(wait)
    ask(here, "a")
    with Meanwhile() as then:
        runner.run_due_jobs(here)
    assert (only(here, Job)["attempts"], only(here, Job)["last_error"]) == (0, "Scale asks to slow down")
    assert only(here, Job)["run_at"] in then.plus(90)


def test_a_worker_that_has_finished_a_job_looks_for_the_next(
    here: Service, performed: Callable[..., None]
) -> None:
    seen = []

    def plan(service: Service, job: queue.Job) -> None:
        seen.append(job.subject)
        finish(service, job)

    performed(plan)
    ask(here, "a", "b", "c")
    assert runner.run_due_jobs(here) == []
    assert sorted(seen) == ["a", "b", "c"]


def test_a_job_of_a_kind_that_only_a_newer_version_knows_waits_and_holds_nobody_up(
    here: Service, performed: Callable[..., None]
) -> None:
    performed(finish)
    ask(here, "later", kind="newer", delay=-10)
    ask(here, "a")
    with Meanwhile() as then:
        runner.run_due_jobs(here)
    row = only(here, Job)
    assert (row["key"], row["state"], row["attempts"]) == ("newer:later", "ready", 0)
    assert "newer" in row["last_error"]
    assert row["run_at"] in then.plus(60)


def test_what_a_job_did_is_undone_when_it_has_lost_its_lease(
    here: Service, performed: Callable[..., None]
) -> None:
    def too_late(service: Service, job: queue.Job) -> None:
        expire(service)
        claim(service)
        with service.engine.begin() as connection:
            queue.enqueue(connection, queue.CREATE, ["twice"])
            queue.finish(connection, job)

    performed(too_late)
    ask(here, "a")
    runner.run_job(here, claim(here))
    assert [row["key"] for row in table(here, Job)] == ["plan:a"]
