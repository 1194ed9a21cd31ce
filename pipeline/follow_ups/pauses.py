"""What must wait: workflows that a person paused or whose files are invalid, and the creation of tasks at Scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, RowMapping, String, bindparam, delete, literal, select

from models import CreationPause, MissedTask, RateLimit, WorkflowPause
from pipeline.db.compiled import connected, fetch_one
from pipeline.db.dialect import insert
from pipeline.db.ids import format_timestamp, utcnow
from pipeline.follow_ups.recording import settings_reason
from pipeline.jobs import kinds, queue, scale_limits
from pipeline.jobs.queue import RetryLater
from pipeline.jobs.rate_limits import active_rate_limits, wait_until
from pipeline.service import Service
from scale.environments import ENVIRONMENTS
from workflows.definition.model import Workflows

PAUSED_RETRY_SECONDS = 60.0


class MissedBy(NamedTuple):
    """What did not plan a task: a paused workflow by its name, or an invalid file by its path."""

    source: str  # workflow | file
    name: str


# Workflows. The tasks that one would have planned are recorded, and planned when the cause is gone.


def paused(connection: Connection) -> dict[str, RowMapping]:
    """Return {name: {paused_by, paused_at}} of every paused workflow."""
    columns = (WorkflowPause.workflow, WorkflowPause.paused_by, WorkflowPause.paused_at)
    return {row["workflow"]: row for row in connection.execute(select(*columns)).mappings()}


def paused_workflows(database: Connection | Engine, service: Service) -> set[str]:
    """Return the names of the loaded workflows that are paused."""
    names = [workflow.name for workflow in service.workflows.loaded]
    with connected(database) as connection:
        return set(connection.scalars(_PAUSED, {"names": names}))


_PAUSED = select(WorkflowPause.workflow).where(WorkflowPause.workflow.in_(bindparam("names", expanding=True)))


def pause_workflow(connection: Connection, workflow: str, actor: str) -> bool:
    """Pause a workflow. Return whether it was not paused before."""
    return _insert_pause(connection, WorkflowPause, {"workflow": workflow}, actor)


def unpause_workflow(connection: Connection, workflow: str) -> None:
    """Remove the pause of a workflow."""
    connection.execute(delete(WorkflowPause).where(WorkflowPause.workflow == workflow))


def invalid_files(workflows: Workflows) -> set[MissedBy]:
    """Return the workflow files that are not loaded; while none is loaded yet, their folder."""
    return {MissedBy("file", file.path) for file in workflows.invalid}


def record_missed(connection: Connection, causes: Iterable[MissedBy], task_id: str) -> None:
    """Record that paused workflows or invalid files did not plan this task."""
    for source, name in sorted(causes):
        row = {"source": source, "name": name, "task_id": task_id, "missed_at": utcnow()}
        statement = insert(connection, MissedTask).values(row)
        connection.execute(statement.on_conflict_do_nothing(index_elements=["source", "name", "task_id"]))


def replay_missed(connection: Connection, cause: MissedBy) -> list[UUID]:
    """Enqueue planning of every task that this workflow or file missed. Returns the ids of the jobs to dispatch."""
    missed = delete(MissedTask).where(MissedTask.source == cause.source, MissedTask.name == cause.name)
    task_ids = connection.scalars(missed.returning(MissedTask.task_id)).all()
    return queue.enqueue(connection, kinds.PLAN, task_ids)


def replay_missed_of_fixed_files(connection: Connection, service: Service) -> list[UUID]:
    """Enqueue planning of every task that was missed by a file which is valid now."""
    names = connection.scalars(select(MissedTask.name).where(MissedTask.source == "file").distinct())
    fixed = {MissedBy("file", name) for name in names} - invalid_files(service.workflows)
    return [job_id for cause in sorted(fixed) for job_id in replay_missed(connection, cause)]


# Creation of tasks: pauses by a person, or by a fault that only a person can fix, and the rate limits of Scale.


def creation_pauses(connection: Connection) -> list[RowMapping]:
    """Return {environment, paused_by, paused_at, reason} of each environment in which creation is paused."""
    statement = select(*CreationPause.__table__.c).order_by(CreationPause.environment)
    return list(connection.execute(statement).mappings())


def insert_creation_pauses(
    connection: Connection, actor: str, environments: Sequence[str] = ENVIRONMENTS, reason: str | None = None
) -> bool:
    """Pause creation in these environments. Return whether one of them was not paused before."""
    new = [
        _insert_pause(connection, CreationPause, {"environment": environment, "reason": reason}, actor)
        for environment in environments
    ]
    return any(new)


def delete_creation_pauses(connection: Connection) -> bool:
    """Remove the pauses and Scale's rate limits of every environment. Return whether there were any pauses."""
    scale_limits.clear_limits(connection, ENVIRONMENTS)
    return bool(connection.execute(delete(CreationPause)).rowcount)


def check_creation_allowed(connection: Connection, service: Service, environment: str) -> bool:
    """Raise RetryLater while no task may be created: paused, a setting is missing, or Scale's rate limit lasts.

    Return whether there is a rate limit that is over, and can be cleared once Scale accepts a request.
    """
    stops = fetch_one(connection, _STOPS, {"environment": environment})
    assert stops is not None  # one row, with or without anything that stops
    return check_stops(service, environment, stops)


def with_stops(statement: Any, environment: Any) -> Any:
    """Add to a query what stops creation in the environment of each of its rows: the columns that `check_stops` reads."""
    of_scale = RateLimit.scope == literal(scale_limits.scope("")) + environment
    return (
        statement.outerjoin(CreationPause, CreationPause.environment == environment)
        .outerjoin(RateLimit, of_scale)
        .add_columns(
            CreationPause.paused_by,
            CreationPause.reason.label("pause_reason"),
            RateLimit.until.label("limited_until"),
            RateLimit.reason.label("limit_reason"),
        )
    )


_ENVIRONMENT = select(bindparam("environment", type_=String).label("name")).subquery()
_STOPS = with_stops(select(_ENVIRONMENT.c.name), _ENVIRONMENT.c.name)


def check_stops(service: Service, environment: str, stops: Mapping[str, Any]) -> bool:
    """Do what `check_creation_allowed` does, with the columns of `with_stops`."""
    if stops["paused_by"] is not None:
        why = stops["pause_reason"] or f"creation is paused by {stops['paused_by']}"
        raise RetryLater(f"{why}; `weighbridge creation resume` resumes it", PAUSED_RETRY_SECONDS)
    if missing := settings_reason(service, environment):
        raise RetryLater(missing.text, PAUSED_RETRY_SECONDS)
    return wait_until(stops["limited_until"], stops["limit_reason"])


def active_throttles(connection: Connection) -> list[dict[str, Any]]:
    """Return {environment, reason, until} of the rate limits of Scale that last."""
    scopes = {scale_limits.scope(environment): environment for environment in ENVIRONMENTS}
    return [
        {
            "environment": scopes[row["scope"]],
            "reason": row["reason"],
            "until": format_timestamp(row["until"]),
        }
        for row in active_rate_limits(connection, list(scopes))
    ]


def _insert_pause(connection: Connection, table: Any, key: dict[str, Any], actor: str) -> bool:
    row = {**key, "paused_by": actor, "paused_at": utcnow()}
    statement = insert(connection, table).values(row).on_conflict_do_nothing()
    return connection.execute(statement.returning(table.paused_by)).first() is not None
