"""What becomes of a fan-out: its tasks are waited for, and what follows from all of them together is recorded once.

A join is looked at by a job whenever one of its tasks has changed, and by another one at its deadline. Its row is locked
before the tasks are counted: of the two that come last at the same time, neither would see the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, exists, func, select, update

from models import Artifact, FollowUp, Join, Response, Task
from pipeline.db.dialect import from_now, insert
from pipeline.db.ids import utcnow
from pipeline.events import outbox
from pipeline.follow_ups.pauses import paused_workflows
from pipeline.follow_ups.recording import enqueue_within_limits, insert_follow_ups
from pipeline.follow_ups.views import TaskSnapshot, load_parent, load_snapshot
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job, RetryLater
from pipeline.service import Service
from workflows.definition.model import RECALLED, Step, Workflow
from workflows.planning.joins import (
    WAIT,
    Child,
    NewJoin,
    Verdict,
    decide_join,
    joins_for,
    plan_join,
    results_needed,
)
from workflows.planning.plan import PlannedFollowUp as Wanted
from workflows.planning.view import view

JOINS = cast(Table, Join.__table__)
FOLLOW_UPS = cast(Table, FollowUp.__table__)
JOIN_KEY = (
    FOLLOW_UPS.c.workflow,
    FOLLOW_UPS.c.step,
    FOLLOW_UPS.c.source_task_id,
    FOLLOW_UPS.c.source_annotation,
)
"""Where a follow-up stands: what the joins that wait for it are found by."""
PAUSED_RETRY_SECONDS = 600.0
COUNT_FIRST_ABOVE = 200
"""Children from which on they are counted before they are looked at."""
RETRY = FOLLOW_UPS.c.attempt > 1


class Opened(NamedTuple):
    """Joins that were opened or taken up again; `ask_for` them as the last thing of the transaction."""

    waiting: list[str]
    deadlines: list[NewJoin]


def open_joins(
    connection: Connection, workflow: Workflow, opened: Sequence[NewJoin], response_id: UUID | None
) -> Opened:
    """Wait for what was fanned out, now that its plan has ended. A join that is open already takes in what is new."""
    rows = [_row(workflow, opening, response_id) for opening in sorted(opened)]
    new: set[str] = set()
    for start in range(0, len(rows), 500):
        statement = insert(connection, JOINS).values(rows[start : start + 500])
        statement = statement.on_conflict_do_nothing(index_elements=["id"]).returning(JOINS.c.id)
        new.update(connection.scalars(statement))
    waiting: list[str] = []
    for row in rows:
        counted = select(func.count()).where(_children_of(row), ~RETRY).scalar_subquery()
        still_open = update(JOINS).where(JOINS.c.id == row["id"], JOINS.c.fired_at.is_(None))
        statement = still_open.values(expected=counted, source_response_id=response_id)
        waiting += connection.scalars(statement.returning(JOINS.c.id))
    deadlines = [opening for opening in opened if opening.key in new and opening.within is not None]
    return Opened(waiting, deadlines)


def enqueue_joins(connection: Connection, opened: Iterable[Opened]) -> None:
    """Jobs come last in the one order in which rows are locked: follow-ups, joins, counters of limits, jobs."""
    for waiting, deadlines in opened:
        queue.enqueue(connection, kinds.JOIN, waiting)
        for opening in deadlines:
            queue.enqueue(connection, kinds.DEADLINE, [opening.key], delay=opening.within or 0)


def _row(workflow: Workflow, opening: NewJoin, response_id: UUID | None) -> dict[str, Any]:
    step = workflow.step(opening.step)
    assert step is not None
    assert step.after is not None
    awaited_step = workflow.step(step.after.step[0])
    return {
        "id": opening.key,
        "workflow": opening.workflow,
        "step": opening.step,
        "awaited_step": step.after.step[0],
        "source_task_id": opening.source_task_id,
        "source_response_id": response_id,
        "source_annotation": opening.part,
        "per_response": awaited_step is not None and awaited_step.each_response,
        "opened_at": from_now(),
        "deadline": None if opening.within is None else from_now(opening.within),
    }


def recheck_joins(connection: Connection, follow_up: Mapping[Any, Any]) -> list[UUID]:
    """A follow-up (its PLACE is asked for) has changed: ask for the joins that wait for it."""
    waiting = select(JOINS.c.id).where(
        JOINS.c.source_task_id == follow_up["source_task_id"],
        JOINS.c.workflow == follow_up["workflow"],
        JOINS.c.awaited_step == follow_up["step"],
        JOINS.c.fired_at.is_(None),
        JOINS.c.source_annotation.is_(None)
        | JOINS.c.source_annotation.is_not_distinct_from(follow_up["source_annotation"]),
    )
    return queue.enqueue(connection, kinds.JOIN, connection.scalars(waiting))


def close(connection: Connection, task_id: str, workflow: str, steps: Sequence[str]) -> None:
    """These steps' follow-ups of a recalled task are taken back: a new answer will open their joins again."""
    theirs = (
        JOINS.c.source_task_id == task_id,
        JOINS.c.workflow == workflow,
        JOINS.c.awaited_step.in_(steps),
    )
    connection.execute(JOINS.delete().where(*theirs, JOINS.c.fired_at.is_(None)))


def evaluate_join(service: Service, job: Job) -> int:
    """Look at a join: it waits, or it fires, once for ever, and what follows is recorded; how many follow-ups."""
    with service.reader.begin() as connection:
        join = connection.execute(select(JOINS).where(JOINS.c.id == job.subject)).mappings().one_or_none()
        if join is not None and join["fired_at"] is None:
            workflow, step = _of(connection, service, join)
            children = _children(connection, join) if _may_fire(connection, join, step) else None
    if join is None or join["fired_at"] is not None:
        return _nothing(service, job)
    verdict = None
    if children is not None:
        verdict = decide_join(workflow, step, [_child(row) for row in children], _left(join) <= 0)
    if verdict is None or verdict.do == WAIT:
        if job.kind == kinds.DEADLINE and _left(join) > 0:
            raise RetryLater("the deadline was moved", _left(join))
        return _nothing(service, job)
    seen, wanted, outcome = _plan(service, workflow, step, join, verdict)
    with service.engine.begin() as connection:
        locked = connection.execute(select(JOINS).where(JOINS.c.id == job.subject).with_for_update())
        if (still := locked.mappings().one_or_none()) is None or still["fired_at"] is not None:
            queue.finish(connection, job)
            return 0
        if still != join or _children(connection, join) != children:
            queue.enqueue(connection, job.kind, [job.subject])  # something has changed meanwhile: once more
            queue.finish(connection, job)
            return 0
        new = insert_follow_ups(connection, service, seen, wanted)
        fired = update(JOINS).where(JOINS.c.id == job.subject)
        connection.execute(fired.values(fired_at=utcnow(), **outcome))
        fanned_out = joins_for(wanted, workflow, service.settings.unique_id_prefix)
        opened = open_joins(connection, workflow, fanned_out, seen.response_id)
        enqueue_within_limits(connection, service, seen.view.environment, new.planned)
        outbox.publish_follow_ups(connection, service.subscriptions, new.unique_ids)
        enqueue_joins(connection, [opened])
        queue.finish(connection, job)
        outbox.enqueue_run_check(connection, service.subscriptions, join["source_task_id"])
    return len(new.unique_ids)


def _nothing(service: Service, job: Job) -> int:
    with service.engine.begin() as connection:
        queue.finish(connection, job)
    return 0


def recheck_workflow_joins(connection: Connection, workflow: str) -> list[UUID]:
    """The workflow is not paused any more: look at its joins."""
    waiting = select(JOINS.c.id).where(JOINS.c.workflow == workflow, JOINS.c.fired_at.is_(None))
    return queue.enqueue(connection, kinds.JOIN, connection.scalars(waiting))


def _of(connection: Connection, service: Service, join: RowMapping) -> tuple[Workflow, Step]:
    """The step that waits. Raises Wait while its workflow is paused, broken or gone."""
    workflow = service.workflows.workflow(join["workflow"])
    step = workflow.step(join["step"]) if workflow else None
    if workflow is None or step is None or step.join is None or step.after is None:
        raise RetryLater(
            f"the step {join['workflow']}.{join['step']} is not among the workflows", PAUSED_RETRY_SECONDS
        )
    if workflow.name in paused_workflows(connection, service):
        raise RetryLater(f"{workflow.name} is paused", PAUSED_RETRY_SECONDS)
    return workflow, step


def _left(join: RowMapping) -> float:
    """Seconds to the deadline."""
    return (join["deadline"] - utcnow()).total_seconds() if join["deadline"] is not None else float("inf")


def _plan(
    service: Service, workflow: Workflow, step: Step, join: RowMapping, verdict: Verdict
) -> tuple[TaskSnapshot, tuple[Wanted, ...], dict[str, Any]]:
    """What follows from the results of a join, and what its row says of it."""
    response_id = join["source_response_id"]
    with service.reader.begin() as connection:
        source = load_parent(connection, join["source_task_id"], response_id)
        whole = [
            child._replace(view=seen.view)
            for child in verdict.children
            if child.view and (seen := load_snapshot(connection, child.view.task_id, parents=False))
        ]
    assert source is not None
    outcome: dict[str, Any] = {"verdict": verdict.do, "reason": verdict.why, "result": None}
    seen = TaskSnapshot(source, (), response_id)
    if verdict.do == "stop":
        return seen, (), outcome
    verdict = verdict._replace(children=tuple(whole))
    joined = plan_join(source, workflow, step, verdict, join["id"], service.settings.unique_id_prefix)
    if joined.reason is not None:
        outcome["reason"] = f"{verdict.why}; {joined.reason}"
    return seen, joined.follow_ups, {**outcome, "result": joined.reduced}


# The children of a join.


def _children_of(join: Mapping[Any, Any]) -> ColumnElement[bool]:
    theirs = [
        FOLLOW_UPS.c.source_task_id == join["source_task_id"],
        FOLLOW_UPS.c.workflow == join["workflow"],
        FOLLOW_UPS.c.step == join["awaited_step"],
    ]
    if join["source_annotation"] is not None:
        theirs.append(FOLLOW_UPS.c.source_annotation == join["source_annotation"])
    if join["per_response"]:
        theirs.append(FOLLOW_UPS.c.source_response_id == join["source_response_id"])
    return and_(*theirs)


def pending_children(connection: Connection, task_id: str, workflow: Workflow) -> dict[str, list[Child]]:
    """step with a `join` → the follow-ups of this task that it waits for: of the join that is still open, if one is."""
    found: dict[str, list[Child]] = {}
    theirs = select(JOINS).where(JOINS.c.source_task_id == task_id, JOINS.c.workflow == workflow.name)
    for join in connection.execute(theirs.order_by(JOINS.c.fired_at.is_not(None), JOINS.c.id)).mappings():
        if join["step"] not in found:
            found[join["step"]] = [_child(row) for row in _children(connection, join)]
    return found


def _may_fire(connection: Connection, join: RowMapping, step: Step) -> bool:
    """Whether it is worth looking at each child: a wide fan-out is asked about as often as it has children."""
    assert step.join is not None
    assert step.after is not None
    if join["expected"] is None:
        return False
    if join["expected"] <= COUNT_FIRST_ABOVE or _left(join) <= 0 or RECALLED in step.after.state:
        return True
    coming = FOLLOW_UPS.c.state.in_(("planned", "held", "created"))
    counts = select(func.count().filter(coming), func.count().filter(RETRY)).where(_children_of(join))
    open_ones, retries = connection.execute(counts).one()
    ended = join["expected"] - max(0, open_ones - retries)
    return open_ones == 0 or ended >= results_needed(step.join, join["expected"])


def _children(connection: Connection, join: RowMapping) -> Sequence[RowMapping]:
    """Every follow-up that is waited for, with as much of its task as tells how it stands."""
    unread = exists().where(Artifact.response_id == Task.response_id, Artifact.state == "pending")
    columns = (
        FOLLOW_UPS.c.unique_id,
        FOLLOW_UPS.c.state,
        FOLLOW_UPS.c.attempt,
        FOLLOW_UPS.c.first_unique_id,
        Task.task_id,
        Task.status,
        Task.review_status,
        Task.response_id,
        Task.latest_response_id,
        Response.error,
        unread.label("unread"),
    )
    statement = (
        select(*columns)
        .select_from(FOLLOW_UPS)
        .outerjoin(Task, Task.task_id == FOLLOW_UPS.c.task_id)
        .outerjoin(Response, Response.id == Task.response_id)
        .where(_children_of(join))
        .order_by(FOLLOW_UPS.c.unique_id)
    )
    return connection.execute(statement).mappings().all()


def _child(row: RowMapping) -> Child:
    """Return a child without its result: enough to decide whether it is there."""
    child = Child(row["unique_id"], row["state"], None, row["attempt"], row["first_unique_id"])
    if row["task_id"] is None or row["unread"]:
        return child
    seen = view(
        {"task_id": row["task_id"], "status": row["status"]},
        None if row["response_id"] is None else row["error"] or {},
        recalled=row["latest_response_id"] is not None and row["response_id"] is None,
        review=row["review_status"],
    )
    return child._replace(view=seen)
