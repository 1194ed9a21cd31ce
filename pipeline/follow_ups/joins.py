"""Joins: wait for all tasks of a fan-out, then plan the joined step exactly once.

A join is evaluated by a job whenever one of its tasks changes, and by another one at its deadline. Its row is locked before
the tasks are counted; otherwise two jobs that finish last at the same time would not see each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, exists, func, select, update

from models import Artifact, FollowUp, Join, Response, Task
from pipeline.db.dialect import from_now, insert
from pipeline.db.follow_up_states import CANCELED
from pipeline.db.ids import utcnow
from pipeline.events import outbox
from pipeline.events.subscriptions import JOIN, Subscriptions, has_subscriber
from pipeline.follow_ups.pauses import paused_workflows
from pipeline.follow_ups.recording import close_incomplete, enqueue_within_limits, insert_follow_ups
from pipeline.follow_ups.views import TaskSnapshot, load_parent, load_snapshot
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job, RetryLater
from pipeline.service import Service
from workflows.definition.model import RECALLED, Step, Workflow
from workflows.planning.joins import (
    FIRE,
    HOLD,
    WAIT,
    Child,
    JoinOutcome,
    NewJoin,
    Verdict,
    conclusion,
    decide_join,
    joins_for,
    plan_join,
    results_needed,
)
from workflows.planning.plan import PlannedFollowUp
from workflows.planning.view import view

JOINS = cast(Table, Join.__table__)
FOLLOW_UPS = cast(Table, FollowUp.__table__)
JOIN_KEY = (
    FOLLOW_UPS.c.workflow,
    FOLLOW_UPS.c.step,
    FOLLOW_UPS.c.source_task_id,
    FOLLOW_UPS.c.source_annotation,
)
"""Columns of a follow-up by which the joins that wait for it are found."""
PAUSED_RETRY_SECONDS = 600.0
BATCH_SIZE = 500
MAX_MEMBERS = 1_000
"""Members of a join that are shown."""
COUNT_FIRST_ABOVE = 200
"""Number of children above which they are counted before they are loaded."""
IS_RETRY = FOLLOW_UPS.c.attempt > 1


class Opened(NamedTuple):
    """Joins that were opened or extended. `enqueue_joins` enqueues them at the end of the transaction."""

    waiting: list[str]
    deadlines: list[NewJoin]


def open_joins(
    connection: Connection, workflow: Workflow, due: Sequence[NewJoin], response_id: UUID | None
) -> Opened:
    """Open the joins over a fan-out whose plan has ended. One that is open already takes in the new children."""
    rows = [_row(workflow, join, response_id) for join in sorted(due)]
    new: set[str] = set()
    for batch in chunked(rows, BATCH_SIZE):
        statement = insert(connection, JOINS).values(batch)
        statement = statement.on_conflict_do_nothing(index_elements=["id"]).returning(JOINS.c.id)
        new.update(connection.scalars(statement))
    waiting: list[str] = []
    for row in rows:
        children = select(func.count()).where(_children_of(row), ~IS_RETRY).scalar_subquery()
        still_open = update(JOINS).where(JOINS.c.id == row["id"], JOINS.c.fired_at.is_(None))
        statement = still_open.values(expected=children, source_response_id=response_id)
        waiting += connection.scalars(statement.returning(JOINS.c.id))
    deadlines = [join for join in due if join.key in new and join.within is not None]
    return Opened(waiting, deadlines)


def enqueue_joins(connection: Connection, opened: Iterable[Opened]) -> None:
    """Enqueue the jobs last, in the one order in which rows are locked: follow-ups, joins, counters of limits, jobs."""
    for waiting, deadlines in opened:
        queue.enqueue(connection, kinds.JOIN, waiting)
        for join in deadlines:
            queue.enqueue(connection, kinds.DEADLINE, [join.key], delay=join.within or 0)


def _row(workflow: Workflow, join: NewJoin, response_id: UUID | None) -> dict[str, Any]:
    step = workflow.step(join.step)
    assert step is not None
    assert step.after is not None
    awaited_step = workflow.step(step.after.step[0])
    return {
        "id": join.key,
        "workflow": join.workflow,
        "step": join.step,
        "awaited_step": step.after.step[0],
        "source_task_id": join.source_task_id,
        "source_response_id": response_id,
        "source_annotation": join.part,
        "per_response": awaited_step is not None and awaited_step.each_response,
        "opened_at": from_now(),
        "deadline": None if join.within is None else from_now(join.within),
    }


def recheck_joins(connection: Connection, follow_up: Mapping[Any, Any]) -> list[UUID]:
    """Enqueue the joins that wait for a follow-up, given by its JOIN_KEY, because it has changed."""
    waiting = select(JOINS.c.id).where(
        JOINS.c.source_task_id == follow_up["source_task_id"],
        JOINS.c.workflow == follow_up["workflow"],
        JOINS.c.awaited_step == follow_up["step"],
        JOINS.c.fired_at.is_(None),
        JOINS.c.source_annotation.is_(None)
        | JOINS.c.source_annotation.is_not_distinct_from(follow_up["source_annotation"]),
    )
    return queue.enqueue(connection, kinds.JOIN, connection.scalars(waiting))


def recheck_workflow_joins(connection: Connection, workflow: str) -> list[UUID]:
    """Enqueue the open joins of a workflow that was resumed."""
    waiting = select(JOINS.c.id).where(JOINS.c.workflow == workflow, JOINS.c.fired_at.is_(None))
    return queue.enqueue(connection, kinds.JOIN, connection.scalars(waiting))


def close_joins(connection: Connection, task_id: str, workflow: str, steps: Sequence[str]) -> None:
    """Delete the open joins over these steps of a recalled task: a new response opens them again."""
    of_task = (
        JOINS.c.source_task_id == task_id,
        JOINS.c.workflow == workflow,
        JOINS.c.awaited_step.in_(steps),
    )
    connection.execute(JOINS.delete().where(*of_task, JOINS.c.fired_at.is_(None)))


def evaluate_join(service: Service, job: Job) -> int:
    """Decide whether a join waits or fires, which it does once, and store what follows. Returns how many are new.

    A join whose step uses a missing file of one of its results does not fire: its follow-up is held, and the join is
    evaluated again with the file.
    """
    with service.reader.begin() as connection:
        join = connection.execute(select(JOINS).where(JOINS.c.id == job.subject)).mappings().one_or_none()
        if join is not None and join["fired_at"] is None:
            workflow, step = _find_step(connection, service, join)
            children = _children(connection, join) if _may_fire(connection, join, step) else None
    if join is None or join["fired_at"] is not None:
        return _finish(service, job)
    verdict = None
    if children is not None:
        verdict = decide_join(workflow, step, [_child(row) for row in children], _seconds_left(join) <= 0)
    if verdict is None or verdict.do == WAIT:
        if job.kind == kinds.DEADLINE and _seconds_left(join) > 0:
            raise RetryLater("the deadline was moved", _seconds_left(join))
        return _finish(service, job)
    snapshot, outcome = _plan(service, workflow, step, join, verdict)
    subscriptions = service.subscriptions
    with service.engine.begin() as connection:
        locked = connection.execute(select(JOINS).where(JOINS.c.id == job.subject).with_for_update())
        current = locked.mappings().one_or_none()
        if current is None or current["fired_at"] is not None:
            queue.finish(connection, job)
            return 0
        if current != join or _children(connection, join) != children:
            queue.enqueue(connection, job.kind, [job.subject])  # something changed meanwhile: evaluate again
            queue.finish(connection, job)
            return 0
        new = _store(connection, service, subscriptions, workflow, join, snapshot, verdict, outcome)
        queue.finish(connection, job)
        outbox.enqueue_run_check(connection, subscriptions, join["source_task_id"])
    return new


def _store(
    connection: Connection, service: Service, subscriptions: Subscriptions, workflow: Workflow, join: RowMapping,
    snapshot: TaskSnapshot, verdict: Verdict, outcome: JoinOutcome,
) -> int:  # fmt: skip
    """Store what a join came to. Returns how many follow-ups are new."""
    follow_ups = outcome.follow_ups
    new = insert_follow_ups(connection, service, snapshot, follow_ups)
    obsolete = close_incomplete(connection, join["source_task_id"], workflow.name, [join["step"]], follow_ups)
    columns = _columns(verdict, outcome)
    connection.execute(update(JOINS).where(JOINS.c.id == join["id"]).values(**columns))
    due = joins_for(follow_ups, workflow, service.settings.unique_id_prefix)
    opened = open_joins(connection, workflow, due, snapshot.response_id)
    enqueue_within_limits(connection, service, snapshot.view.environment, new.to_create)
    outbox.publish_follow_ups(connection, subscriptions, [*new.unique_ids, *obsolete])
    if "fired_at" in columns and has_subscriber(subscriptions, JOIN):
        _publish_finished(connection, subscriptions, {**join, **columns})
    enqueue_joins(connection, [opened])
    return len(new.unique_ids)


def _publish_finished(connection: Connection, subscriptions: Subscriptions, join: Mapping[str, Any]) -> None:
    """Publish join.finished, with the join as the API shows it."""
    data = {**described(join), "members": members_of(connection, join)}
    key = f"{join['id']}:{join['fired_at']:%Y-%m-%dT%H:%M:%S.%f}"
    project = connection.scalar(select(Task.project).where(Task.task_id == join["source_task_id"]))
    about = {"workflow": (join["workflow"],), "step": (join["step"],), "project": (project,)}
    outbox.publish(connection, subscriptions, f"{JOIN}.finished", key, data, about=about)


DESCRIBED = (
    "id", "workflow", "step", "awaited_step", "source_task_id", "source_annotation", "expected", "opened_at",
    "deadline", "fired_at", "reason", "result",
)  # fmt: skip
"""Columns of a join that people see under their own names."""


def described(join: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a join as the API and events show it: `outcome` is what was done, `verdict` its result."""
    shown = {name: join[name] for name in DESCRIBED}
    return {**shown, "outcome": join["verdict"], "verdict": join["conclusion"]}


def members_of(connection: Connection, join: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return the follow-ups that a join waits for: {unique_id, state, attempt, task_id, task_status, review}."""
    statement = (
        select(
            FOLLOW_UPS.c.unique_id,
            FOLLOW_UPS.c.state,
            FOLLOW_UPS.c.attempt,
            FOLLOW_UPS.c.task_id,
            Task.status.label("task_status"),
            Task.review_status.label("review"),
        )
        .outerjoin(Task, Task.task_id == FOLLOW_UPS.c.task_id)
        .where(_children_of(join))
        .order_by(FOLLOW_UPS.c.unique_id)
        .limit(MAX_MEMBERS)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def _columns(verdict: Verdict, outcome: JoinOutcome) -> dict[str, Any]:
    """Return the columns of a join that was decided; one that misses a file stays open."""
    if outcome.is_incomplete:
        return {"reason": outcome.reason}
    reason = verdict.why if outcome.reason is None else f"{verdict.why}; {outcome.reason}"
    return {
        "fired_at": utcnow(),
        "verdict": verdict.do,
        "conclusion": conclusion(verdict, outcome.reduced),
        "reason": reason,
        "result": outcome.reduced,
    }


def _finish(service: Service, job: Job) -> int:
    with service.engine.begin() as connection:
        queue.finish(connection, job)
    return 0


def _find_step(connection: Connection, service: Service, join: RowMapping) -> tuple[Workflow, Step]:
    """Return the step that waits. Raises RetryLater while its workflow is paused, invalid or gone."""
    workflow = service.workflows.workflow(join["workflow"])
    step = workflow.step(join["step"]) if workflow else None
    if workflow is None or step is None or step.join is None or step.after is None:
        why = f"the step {join['workflow']}.{join['step']} is not among the workflows"
        raise RetryLater(why, PAUSED_RETRY_SECONDS)
    if workflow.name in paused_workflows(connection, service):
        raise RetryLater(f"{workflow.name} is paused", PAUSED_RETRY_SECONDS)
    return workflow, step


def _seconds_left(join: RowMapping) -> float:
    """Return the seconds to the deadline."""
    return (join["deadline"] - utcnow()).total_seconds() if join["deadline"] is not None else float("inf")


def plan_again(
    service: Service, workflow: Workflow, step: Step, follow_up: RowMapping
) -> tuple[TaskSnapshot, list[PlannedFollowUp]] | None:
    """Return what a joined step plans now in place of a follow-up of its; None if there is no join that fired."""
    fired = select(JOINS).where(
        JOINS.c.source_task_id == follow_up["source_task_id"],
        JOINS.c.workflow == workflow.name,
        JOINS.c.step == step.name,
        JOINS.c.verdict.in_((FIRE, HOLD)),
    )
    with service.reader.begin() as connection:
        found = connection.execute(fired).mappings().all()
        named = [join for join in found if f"{follow_up['unique_id']}.".startswith(f"{join['id']}.")]
        if not found:
            return None
        join = (named or found)[0]
        children = [_child(row) for row in _children(connection, join)]
    verdict = decide_join(workflow, step, children, overdue=True)._replace(do=join["verdict"])
    snapshot, outcome = _plan(service, workflow, step, join, verdict)
    return snapshot, list(outcome.follow_ups)


def _plan(
    service: Service, workflow: Workflow, step: Step, join: RowMapping, verdict: Verdict
) -> tuple[TaskSnapshot, JoinOutcome]:
    """Plan what follows from the results of a join that was decided."""
    with service.reader.begin() as connection:
        source = load_parent(connection, join["source_task_id"], join["source_response_id"])
        assert source is not None
        snapshot = TaskSnapshot(source, (), join["source_response_id"])
        if verdict.do == "stop":
            return snapshot, JoinOutcome((), None, None)
        children = [
            child._replace(view=loaded.view)
            for child in verdict.children
            if child.view and (loaded := load_snapshot(connection, child.view.task_id, parents=False))
        ]
    held = next((child.view.held for child in children if child.view and child.view.held), None)
    source = replace(source, held=held)
    snapshot = replace(snapshot, view=source)
    verdict = verdict._replace(children=tuple(children))
    return snapshot, plan_join(source, workflow, step, verdict, join["id"], service.settings.unique_id_prefix)


# The children of a join.


def _children_of(join: Mapping[Any, Any]) -> ColumnElement[bool]:
    of_join = [
        FOLLOW_UPS.c.source_task_id == join["source_task_id"],
        FOLLOW_UPS.c.workflow == join["workflow"],
        FOLLOW_UPS.c.step == join["awaited_step"],
    ]
    if join["source_annotation"] is not None:
        of_join.append(FOLLOW_UPS.c.source_annotation == join["source_annotation"])
    if join["per_response"]:
        of_join.append(FOLLOW_UPS.c.source_response_id == join["source_response_id"])
    return and_(*of_join)


def pending_children(connection: Connection, task_id: str, workflow: Workflow) -> dict[str, list[Child]]:
    """Return {step with a `join`: the follow-ups of this task that it waits for}, of the open join if there is one."""
    found: dict[str, list[Child]] = {}
    of_task = select(JOINS).where(JOINS.c.source_task_id == task_id, JOINS.c.workflow == workflow.name)
    ordered = of_task.order_by(JOINS.c.fired_at.is_not(None), JOINS.c.id)
    for join in connection.execute(ordered).mappings():
        if join["step"] not in found:
            found[join["step"]] = [_child(row) for row in _children(connection, join)]
    return found


def _may_fire(connection: Connection, join: RowMapping, step: Step) -> bool:
    """Check cheaply, by counts, whether loading the children is worth it: a fan-out is checked once for each child."""
    assert step.join is not None
    assert step.after is not None
    if join["expected"] is None:
        return False
    if join["expected"] <= COUNT_FIRST_ABOVE or _seconds_left(join) <= 0 or RECALLED in step.after.state:
        return True
    is_open = FOLLOW_UPS.c.state.in_(("planned", "held", "created"))
    counts = select(func.count().filter(is_open), func.count().filter(IS_RETRY)).where(_children_of(join))
    open_count, retries = connection.execute(counts).one()
    ended = join["expected"] - max(0, open_count - retries)
    return open_count == 0 or ended >= results_needed(step.join, join["expected"])


def _children(connection: Connection, join: RowMapping) -> Sequence[RowMapping]:
    """Return every follow-up of the join, with the columns of its task that decide its state."""
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
    # A canceled follow-up gives no result, although its response may say so in a task that is completed.
    status = CANCELED if row["state"] == CANCELED else row["status"]
    seen = view(
        {"task_id": row["task_id"], "status": status},
        None if row["response_id"] is None else row["error"] or {},
        recalled=row["latest_response_id"] is not None and row["response_id"] is None,
        review=row["review_status"],
    )
    return child._replace(view=seen)
