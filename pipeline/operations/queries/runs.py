"""Read runs: a first task with everything that followed from it, its state, its open follow-ups and its cost."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from models import FollowUp, Task
from pipeline.follow_ups.runs import root_of, run_of
from pipeline.operations.queries.filters import Filters, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, Record, paginate
from pipeline.operations.queries.tasks import task_not_found
from workflows.definition.money import Prices

OPEN = ("planned", "held", "created")
"""States of follow-ups that are not finished."""
COLUMNS = (Task.task_id, Task.type, Task.environment, Task.project, Task.status)


def list_runs(
    connection: Connection,
    filters: Filters,
    prices: Prices,
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page:
    """Return the runs of first tasks that have follow-ups, the most recently discovered first.

    Filters: workflow (of a follow-up of the first task), environment, project.
    """
    followed = select(FollowUp.unique_id).where(
        FollowUp.source_task_id == Task.task_id, *equal(FollowUp, ("workflow",), filters)
    )
    statement = select(*COLUMNS, Task.id).where(
        Task.follow_up_unique_id.is_(None),
        followed.exists(),
        *equal(Task, ("environment", "project"), filters),
    )
    page = paginate(connection, statement, [Task.id], limit=limit, cursor=cursor)
    return Page([_with_run(connection, row, prices) for row in page.rows], page.next_cursor)


def get_run(connection: Connection, task_id: str, prices: Prices) -> Record:
    """Return the run that a task belongs to. Raises NotFound."""
    statement = select(*COLUMNS).where(Task.task_id == root_of(connection, task_id))
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise task_not_found(task_id)
    return _with_run(connection, row, prices)


def _with_run(connection: Connection, task: Any, prices: Prices) -> Record:
    run = run_of(connection, task["task_id"], prices)
    return {**task, **run, "open": sum(run["counts"].get(state, 0) for state in OPEN)}
