"""The queue of record: one row a piece of work, leased, fenced, tried again, and dead when nothing helps."""

import threading

import pytest
from sqlalchemy import update

from models import Job
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import LeaseLost
from pipeline.service import Service
from tests.assertions import TimeSpan, only, table
from tests.factories.jobs import ask, claim, expire, finish
from tests.servers import wait_until


def test_the_same_work_is_one_row_however_often_it_is_enqueued(service: Service) -> None:
    ask(service, "a", "b", "a")
    ask(service, "a")
    assert sorted((row["key"], row["enqueue_count"]) for row in table(service, Job)) == [
        ("plan:a", 2),
        ("plan:b", 1),
    ]


def test_a_thousand_subjects_are_enqueued_at_once(service: Service) -> None:
    with service.engine.begin() as connection:
        ids = queue.enqueue(connection, kinds.PLAN, (f"s{n}" for n in range(1_200)))
    assert len(set(ids)) == len(table(service, Job)) == 1_200


def test_a_waiting_job_runs_at_the_earlier_of_two_times(service: Service) -> None:
    ask(service, "a", delay=100)
    with TimeSpan() as then:
        ask(service, "a", delay=10)
    assert only(service, Job)["run_at"] in then.shift(10)
    ask(service, "a", delay=1_000)
    assert only(service, Job)["run_at"] in then.shift(10)


def test_a_job_that_is_enqueued_in_a_transaction_that_fails_was_never_enqueued(service: Service) -> None:
    with service.engine.connect() as connection:
        queue.enqueue(connection, kinds.PLAN, ["a"])
        connection.rollback()
    assert table(service, Job) == []


def test_a_claimed_job_is_nobody_elses_until_its_lease_ends(service: Service) -> None:
    ask(service, "a")
    with TimeSpan() as then:
        job = claim(service)
    assert (job.kind, job.subject, job.attempts) == ("plan", "a", 1)
    assert queue.claim(service.engine, 60) is None
    assert only(service, Job)["run_at"] in then.shift(60)
    expire(service)
    again = claim(service)
    assert (again.id, again.attempts) == (job.id, 2)
    assert again.owner != job.owner


def test_the_job_that_has_waited_longest_is_claimed_first(service: Service) -> None:
    for subject, delay in (("second", -5), ("first", -10), ("third", -1), ("not yet", 5)):
        ask(service, subject, delay=delay)
    claimed = [claim(service).subject for _ in range(3)]
    assert claimed == ["first", "second", "third"]
    assert queue.claim(service.engine, 60) is None


def test_a_named_job_is_claimed_before_others_and_only_when_it_is_due(service: Service) -> None:
    ask(service, "a", delay=-10)
    ask(service, "b")
    ask(service, "c", delay=50)
    ids = {row["subject"]: row["id"] for row in table(service, Job)}
    named = queue.claim(service.engine, 60, job_id=ids["b"])
    assert named is not None
    assert named.subject == "b"
    assert queue.claim(service.engine, 60, job_id=ids["b"]) is None
    assert queue.claim(service.engine, 60, job_id=ids["c"]) is None


def test_ten_workers_at_once_claim_each_job_once(service: Service) -> None:
    ask(service, *(f"s{n}" for n in range(40)))
    claimed: list[str] = []

    def take_all() -> None:
        while (job := queue.claim(service.engine, 60)) is not None:
            claimed.append(job.subject)

    threads = [threading.Thread(target=take_all) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (
        job := queue.claim(service.engine, 60)
    ) is not None:  # PostgreSQL lets a worker go home while others hold rows
        claimed.append(job.subject)
    assert sorted(claimed) == sorted(f"s{n}" for n in range(40))


def test_what_is_due_is_listed_without_being_claimed(service: Service) -> None:
    ask(service, "late", delay=-5)
    ask(service, "now")
    ask(service, "later", delay=60)
    ids = {row["subject"]: row["id"] for row in table(service, Job)}
    with service.reader.begin() as connection:
        assert queue.due(connection, 10) == [ids["late"], ids["now"]]
        assert queue.due(connection, 1) == [ids["late"]]


@pytest.mark.parametrize("change", ["finish", "reschedule", "mark_dead", "renew", "check_lease"])
def test_an_owner_who_lost_the_lease_changes_nothing(change: str, service: Service) -> None:
    ask(service, "a")
    late = claim(service)
    expire(service)
    owner = claim(service).owner

    def act() -> None:
        if change == "renew":
            queue.renew(service.engine, late, 60)
            return
        with service.engine.begin() as connection:
            connection.execute(update(Job).values(subject="changed"))
            more = ("why",) if change in ("reschedule", "mark_dead") else ()
            getattr(queue, change)(connection, late, *more)

    with pytest.raises(LeaseLost):
        act()
    row = only(service, Job)
    assert (row["subject"], row["lease_owner"], row["state"]) == ("a", owner, "running")


def test_a_job_that_was_deleted_meanwhile_is_lost_as_well(service: Service) -> None:
    ask(service, "a")
    first = claim(service)
    expire(service)
    finish(service, claim(service))
    with pytest.raises(LeaseLost):
        finish(service, first)


def test_a_lease_is_renewed_for_as_long_as_the_work_takes(service: Service) -> None:
    ask(service, "a")
    job = claim(service, lease=3)
    with queue.keep_lease(service.engine, job, 3) as still_leased:
        for _ in range(24):
            threading.Event().wait(0.25)
            still_leased()
            assert queue.claim(service.engine, 1) is None
    finish(service, job)


def test_long_work_learns_that_somebody_else_has_its_job(service: Service) -> None:
    ask(service, "a")
    job = claim(service)
    expire(service)
    claim(service)
    with queue.keep_lease(service.engine, job, 0.3) as still_leased, pytest.raises(LeaseLost):
        wait_until(still_leased, 60, "the loss of the lease")


def test_a_finished_job_is_deleted(service: Service) -> None:
    ask(service, "a")
    finish(service, claim(service))
    assert table(service, Job) == []


def test_a_job_that_is_enqueued_while_it_runs_runs_once_more(service: Service) -> None:
    ask(service, "a")
    job = claim(service)
    ask(service, "a")
    ask(service, "a")
    assert queue.claim(service.engine, 60) is None
    finish(service, job)
    again = claim(service)
    assert (again.id, again.attempts) == (job.id, 1)
    finish(service, again)
    assert table(service, Job) == []


def test_back_off_doubles_up_to_an_hour_and_is_spread(service: Service) -> None:
    for attempts in (1, 2, 5, 10, 30):
        waits = {queue.backoff(attempts) for _ in range(200)}
        middle = min(2 ** (attempts - 1), 3_600)
        assert 0.75 * middle <= min(waits) < 0.8 * middle
        assert 1.2 * middle < max(waits) <= 1.25 * middle


def test_a_postponed_job_waits_keeps_its_error_and_counts(service: Service) -> None:
    ask(service, "a")
    job = claim(service)
    with TimeSpan() as then, service.engine.begin() as connection:
        queue.reschedule(connection, job, "no luck", delay=30)
    row = only(service, Job)
    assert (row["state"], row["attempts"], row["last_error"], row["lease_owner"]) == (
        "ready",
        1,
        "no luck",
        None,
    )
    assert row["run_at"] in then.shift(30)


def test_waiting_in_order_gives_the_attempt_back(service: Service) -> None:
    ask(service, "a")
    for _ in range(kinds.MAX_ATTEMPTS[kinds.PLAN] + 5):
        job = claim(service)
        with service.engine.begin() as connection:
            queue.reschedule(connection, job, "a pause", delay=0, count_attempt=False)
    assert (only(service, Job)["state"], only(service, Job)["attempts"]) == ("ready", 0)


def test_a_job_is_dead_after_its_last_attempt_and_says_why(service: Service) -> None:
    ask(service, "a")
    for attempt in range(kinds.MAX_ATTEMPTS[kinds.PLAN]):
        job = claim(service)
        with service.engine.begin() as connection:
            queue.reschedule(connection, job, f"failure {attempt}", delay=0)
    row = only(service, Job)
    assert (row["state"], row["last_error"]) == ("dead", f"failure {kinds.MAX_ATTEMPTS[kinds.PLAN] - 1}")
    assert queue.claim(service.engine, 60) is None


def test_a_dead_job_has_all_its_attempts_when_it_is_enqueued_again_or_retried(service: Service) -> None:
    for revive in (lambda: ask(service, "a"), lambda: retry(service)):
        ask(service, "a")
        job = claim(service)
        with service.engine.begin() as connection:
            queue.mark_dead(connection, job, "dead")
        revive()
        assert claim(service).attempts == 1
        expire(service)
        finish_all(service)


def retry(service: Service) -> None:
    with service.engine.begin() as connection:
        assert queue.retry(connection, only(service, Job)["id"])


def finish_all(service: Service) -> None:
    while (job := queue.claim(service.engine, 60)) is not None:
        finish(service, job)


def test_a_person_makes_a_waiting_job_run_now_and_cannot_touch_a_running_one(service: Service) -> None:
    ask(service, "a", delay=600)
    retry(service)
    job = claim(service)
    with service.engine.begin() as connection:
        assert not queue.retry(connection, job.id)


def test_jobs_whose_subject_is_gone_are_dropped_unless_they_run(service: Service) -> None:
    ask(service, "runs", delay=-5)
    claim(service)
    ask(service, "waits", "stays")
    with service.engine.begin() as connection:
        queue.delete_pending(connection, kinds.PLAN, ["runs", "waits", "unknown"])
    assert sorted(row["subject"] for row in table(service, Job)) == ["runs", "stays"]


def test_jobs_are_counted_by_kind_and_state(service: Service) -> None:
    ask(service, "a", "b")
    ask(service, "c", kind=kinds.FETCH, delay=60)
    claim(service)
    with service.reader.begin() as connection:
        assert queue.counts(connection) == {
            ("plan", "ready"): 1,
            ("plan", "running"): 1,
            ("fetch", "ready"): 1,
        }


@pytest.mark.parametrize("kind", kinds.MAX_ATTEMPTS)
def test_no_job_is_dead_for_an_hour_of_trouble(kind: str) -> None:
    pauses = [queue.backoff(attempt) for attempt in range(1, kinds.MAX_ATTEMPTS[kind])]
    assert sum(pauses) > 3_600
