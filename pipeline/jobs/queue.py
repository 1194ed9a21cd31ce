"""The jobs table: the queue of record. A job is asked for in the transaction that makes it necessary, claimed by lease,
and deleted in the transaction that records its result."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, and_, bindparam, case, delete, func, select, update

from models import Job as Row
from pipeline.db.dialect import from_now, insert
from pipeline.db.engine import AUTOCOMMIT
from pipeline.db.ids import new_id, utcnow

log = logging.getLogger(__name__)

PARSE = "parse"
"""Read a delivery that was only stored. Subject: the delivery's id."""
COMPLETE = "complete"
"""Ask Scale for a task that a delivery names and nobody has described. Subject: the task_id."""
FETCH = "fetch"
"""Fetch a result file and read it. Subject: the artifact's id."""
PLAN = "plan"
"""Look at a task's level and plan what the workflows want. Subject: the task_id."""
CREATE = "create"
"""Create one task at Scale. Subject: the follow-up's unique_id."""
CANCEL = "cancel"
"""Cancel one pending task at Scale. Subject: the follow-up's unique_id."""
JOIN = "join"
"""Look whether a join fires, since one of its tasks has changed. Subject: the join's id."""
DEADLINE = "deadline"
"""The same, since its time is over."""
NOTIFY = "notify"
"""Tell a subscriber. Subject: the notification's id."""
CHECK_RUN = "run"
"""Look whether all that follows from one first task has ended, since a subscriber wants to know. Subject: a task_id of it."""
RECONCILE = "reconcile"
"""Look through Scale's list of tasks. Subject: the environment."""

MAX_ATTEMPTS = {
    PARSE: 20,
    PLAN: 20,
    COMPLETE: 40,
    FETCH: 40,
    CREATE: 40,
    CANCEL: 20,
    JOIN: 20,
    DEADLINE: 20,
    NOTIFY: 20,
    CHECK_RUN: 20,
    RECONCILE: 40,
}
"""40 tries with this back-off take 28 hours, longer than a day of somebody else's outage; 20 take 8, of our own."""
DEFAULT_MAX_ATTEMPTS = 20
"""Of a kind that only a newer version knows."""
MAX_BACKOFF_SECONDS = 3600.0

QUEUES = ("", "live", "test")
"""In this order jobs are taken. Creating waits in queues of its own, one for each environment: of a fan-out there may be
hundreds of thousands, and no callback shall wait behind them. While Scale asks to wait, their queue is passed by."""

# In the words of the index: ready, or running with a lease that has run out.
is_due = and_(Row.state != "dead", Row.run_at <= from_now())


class LeaseLost(Exception):
    """Another worker has taken the job over: what this one was about to record is rolled back."""


class RetryLater(Exception):
    """The job is in order but its time has not come (a pause, a throttle, a missing key): again after `delay` seconds,
    and not counted as an attempt."""

    def __init__(self, why: str, delay: float) -> None:
        super().__init__(why)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job."""

    id: UUID
    kind: str
    subject: str
    attempts: int  # this one included
    enqueue_count: int  # how often it had been asked for when it was claimed
    owner: str  # made new for each claim; every later change is fenced by it
    queue: str = ""


def enqueue(
    connection: Connection, kind: str, subjects: Iterable[str], *, delay: float = 0.0, queue: str = ""
) -> list[UUID]:
    """Ask for work on each subject, `delay` seconds from now at the earliest; returns the jobs' ids.

    Work that is asked for already is one row: a waiting job runs at the earlier of both times, a running one runs once
    more after this, a dead one gets a new life.
    """
    rows = [
        {**new_job_row(kind, subject), "queue": queue, "delay": delay, "now": utcnow()}
        for subject in sorted(set(subjects))  # one order for everyone: two transactions never wait crosswise
    ]
    return list(connection.scalars(_enqueue_statement(connection.dialect.name), rows)) if rows else []


# Statements are built once: to build one costs several times what it costs to run it.


@cache
def _enqueue_statement(dialect: str) -> Any:
    names = ("id", "kind", "key", "subject", "queue")
    statement = insert(dialect, Row).values(
        **{name: bindparam(name) for name in names},
        state="ready",
        run_at=from_now(bindparam("delay")),
        created_at=bindparam("now"),
    )
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["key"],
        set_={
            "enqueue_count": Row.enqueue_count + 1,
            "state": case((Row.state == "dead", "ready"), else_=Row.state),
            "attempts": case((Row.state == "dead", 0), else_=Row.attempts),
            "run_at": case(
                (and_(Row.state != "dead", Row.run_at < new.run_at), Row.run_at),
                (Row.state == "running", Row.run_at),
                else_=new.run_at,
            ),
        },
    ).returning(Row.id)


@cache
def _claim_statement(queues: Sequence[str]) -> Any:
    """Of the first queue that has a due job, the one that has waited longest. Without queues the named job."""
    chosen = [Row.queue == queue for queue in queues] or [Row.id == bindparam("job")]
    candidates = [
        select(Row.id)
        .where(one, is_due)
        .order_by(Row.run_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
        for one in chosen
    ]
    return (
        update(Row)
        .where(Row.id == (func.coalesce(*candidates) if len(candidates) > 1 else candidates[0]))
        .values(
            state="running",
            attempts=Row.attempts + 1,
            lease_owner=bindparam("owner"),
            run_at=from_now(bindparam("lease")),
        )
        .returning(Row.id, Row.kind, Row.subject, Row.attempts, Row.enqueue_count, Row.queue)
    )


_FINISH = delete(Row).where(
    Row.id == bindparam("job"),
    Row.lease_owner == bindparam("owner"),
    Row.enqueue_count == bindparam("enqueue_count"),
)


def max_attempts(kind: str) -> int:
    return MAX_ATTEMPTS.get(kind, DEFAULT_MAX_ATTEMPTS)


def new_job_row(kind: str, subject: str) -> dict[str, Any]:
    """A new job's identity."""
    return {"id": new_id(), "kind": kind, "key": f"{kind}:{subject}", "subject": subject}


def claim(
    engine: Engine, lease_seconds: float, *, job_id: UUID | None = None, queues: Sequence[str] = QUEUES
) -> Job | None:
    """Lease one due job, the named one or the next of these queues; None when there is none.

    One statement, which commits by itself. The attempt counts now: a job that kills its worker is dead after its last.
    """
    statement = _claim_statement(tuple(queues) if job_id is None else ())
    while True:
        owner = uuid4().hex
        with engine.execution_options(**AUTOCOMMIT).begin() as connection:
            parameters = {"owner": owner, "lease": float(lease_seconds), "job": job_id}
            claimed = connection.execute(statement, parameters).one_or_none()
            if claimed is None:
                return None
            job = Job(
                claimed.id,
                claimed.kind,
                claimed.subject,
                claimed.attempts,
                claimed.enqueue_count,
                owner,
                claimed.queue,
            )
            if job.attempts <= max_attempts(job.kind):
                return job
            mark_dead(connection, job, f"its worker vanished: {job.attempts - 1} attempts and no end")


def finish(connection: Connection, job: Job) -> None:
    """The job is done, in the transaction that records what it did. Asked for again meanwhile, it runs once more."""
    if connection.execute(
        _FINISH, {"job": job.id, "owner": job.owner, "enqueue_count": job.enqueue_count}
    ).rowcount:
        return
    ours = and_(Row.id == job.id, Row.lease_owner == job.owner)
    again = update(Row).where(ours).values(state="ready", run_at=from_now(), attempts=0, lease_owner=None)
    if not connection.execute(again).rowcount:
        raise LeaseLost(f"{job.kind}:{job.subject}")


def reschedule(
    connection: Connection,
    job: Job,
    error: str | None,
    *,
    delay: float | None = None,
    count_attempt: bool = True,
) -> None:
    """Try the job again later: after `delay` seconds, or by exponential back-off; dead when the attempts are used up.

    `count_attempt=False` gives the attempt back: waiting for a pause or a throttle to end is nobody's failure.
    """
    if count_attempt and job.attempts >= max_attempts(job.kind):
        mark_dead(connection, job, error or "no attempts left")
        return
    if delay is None:
        delay = backoff(job.attempts)
    values = {
        "state": "ready",
        "run_at": from_now(delay),
        "lease_owner": None,
        "last_error": error,
        "attempts": Row.attempts if count_attempt else Row.attempts - 1,
    }
    _fenced(connection, job, values)


def mark_dead(connection: Connection, job: Job, error: str) -> None:
    """The job is dead: it waits for a person, with the reason."""
    _fenced(connection, job, {"state": "dead", "lease_owner": None, "last_error": error})


def renew(engine: Engine, job: Job, lease_seconds: float) -> None:
    """Keep a long job leased. Raises LeaseLost when somebody else has it."""
    with engine.begin() as connection:
        _fenced(connection, job, {"run_at": from_now(lease_seconds)})


def check_lease(connection: Connection, job: Job) -> None:
    """Fence a step in the middle of a long job: nobody takes the job over before this transaction ends. Raises LeaseLost."""
    ours = select(Row.id).where(Row.id == job.id, Row.lease_owner == job.owner).with_for_update()
    if connection.scalar(ours) is None:
        raise LeaseLost(f"{job.kind}:{job.subject}")


@contextmanager
def keep_lease(engine: Engine, job: Job, lease_seconds: float) -> Iterator[Callable[[], None]]:
    """Renew the lease from a thread for as long as the block runs, whatever it waits for.

    Gives a function for the block to call now and then: it raises LeaseLost once somebody else has the job.
    """
    ended, lost = threading.Event(), threading.Event()

    def renew_until_ended() -> None:
        while not ended.wait(lease_seconds / 3):
            try:
                renew(engine, job, lease_seconds)
            except LeaseLost:
                lost.set()
                return
            except Exception as fault:  # the database is away: the next round may be in time
                log.warning("the lease of %s:%s could not be renewed: %s", job.kind, job.subject, fault)

    def check() -> None:
        if lost.is_set():
            raise LeaseLost(f"{job.kind}:{job.subject}")

    thread = threading.Thread(target=renew_until_ended, name=f"lease of {job.kind}", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()


def delete_pending(connection: Connection, kind: str, subjects: Iterable[str]) -> None:
    """What these jobs worked on is gone. One that runs finds that out by itself."""
    keys = [f"{kind}:{subject}" for subject in subjects]
    connection.execute(delete(Row).where(Row.key.in_(keys), Row.state != "running"))


def due(connection: Connection, limit: int, queues: Sequence[str] = QUEUES) -> list[UUID]:
    """Ids of jobs that could run now, queue by queue, those that have waited longest first."""
    found: list[UUID] = []
    for queue in queues:
        waiting = select(Row.id).where(Row.queue == queue, is_due).order_by(Row.run_at)
        found += connection.scalars(waiting.limit(limit - len(found)))
        if len(found) >= limit:
            break
    return found


def retry(connection: Connection, job_id: UUID) -> bool:
    """A person asks for a dead or waiting job: it runs now, with all its attempts. False when there is no such job."""
    statement = (
        update(Row)
        .where(Row.id == job_id, Row.state != "running")
        .values(state="ready", run_at=from_now(), attempts=0)
    )
    return connection.execute(statement).rowcount == 1


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Jobs by (kind, state)."""
    rows = connection.execute(select(Row.kind, Row.state, func.count()).group_by(Row.kind, Row.state))
    return {(kind, state): number for kind, state, number in rows}


def backoff(attempts: int) -> float:
    """Seconds before the next attempt: 1, 2, 4 … up to an hour, each spread by a quarter so that jobs part ways."""
    return min(2.0 ** (attempts - 1), MAX_BACKOFF_SECONDS) * random.uniform(0.75, 1.25)


def _fenced(connection: Connection, job: Job, values: Mapping[str, object]) -> None:
    statement = update(Row).where(Row.id == job.id, Row.lease_owner == job.owner).values(**values)
    if not connection.execute(statement).rowcount:
        raise LeaseLost(f"{job.kind}:{job.subject}")
