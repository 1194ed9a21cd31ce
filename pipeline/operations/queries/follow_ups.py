"""Read follow-ups: the tasks that workflows create."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from more_itertools import chunked
from sqlalchemy import Connection, bindparam, func, select

from models import FollowUp, Join
from pipeline.db.sizes import read_row
from pipeline.follow_ups.prices import request_project
from pipeline.operations.queries.filters import Filters, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, count_up_to, paginate

ID_BATCH_SIZE = 500
STATES = ("planned", "held", "created", "completed", "error", "canceled", "failed", "skipped")
FILTERS = ("state", "workflow", "step", "source_task_id", "task_id", "environment")
COLUMNS = (
    FollowUp.unique_id,
    FollowUp.workflow,
    FollowUp.step,
    FollowUp.state,
    FollowUp.reason,
    FollowUp.environment,
    FollowUp.source_task_id,
    FollowUp.source_annotation,
    FollowUp.task_type,
    FollowUp.task_id,
    FollowUp.depth,
    FollowUp.workflow_digest,
    FollowUp.decided_by,
    FollowUp.decided_at,
    FollowUp.planned_at,
    FollowUp.created_at,
)


def list_follow_ups(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return follow-ups, the most recently planned first."""
    statement = select(*COLUMNS, FollowUp.id).where(*equal(FollowUp, FILTERS, filters))
    return paginate(connection, statement, [FollowUp.id], limit=limit, cursor=cursor)


def count_follow_ups(connection: Connection, filters: Filters) -> int:
    """Return how many follow-ups match, counted up to MAX_COUNTED."""
    return count_up_to(connection, select(FollowUp.id).where(*equal(FollowUp, FILTERS, filters)))


def get_follow_up(connection: Connection, unique_id: str) -> Mapping[str, Any]:
    """Return one follow-up with its request, and as `request_project` the project that it names. Raises NotFound."""
    row = read_row(connection, _DETAIL, unique_id=unique_id)
    if row is None:
        raise NotFound(f"no follow-up {unique_id} is known")
    return row


_DETAIL = select(*COLUMNS, FollowUp.request, FollowUp.files, request_project()).where(
    FollowUp.unique_id == bindparam("unique_id")
)


def matching_unique_ids(
    connection: Connection,
    filters: Filters,
    states: Sequence[str],
    *,
    limit: int | None = None,
    sample: int | None = None,
) -> Sequence[str]:
    """Return the unique_ids of follow-ups in one of `states` that match `filters`, oldest first.

    All of them, the oldest `limit`, or a random `sample`. The filter `since` is the earliest time of planning.
    """
    statement = select(FollowUp.unique_id).where(
        FollowUp.state.in_(states), *equal(FollowUp, FILTERS, filters)
    )
    if (since := filters.get("since")) is not None:
        statement = statement.where(FollowUp.planned_at >= since)
    if sample is not None:
        return sorted(connection.scalars(statement.order_by(func.random()).limit(sample)))
    return connection.scalars(statement.order_by(FollowUp.id).limit(limit)).all()


def count_by_state(connection: Connection, unique_ids: Sequence[str]) -> dict[str, int]:
    """Return state → number of these follow-ups."""
    counts: Counter[str] = Counter()
    for some in chunked(unique_ids, ID_BATCH_SIZE):
        statement = select(FollowUp.state, func.count()).where(FollowUp.unique_id.in_(some))
        for state, number in connection.execute(statement.group_by(FollowUp.state)):
            counts[state] += number
    return dict(counts)


def first_follow_up(connection: Connection, source_task_id: str) -> Mapping[str, Any] | None:
    """Return the first follow-up of a task with its request; None if there is none."""
    statement = select(*COLUMNS, FollowUp.request).where(FollowUp.source_task_id == source_task_id)
    row = connection.execute(statement.order_by(FollowUp.id).limit(1)).mappings().one_or_none()
    return None if row is None else dict(row)


def counts_by_workflow(connection: Connection) -> dict[str, dict[str, int]]:
    """Return workflow → state → number of follow-ups."""
    statement = select(FollowUp.workflow, FollowUp.state, func.count()).group_by(
        FollowUp.workflow, FollowUp.state
    )
    found: dict[str, dict[str, int]] = {}
    for workflow, state, count in connection.execute(statement.order_by(FollowUp.workflow, FollowUp.state)):
        found.setdefault(workflow, {})[state] = count
    return found


def counts_by_step(connection: Connection, workflow: str) -> list[Mapping[str, Any]]:
    """Return {step, state, count} of one workflow's follow-ups."""
    statement = (
        select(FollowUp.step, FollowUp.state, func.count().label("count"))
        .where(FollowUp.workflow == workflow)
        .group_by(FollowUp.step, FollowUp.state)
        .order_by(FollowUp.step, FollowUp.state)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def list_joins(connection: Connection, workflow: str, limit: int = 20) -> list[Mapping[str, Any]]:
    """Return the joins of a workflow with their outcome, the most recently opened first."""
    columns = (
        Join.step,
        Join.awaited_step,
        Join.source_task_id,
        Join.expected,
        Join.opened_at,
        Join.deadline,
        Join.fired_at,
        Join.verdict,
        Join.reason,
    )
    statement = select(*columns).where(Join.workflow == workflow).order_by(Join.opened_at.desc())
    return [dict(row) for row in connection.execute(statement.limit(limit)).mappings()]
