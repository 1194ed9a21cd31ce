"""The jobs table, the queue of record: a transactional outbox whose rows are claimed by lease and fenced by their owner.

A job is enqueued in the transaction that makes it necessary and deleted in the transaction that stores its result.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Engine,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.orm import aliased

from models import Job as Row
from pipeline.db.compiled import fetch_one
from pipeline.db.dialect import from_now, insert, lock_exclusively, one_or_all
from pipeline.db.engine import begin_autocommit
from pipeline.db.errors import safe_message
from pipeline.db.ids import new_id, utcnow
from pipeline.jobs.kinds import MAX_LOST_LEASES, QUEUE_OF_KIND, SUBJECT_FIELD, max_attempts
from pipeline.jobs.queues import BOUNDED, DEFAULT, FETCH, QUEUES
from scale.alarms import Alarms

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 3600.0
RENEWALS = Alarms("renewals of leases")
LOCKS = {name: 0x7765_6967_6866 + number for number, name in enumerate(BOUNDED)}  # numbers of advisory locks


def _is_due(row: Any) -> Any:
    """Return the condition that a job may be claimed: it is ready, or runs with an expired lease.

    Phrased like the index ix_jobs_due, which PostgreSQL could not use for a parameter in place of the literal.
    """
    return and_(row.state != literal_column("'dead'"), row.run_at <= from_now())


class LeaseLost(Exception):
    """Raised when another worker owns the job now: the transaction of this one is rolled back."""


class RetryLater(Exception):
    """Raised by a job that cannot run yet (a pause, a throttle, a missing key). It runs again after `delay` seconds; the
    attempt is not counted."""

    def __init__(self, why: str, delay: float) -> None:
        super().__init__(why)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job."""

    id: UUID
    kind: str
    subject: str  # what it works on, see kinds.py
    attempts: int  # this one included
    enqueue_count: int  # when it was claimed
    owner: str  # fencing token: new for each claim, checked by every later change
    queue: str = DEFAULT
    fetch_is_due: bool = False  # whether a fetch job was due when this one was claimed
    goes_on: bool = False  # whether the worker runs a job next that this one leases to it
    is_last_due: bool = False  # of a leased one: whether no other job was due
    follow_up: Mapping[str, Any] | None = None  # of a leased creation: what it would read

    @property
    def log_fields(self) -> dict[str, object]:
        """Return what a log line about this job carries as `extra`; `subject` under the name that its kind gives it."""
        return {
            "job_id": str(self.id),
            "job_kind": self.kind,
            SUBJECT_FIELD.get(self.kind, "subject"): self.subject,
            "attempt": self.attempts,
        }


def enqueue(
    connection: Connection,
    kind: str,
    subjects: Iterable[str],
    *,
    delay: float = 0.0,
    queue: str | None = None,
) -> list[UUID]:
    """Enqueue one job of `kind` for each subject, due in `delay` seconds. Return the jobs' ids.

    A job that is already enqueued stays one row: if it waits it runs at the earlier of both times, if it runs it runs
    once more, and if it is dead it is ready again with all its attempts.
    """
    queue = QUEUE_OF_KIND.get(kind, DEFAULT) if queue is None else queue
    rows = [
        {**new_job_row(kind, subject), "queue": queue, "delay": delay, "now": utcnow()}
        for subject in sorted(set(subjects))  # one lock order, so that two transactions cannot deadlock
    ]
    if not rows:
        return []
    return list(connection.scalars(_enqueue_statement(connection.dialect.name), one_or_all(rows)))


# Statements are cached: to build one takes several times as long as to run it.


@cache
def _enqueue_statement(dialect: str) -> Any:
    names = ("id", "kind", "key", "subject", "queue")
    statement = insert(dialect, Row).values(
        **{name: bindparam(name) for name in names},
        state="ready",
        run_at=from_now(bindparam("delay")),
        created_at=bindparam("now"),
    )
    new, is_dead = statement.excluded, Row.state == "dead"
    return statement.on_conflict_do_update(
        index_elements=["key"],
        set_={
            "enqueue_count": Row.enqueue_count + 1,
            "state": case((is_dead, "ready"), else_=Row.state),
            "attempts": case((is_dead, 0), else_=Row.attempts),
            "lost_leases": case((is_dead, 0), else_=Row.lost_leases),
            "run_at": case(
                (and_(Row.state != "dead", Row.run_at < new.run_at), Row.run_at),
                (Row.state == "running", Row.run_at),
                else_=new.run_at,
            ),
        },
    ).returning(Row.id)


# Another name for the table: within RETURNING its own one is the row that was claimed.
_OTHER_JOB = aliased(Row)
_FIRST_DUE = {
    name: select(_OTHER_JOB.id)
    .where(_OTHER_JOB.queue == name, _is_due(_OTHER_JOB))
    .order_by(_OTHER_JOB.run_at)  # by the index, however many are due
    .limit(1)
    for name in BOUNDED
}
_DUE_BOUNDED = select(*(first.scalar_subquery().is_not(None) for first in _FIRST_DUE.values()))


@cache
def claim_statement(queues: Sequence[str], *, named: bool = False) -> Any:
    """Build the claim of the oldest due job of the first queue that has one, or if `named` of the job `job` in any of them."""
    if named:
        chosen = [and_(Row.id == bindparam("job"), or_(*(Row.queue == queue for queue in queues)))]
    else:
        chosen = [Row.queue == queue for queue in queues]
    candidates = [
        select(Row.id)
        .where(one, _is_due(Row))
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
            lost_leases=case((Row.state == "running", Row.lost_leases + 1), else_=Row.lost_leases),
            lease_owner=bindparam("owner"),
            run_at=from_now(bindparam("lease")),
        )
        .returning(
            Row.id,
            Row.kind,
            Row.subject,
            Row.attempts,
            Row.enqueue_count,
            Row.queue,
            Row.lost_leases,
            _FIRST_DUE[FETCH].scalar_subquery().is_not(None).label("fetch_is_due"),
        )
    )


_FINISH = delete(Row).where(
    Row.id == bindparam("job"),
    Row.lease_owner == bindparam("owner"),
    Row.enqueue_count == bindparam("enqueue_count"),
)


_RELEASED: Mapping[str, object] = {"state": "ready", "lease_owner": None, "lost_leases": 0}


def new_job_row(kind: str, subject: str) -> dict[str, Any]:
    """Return the identifying columns of a new job."""
    return {"id": new_id(), "kind": kind, "key": f"{kind}:{subject}", "subject": subject}


def new_owner() -> str:
    """Return a fencing token for a claim."""
    return new_id().hex


def claim(
    engine: Engine, lease_seconds: float, *, job_id: UUID | None = None, queues: Sequence[str] = QUEUES
) -> Job | None:
    """Lease one due job of `queues`: the job `job_id`, or the next one. Return None if none is due.

    The claim is one statement that commits by itself. It counts the attempt, so that a job that kills its worker is dead
    after MAX_LOST_LEASES such workers in a row.
    """
    while (claimed := _claim(engine, tuple(queues), lease_seconds, job_id)) is not None:
        job, why_dead = claimed
        if why_dead is None:
            return job
        with engine.begin() as connection:
            mark_dead(connection, job, why_dead)
    return None


def due_bounded(engine: Engine) -> list[str]:
    """Return the bounded queues in which a job is due, in order of priority."""
    with begin_autocommit(engine) as connection:
        found = connection.execute(_DUE_BOUNDED).one()
    return [name for name, is_due in zip(_FIRST_DUE, found, strict=True) if is_due]


def claim_bounded(engine: Engine, lease_seconds: float, name: str, max_running: int) -> Job | None:
    """Lease the next job of a bounded queue, unless `max_running` of its jobs run already in all processes, or none is due.

    Claims of the queue are serialized, so that two workers never take the same last place.
    """
    while True:
        with engine.begin() as connection:
            lock_exclusively(connection, LOCKS[name])
            running = select(func.count()).where(
                Row.queue == name,
                Row.state == "running",
                Row.run_at.between(from_now(), from_now(lease_seconds + 1)),
            )
            if (connection.scalar(running) or 0) >= max_running:
                return None
            claimed = _claim(connection, (name,), lease_seconds, None)
            if claimed is None:
                return None
            job, why_dead = claimed
            if why_dead is None:
                return job
            mark_dead(connection, job, why_dead)


def _claim(
    database: Connection | Engine, queues: tuple[str, ...], lease_seconds: float, job_id: UUID | None
) -> tuple[Job, str | None] | None:
    """Return the claimed job, and why it must not run any more, if so; None if none is due."""
    owner = new_owner()
    parameters = {"owner": owner, "lease": float(lease_seconds), "job": job_id}
    row = fetch_one(database, claim_statement(queues, named=job_id is not None), parameters)
    if row is None:
        return None
    lost_leases = row.pop("lost_leases")
    job = Job(**row, owner=owner)
    return job, _exhausted(job, lost_leases)


def _exhausted(job: Job, lost_leases: int) -> str | None:
    """Return why a job that was just claimed must not run any more, or None."""
    if lost_leases >= MAX_LOST_LEASES:
        return f"worker lost {lost_leases} times in a row while it ran this job"
    if job.attempts > max_attempts(job.kind):
        return f"worker lost ({job.attempts - 1} attempts without a result)"
    return None


def finish(connection: Connection, job: Job) -> None:
    """Delete the job in the transaction that stores its result. A job that was enqueued meanwhile runs once more.

    Raises LeaseLost.
    """
    if connection.execute(
        _FINISH, {"job": job.id, "owner": job.owner, "enqueue_count": job.enqueue_count}
    ).rowcount:
        return
    _fenced(connection, job, {**_RELEASED, "run_at": from_now(), "attempts": 0})


def reschedule(
    connection: Connection,
    job: Job,
    error: str | None,
    *,
    delay: float | None = None,
    count_attempt: bool = True,
) -> None:
    """Run the job again after `delay` seconds, by default with exponential back-off; mark it dead after its last attempt.

    `count_attempt=False` gives the attempt back: a pause or a throttle is no failure of the job. Raises LeaseLost.
    """
    if count_attempt and job.attempts >= max_attempts(job.kind):
        mark_dead(connection, job, error or "no attempts left")
        return
    if delay is None:
        delay = backoff(job.attempts)
    attempts = Row.attempts if count_attempt else Row.attempts - 1
    _fenced(
        connection, job, {**_RELEASED, "run_at": from_now(delay), "last_error": error, "attempts": attempts}
    )


def move(connection: Connection, job: Job, name: str) -> None:
    """Make the job due in the queue `name`, with this attempt given back. Raises LeaseLost."""
    _fenced(connection, job, {**_RELEASED, "queue": name, "run_at": from_now(), "attempts": Row.attempts - 1})


def mark_dead(connection: Connection, job: Job, error: str) -> None:
    """Stop the job for good, with the reason. It runs again only if a person retries it. Raises LeaseLost."""
    _fenced(connection, job, {"state": "dead", "lease_owner": None, "last_error": error})


def renew(engine: Engine, job: Job, lease_seconds: float) -> None:
    """Extend the lease of a running job. Raises LeaseLost."""
    with engine.begin() as connection:
        _fenced(connection, job, {"run_at": from_now(lease_seconds)})


def check_lease(connection: Connection, job: Job) -> None:
    """Lock the job's row until the transaction ends, so that no other worker claims it meanwhile. Raises LeaseLost."""
    ours = select(Row.id).where(Row.id == job.id, Row.lease_owner == job.owner).with_for_update()
    if connection.scalar(ours) is None:
        raise LeaseLost(f"{job.kind}:{job.subject}")


@contextmanager
def keep_lease(engine: Engine, job: Job, lease_seconds: float) -> Iterator[Callable[[], None]]:
    """Renew the lease again and again while the block runs, whatever it waits for.

    Yields a check for the block to call: it raises LeaseLost as soon as another worker owns the job.
    """
    ended, lost = threading.Event(), threading.Event()

    def renew_unless_ended() -> None:
        if ended.is_set():
            return
        try:
            renew(engine, job, lease_seconds)
        except LeaseLost:
            lost.set()
            return
        except Exception as fault:  # the database is unavailable: the next renewal may be in time
            log.warning("could not renew lease", extra={**job.log_fields, "error": safe_message(fault)})
        RENEWALS.call_later(lease_seconds / 3, renew_unless_ended)

    def check() -> None:
        if lost.is_set():
            raise LeaseLost(f"{job.kind}:{job.subject}")

    first = RENEWALS.call_later(lease_seconds / 3, renew_unless_ended)
    try:
        yield check
    finally:
        ended.set()
        first.cancel()


def delete_pending(connection: Connection, kind: str, subjects: Iterable[str]) -> None:
    """Delete the waiting jobs of these subjects. A running job notices by itself that its subject is gone."""
    keys = [f"{kind}:{subject}" for subject in subjects]
    connection.execute(delete(Row).where(Row.key.in_(keys), Row.state != "running"))


def due(connection: Connection, limit: int, queues: Sequence[str] = QUEUES) -> list[UUID]:
    """Return the ids of at most `limit` due jobs, queue by queue, the oldest first."""
    found: list[UUID] = []
    for queue in queues:
        waiting = select(Row.id).where(Row.queue == queue, _is_due(Row)).order_by(Row.run_at)
        found += connection.scalars(waiting.limit(limit - len(found)))
        if len(found) >= limit:
            break
    return found


def retry(connection: Connection, job_id: UUID) -> bool:
    """Make a dead or waiting job due now, with all its attempts. Return False if there is no such job."""
    statement = (
        update(Row)
        .where(Row.id == job_id, Row.state != "running")
        .values(state="ready", run_at=from_now(), attempts=0, lost_leases=0)
    )
    return connection.execute(statement).rowcount == 1


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Return the number of jobs by (kind, state)."""
    rows = connection.execute(select(Row.kind, Row.state, func.count()).group_by(Row.kind, Row.state))
    return {(kind, state): number for kind, state, number in rows}


def backoff(attempts: int) -> float:
    """Return the seconds before the next attempt: 1, 2, 4 … up to an hour, with 25 % jitter."""
    return min(2.0 ** (attempts - 1), MAX_BACKOFF_SECONDS) * random.uniform(0.75, 1.25)


def _fenced(connection: Connection, job: Job, values: Mapping[str, object]) -> None:
    statement = update(Row).where(Row.id == job.id, Row.lease_owner == job.owner).values(**values)
    if not connection.execute(statement).rowcount:
        raise LeaseLost(f"{job.kind}:{job.subject}")
