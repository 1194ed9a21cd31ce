"""Fast path: store the usual plan of a task, its jobs included, with one PostgreSQL statement.

Usual is a plan of one batch that cancels and joins nothing, which at most one limit counts. For every other plan the statement
writes nothing, and the caller takes the general path of plan_task.py. A property test holds both to the same rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.exc import DBAPIError

from models import CreationPause, FollowUp, Job, Join, RateLimit, SpendCounter, Task
from models.follow_up import HELD_FOR_A_FILE
from pipeline.db.errors import log_fallback
from pipeline.db.follow_up_states import PLANNED
from pipeline.db.ids import utcnow
from pipeline.db.json import dumps
from pipeline.db.postgresql import fetch
from pipeline.events.subscriptions import FOLLOW_UP, WORKFLOW, has_subscriber
from pipeline.follow_ups.limits import key_of, only_limit
from pipeline.follow_ups.recording import follow_up_row, settings_reason
from pipeline.jobs import kinds, queue, scale_limits
from pipeline.jobs.queues import BOUNDED, DEFAULT, FETCH
from pipeline.service import Service
from workflows.planning.joins import joins_for

if TYPE_CHECKING:
    from pipeline.follow_ups.plan_task import TaskPlan

MAX_FOLLOW_UPS = 500

# Each part reads the one before it, so that rows are locked in the one order: task, follow-ups, counters, jobs. What another
# transaction has changed since the statement began breaks the chain: then the job is not deleted, and the division by zero
# rolls everything back. Subqueries of one value are looked up by index also in tables that were never analyzed. Joined to them, PostgreSQL
# would read them whole, and keep that plan while they grow.
STATEMENT = f"""
WITH due AS (
    SELECT name FROM unnest(%(queues)s::text[]) AS name WHERE (
        SELECT true FROM {Job.__tablename__}
        WHERE queue = name AND state <> 'dead' AND run_at <= statement_timestamp() ORDER BY run_at LIMIT 1
    )
), usual AS (
    SELECT %(next_owner)s::text IS NOT NULL
    AND NOT EXISTS (SELECT FROM due WHERE name = %(environment)s::text OR NOT %(in_thread)s::bool)
    AND NOT EXISTS (SELECT FROM {CreationPause.__tablename__} WHERE environment = %(environment)s::text)
    AND NOT EXISTS (SELECT FROM {RateLimit.__tablename__} WHERE scope = %(scope)s::text) AS goes_on
    FROM {Task.__tablename__}
    WHERE task_id = %(task)s
    AND (clock_delivery_id, response_id, status, review_status) IS NOT DISTINCT FROM (
        %(clock_delivery_id)s::uuid, %(response_id)s::uuid, %(status)s::text, %(review_status)s::text
    )
    AND NOT EXISTS (
        SELECT FROM unnest(%(unique_ids)s::text[]) AS planned_id
        WHERE (SELECT true FROM {FollowUp.__tablename__} WHERE unique_id = planned_id)
    )
    AND NOT EXISTS (SELECT FROM {FollowUp.__tablename__} WHERE source_task_id = %(task)s AND {HELD_FOR_A_FILE})
    AND NOT EXISTS (SELECT FROM {Join.__tablename__} WHERE source_task_id = %(parent)s::text AND fired_at IS NULL)
    AND (%(counter)s::text IS NULL OR EXISTS (
        SELECT FROM {SpendCounter.__tablename__}
        WHERE counter = %(counter)s AND period = %(period)s AND granted + %(asked)s::int <= %(most)s::bigint
    ))
    AND EXISTS (
        SELECT FROM {Job.__tablename__}
        WHERE id = %(job)s AND lease_owner = %(owner)s AND enqueue_count = %(enqueue_count)s
    )
    FOR UPDATE
), planned AS (
    INSERT INTO {FollowUp.__tablename__}
    SELECT new.* FROM usual, jsonb_populate_recordset(NULL::{FollowUp.__tablename__}, %(follow_ups)s::jsonb) AS new
    ON CONFLICT (unique_id) DO NOTHING RETURNING 1
), counted AS (
    UPDATE {SpendCounter.__tablename__} SET granted = granted + %(asked)s::int
    WHERE counter = %(counter)s AND period = %(period)s AND granted + %(asked)s::int <= %(most)s::bigint
    AND (SELECT count(*) FROM planned) = %(new)s::int
    RETURNING 1
), enqueued AS (
    INSERT INTO {Job.__tablename__}
    (id, kind, key, subject, queue, created_at, state, attempts, lease_owner, run_at)
    SELECT new.id, new.kind, new.key, new.subject, new.queue, statement_timestamp(),
        CASE WHEN goes_on THEN 'running' ELSE 'ready' END,
        CASE WHEN goes_on THEN 1 ELSE 0 END,
        CASE WHEN goes_on THEN %(next_owner)s::text END,
        statement_timestamp() + CASE WHEN goes_on THEN make_interval(secs => %(lease)s::float) ELSE '0' END
    FROM usual, jsonb_populate_recordset(NULL::{Job.__tablename__}, %(jobs)s::jsonb) AS new
    WHERE (SELECT count(*) FROM planned) = %(new)s::int
    AND (%(counter)s::text IS NULL OR EXISTS (SELECT FROM counted))
    ON CONFLICT (key) DO NOTHING RETURNING 1
), finished AS (
    DELETE FROM {Job.__tablename__} USING usual
    WHERE id = %(job)s AND lease_owner = %(owner)s AND enqueue_count = %(enqueue_count)s
    AND (SELECT count(*) FROM planned) = %(new)s::int
    AND (SELECT count(*) FROM enqueued) = %(asked)s::int
    RETURNING 1
)
SELECT 1 / (SELECT count(*) FROM finished), goes_on, ARRAY(SELECT name FROM due) FROM usual
"""


class Stored(NamedTuple):
    """What a plan came to."""

    created: int  # follow-ups that are new
    next_job: queue.Job | None  # the creation of the only one, leased to this worker


def store_usual_plan(service: Service, job: queue.Job, plan: TaskPlan) -> Stored | None:
    """Store the plan and finish its job. If the worker goes on, lease the only creation to it, unless an older one of the environment
    is due, something stops them there, or another due job would wait for it.

    Returns None, with nothing written, if the plan is not the usual one, or if anything fails: the general path knows what to
    do then.
    """
    if service.engine.dialect.name != "postgresql" or not _is_usual(service, plan):
        return None
    try:
        prepared = _prepare(service, job, plan)
        if prepared is None:
            return None
        stored = fetch(service.engine, STATEMENT, prepared.parameters)
    except (DBAPIError, TypeError) as fault:  # TypeError: JSON that only the general path can write
        log_fallback(fault, job.log_fields)
        return None
    if not stored:
        return None
    ((_, goes_on, due),) = stored
    return Stored(len(plan.follow_ups), _leased(prepared, due) if goes_on else None)


def _leased(prepared: Prepared, due: Collection[str]) -> queue.Job:
    (row,), (follow_up,) = prepared.jobs, prepared.to_create
    return queue.Job(
        id=row["id"],
        kind=row["kind"],
        subject=row["subject"],
        attempts=1,
        enqueue_count=1,
        owner=prepared.parameters["next_owner"],
        queue=row["queue"],
        fetch_is_due=FETCH in due,
        is_last_due=not due,
        follow_up=follow_up,
    )


def _is_usual(service: Service, plan: TaskPlan) -> bool:
    """Return whether the plan itself is usual. What is stored already, the statement finds out."""
    subscriptions = service.subscriptions
    return not (
        plan.failures
        or plan.missed
        or len(plan.follow_ups) > MAX_FOLLOW_UPS
        or any(one.recalled_steps for one in plan.planned)
        or any(
            joins_for(one.follow_ups, one.workflow, service.settings.unique_id_prefix) for one in plan.planned
        )
        or has_subscriber(subscriptions, FOLLOW_UP)
        or has_subscriber(subscriptions, WORKFLOW)
    )


class Prepared(NamedTuple):
    """The parameters of the statement, and the rows of what is to be created among them."""

    parameters: dict[str, Any]
    to_create: Sequence[dict[str, Any]]
    jobs: Sequence[dict[str, Any]]


def _prepare(service: Service, job: queue.Job, plan: TaskPlan) -> Prepared | None:
    """Return what the statement needs; None if one limit does not decide about all that is to be created."""
    view = plan.snapshot.view
    missing = settings_reason(service, view.environment)
    rows = {one.unique_id: follow_up_row(plan.snapshot, one, missing) for one in plan.follow_ups}
    to_create = [row for row in rows.values() if row["state"] == PLANNED]
    limit = None
    if to_create:
        steps = {(row["workflow"], row["step"]) for row in to_create}
        is_usual, limit = only_limit(service.workflows, steps)
        if not is_usual:
            return None
    counter, period = (None, None) if limit is None else key_of(limit, utcnow())
    goes_on = job.goes_on and len(to_create) == 1
    jobs = _jobs([row["unique_id"] for row in to_create], view.environment)
    names = ("clock_delivery_id", "response_id", "status", "review_status")
    parameters = {
        "task": view.task_id,
        **dict(zip(names, plan.snapshot.key, strict=True)),
        "parent": view.source and view.source.task_id,
        "unique_ids": [*rows],
        "follow_ups": dumps([*rows.values()]),
        "new": len(rows),
        "counter": counter,
        "period": period,
        "most": limit and limit.most,
        "asked": len(to_create),
        "jobs": dumps(jobs),
        "next_owner": queue.new_owner() if goes_on else None,
        "lease": service.settings.lease_seconds,
        "queues": [DEFAULT, *BOUNDED, view.environment],
        "environment": view.environment,
        "in_thread": service.creates_in_threads(view.environment),
        "scope": scale_limits.scope(view.environment),
        "job": job.id,
        "owner": job.owner,
        "enqueue_count": job.enqueue_count,
    }
    return Prepared(parameters, to_create, jobs)


def _jobs(unique_ids: Collection[str], environment: str) -> Sequence[dict[str, Any]]:
    return [
        {**queue.new_job_row(kinds.CREATE, unique_id), "queue": environment}
        for unique_id in sorted(unique_ids)  # one lock order, as in queue.enqueue
    ]
