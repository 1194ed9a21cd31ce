"""Lineage: the ancestors of a task up to the first one, its descendants, and the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from more_itertools import chunked
from sqlalchemy import Connection, RowMapping, Text, case, cast, func, select

from models import FollowUp, Join, Response, Task
from pipeline.db.sizes import if_small
from pipeline.follow_ups.joins import described
from pipeline.follow_ups.runs import run_of
from workflows.definition.money import Prices

MAX_DESCENDANTS = 10_000
"""Descendants that are returned."""
MAX_ANSWER_LENGTH = 300
"""Characters of an answer, as JSON, that is shown with a descendant."""
MAX_RESULT_CHARACTERS = 16 * 1024
"""Characters of a reducer's result, as JSON, that is shown with a join."""
ID_BATCH_SIZE = 500

Row = dict[str, Any]


def lineage(
    connection: Connection, task_id: str, prices: Prices, *, annotation: str | None = None
) -> Row | None:
    """Return {task_id, ancestors, descendants, truncated, joins, run}, or None for an unknown task.

    ancestors: from the first task down to this one, each with its attachment and the follow-up that created it
    (`source`). descendants: follow-ups, nearest first, with the state of their tasks; with `annotation` (a uuid or a
    digest) only those that follow from it. joins, run: of all tasks of the run, whatever `annotation` is.
    """
    ancestors = _up(connection, task_id)
    if not ancestors:
        return None
    descendants, truncated = _down(connection, task_id, annotation)
    root = ancestors[0]["task_id"]
    everything = descendants if root == task_id and annotation is None else _down(connection, root, None)[0]
    ids = [root, *(row["task_id"] for row in everything if row["task_id"] is not None)]
    return {
        "task_id": task_id,
        "ancestors": ancestors,
        "descendants": descendants,
        "truncated": truncated,
        "joins": _joins(connection, ids),
        "run": run_of(connection, root, prices),
    }


def _up(connection: Connection, task_id: str | None) -> list[Row]:
    found: list[Row] = []
    seen: set[str] = set()
    while task_id is not None and task_id not in seen:
        seen.add(task_id)
        statement = (
            select(
                Task.task_id,
                Task.type,
                Task.status,
                Task.params["attachment"].label("attachment"),
                Task.params["attachments"].label("attachments"),
                FollowUp.unique_id,
                FollowUp.workflow,
                FollowUp.step,
                FollowUp.source_task_id,
                FollowUp.source_annotation,
            )
            .outerjoin(FollowUp, FollowUp.unique_id == Task.follow_up_unique_id)
            .where(Task.task_id == task_id)
        )
        row = connection.execute(statement).mappings().one_or_none()
        if row is None:
            break
        source = None
        if row["unique_id"] is not None:
            source = {name: row[name] for name in ("unique_id", "workflow", "step")}
            source |= {"task_id": row["source_task_id"], "annotation": row["source_annotation"]}
        attachment = row["attachments"] if row["attachment"] is None else row["attachment"]
        found.append(
            {
                **{name: row[name] for name in ("task_id", "type", "status")},
                "attachment": attachment,
                "source": source,
            }
        )
        task_id = row["source_task_id"]
    return found[::-1]


def _down(connection: Connection, task_id: str, annotation: str | None) -> tuple[list[Row], bool]:
    """Return the follow-ups below a task, level by level, at most MAX_DESCENDANTS, and whether there are more."""
    found: list[Row] = []
    seen, level, depth = {task_id}, [task_id], 0
    while level:
        depth += 1
        children: list[str] = []
        for sources in chunked(level, ID_BATCH_SIZE):
            rows = _follow_ups(
                connection, sources, annotation if depth == 1 else None, MAX_DESCENDANTS + 1 - len(found)
            )
            found += [{**row, "depth": depth} for row in rows]
            children += [row["task_id"] for row in rows if row["task_id"] is not None]
            if len(found) > MAX_DESCENDANTS:
                return found[:MAX_DESCENDANTS], True
        level = [child for child in dict.fromkeys(children) if child not in seen]
        seen.update(level)
    return found, False


def _follow_ups(
    connection: Connection, sources: Sequence[str], annotation: str | None, limit: int
) -> Sequence[RowMapping]:
    statement = (
        select(
            FollowUp.unique_id,
            FollowUp.workflow,
            FollowUp.step,
            FollowUp.state,
            FollowUp.reason,
            FollowUp.task_id,
            FollowUp.source_task_id,
            FollowUp.source_annotation,
            FollowUp.task_type,
            FollowUp.planned_at,
            Task.status.label("task_status"),
            Task.review_status.label("review"),
            case((func.length(cast(Response.answer, Text)) <= MAX_ANSWER_LENGTH, Response.answer)).label(
                "answer"
            ),
        )
        .outerjoin(Task, Task.task_id == FollowUp.task_id)
        .outerjoin(Response, Response.id == Task.response_id)
        .where(FollowUp.source_task_id.in_(sources))
    )
    if annotation is not None:
        statement = statement.where(FollowUp.source_annotation == annotation)
    return connection.execute(statement.order_by(FollowUp.id).limit(limit)).mappings().all()


def _joins(connection: Connection, ids: Sequence[str]) -> list[Row]:
    found: list[Row] = []
    for some in chunked(ids, ID_BATCH_SIZE):
        columns = (column for column in Join.__table__.c if column.key != "result")
        result = if_small(Join.result, MAX_RESULT_CHARACTERS)
        statement = select(*columns, result).where(Join.source_task_id.in_(some))
        ordered = statement.order_by(Join.opened_at, Join.id)
        found += [described(join) for join in connection.execute(ordered).mappings()]
    return found
