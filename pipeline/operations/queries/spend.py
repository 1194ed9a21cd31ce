"""Read what tasks cost: planned, committed and spent, by workflow, step, project or day, and what the limits have left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from models import FollowUp, Response, Task
from pipeline.db.dialect import utc_day
from pipeline.db.ids import utcnow
from pipeline.follow_ups.limits import AnyLimit, describe, key_of, read_used, released_at
from pipeline.follow_ups.prices import UNCREATED, Cost, as_day, request_project, spending_stage
from workflows.definition.model import INSTALLATION, Limit, Workflows, limits_for
from workflows.definition.money import MICROS, Prices

GROUPS = ("workflow", "step", "project", "day")
STAGES = ("planned", "committed", "spent")
OWN_TASKS = None
"""Workflow of tasks that no workflow created."""


class Counted(NamedTuple):
    """Tasks that cost the same, of one group."""

    workflow: str | None
    step: str | None
    project: str | None
    day: str | None  # UTC day of the creation, or of the planning
    task_type: str | None
    stage: str
    tasks: int
    annotations: int | None


def spend(
    connection: Connection,
    prices: Prices,
    by: str = "workflow",
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of each group, and the total: {workflow, step, project, day, tasks, planned, committed, spent}, each cost as Cost.to_json().

    by: one of GROUPS; `step` has `workflow`, too. since, until: of the creation of a task, or the planning of a follow-up.
    """
    groups: dict[tuple[str | None, ...], dict[str, Cost]] = {}
    tasks: dict[tuple[str | None, ...], int] = {}
    total = {stage: Cost(prices) for stage in STAGES}
    for one in _counted(connection, since, until):
        key = (one.workflow, one.step) if by == "step" else (getattr(one, by),)
        costs = groups.setdefault(key, {stage: Cost(prices) for stage in STAGES})
        tasks[key] = tasks.get(key, 0) + one.tasks
        for cost in (costs, total):
            cost[one.stage].add(one.task_type, one.project, one.tasks, one.annotations, as_day(one.day))
    names = ("workflow", "step") if by == "step" else (by,)
    rows = [
        {
            **dict.fromkeys(GROUPS),
            **dict(zip(names, key, strict=True)),
            "tasks": tasks[key],
            **{stage: cost.to_json() for stage, cost in costs.items()},
        }
        for key, costs in sorted(groups.items(), key=lambda item: [part or "" for part in item[0]])
    ]
    counted = sum(tasks.values())
    return rows, {"tasks": counted, **{stage: cost.to_json() for stage, cost in total.items()}}


def limits_used(connection: Connection, workflows: Workflows) -> list[dict[str, Any]]:
    """Return each limit as {limit, counter, workflow, step, period, unit, most, used, left, released_at}.

    unit: tasks, or the currency. released_at: the next day, for a limit of a day; null for a total.
    """
    limits: dict[AnyLimit, tuple[str | None, str | None]] = dict.fromkeys(
        workflows.limits.counters, (None, None)
    )
    for workflow in workflows.loaded:
        for step in workflow.steps:
            for limit in limits_for(workflow, step):
                limits[limit] = (workflow.name, None if limit.counter == workflow.name else step.name)
    used, now = read_used(connection, limits), utcnow()
    return [_limit(limit, names, used.get(key_of(limit, now), 0), now) for limit, names in limits.items()]


def _limit(
    limit: AnyLimit, names: tuple[str | None, str | None], granted: int, now: datetime
) -> dict[str, Any]:
    is_count = isinstance(limit, Limit)
    most = limit.most if isinstance(limit, Limit) else float(limit.most.amount)
    used = granted if is_count else float(Decimal(granted) / MICROS)
    return {
        "limit": describe(limit),
        "scope": "installation" if limit.counter == INSTALLATION else "step" if names[1] else "workflow",
        "workflow": names[0],
        "step": names[1],
        "period": "day" if limit.period == "day" else "total",
        "unit": "tasks" if isinstance(limit, Limit) else limit.most.currency,
        "most": most,
        "used": used,
        "left": max(0, round(most - used, 6)),
        "released_at": released_at(now) if limit.period == "day" else None,
    }


def _counted(connection: Connection, since: datetime | None, until: datetime | None) -> Iterator[Counted]:
    yield from _uncreated(connection, since, until)
    stage = spending_stage().label("stage")
    created = func.coalesce(Task.created_at, FollowUp.created_at, Task.clock)
    day = utc_day(created).label("day")
    statement = (
        select(
            FollowUp.workflow,
            FollowUp.step,
            Task.project,
            day,
            Task.type,
            stage,
            func.count(),
            func.sum(Response.annotation_count),
        )
        .outerjoin(FollowUp, FollowUp.unique_id == Task.follow_up_unique_id)
        .outerjoin(Response, Response.id == Task.response_id)
        .group_by(FollowUp.workflow, FollowUp.step, Task.project, "day", Task.type, "stage")
    )
    for row in connection.execute(statement.where(*_between(created, since, until))):
        found = Counted(*row)
        if found.stage in STAGES:
            yield found if found.stage == "spent" else found._replace(annotations=None)


def _uncreated(connection: Connection, since: datetime | None, until: datetime | None) -> Iterator[Counted]:
    project, day = request_project(), utc_day(FollowUp.planned_at).label("day")
    statement = (
        select(FollowUp.workflow, FollowUp.step, project, day, FollowUp.task_type, func.count())
        .where(FollowUp.state.in_(UNCREATED), *_between(FollowUp.planned_at, since, until))
        .group_by(FollowUp.workflow, FollowUp.step, project.name, "day", FollowUp.task_type)
    )
    for workflow, step, name, on, task_type, tasks in connection.execute(statement):
        yield Counted(workflow, step, name, on, task_type, "planned", tasks, None)


def _between(column: Any, since: datetime | None, until: datetime | None) -> Iterator[Any]:
    if since is not None:
        yield column >= since.astimezone(UTC)
    if until is not None:
        yield column < until.astimezone(UTC)


def spend_report(connection: Connection, workflows: Workflows, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return {data, total, limits, currency} for the filters {by, since, until}."""
    by = filters.get("by") or "workflow"
    rows, total = spend(connection, workflows.prices, by, filters.get("since"), filters.get("until"))
    return {
        "by": by,
        "data": rows,
        "total": total,
        "limits": limits_used(connection, workflows),
        "currency": workflows.prices.currency,
    }
