"""What people decide: whether a follow-up may cost money, whether a workflow goes on, whether anything is created at all.

Each decision is audited in its transaction. Functions that return job ids want them dispatched after the commit.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, RowMapping, select, update

from models import FollowUp, Task
from pipeline.access.audit import log_action
from pipeline.db.follow_up_states import CANCELED, CREATED, FAILED, HELD, PLANNED, transition
from pipeline.db.ids import utcnow
from pipeline.events.outbox import enqueue_run_check, publish_follow_ups
from pipeline.events.subscriptions import load_subscriptions
from pipeline.follow_ups import joins, pauses
from pipeline.jobs import kinds, queue
from workflows.planning.reasons import Reason, ReasonCode


class InvalidTransition(Exception):
    """Raised when a decision does not fit the state of its object; args[0] says why, and what would fit."""


# Follow-ups. Each function raises LookupError for an unknown unique_id, and InvalidTransition.


def approve(connection: Connection, unique_id: str, actor: str) -> list[UUID]:
    """Let a held follow-up be created, whatever it is held for: a limit, its age, `hold`.

    One that is held for a missing file has no request yet: fetch the file again, or cancel it.
    """
    follow_up = _decide(connection, unique_id, actor, "approve", (HELD,))
    if follow_up["reason_code"] == ReasonCode.INCOMPLETE:
        raise InvalidTransition(
            f"a result file is missing ({follow_up['reason']}); retry the file with `weighbridge artifacts retry`"
        )
    return _create(connection, follow_up)


def cancel(connection: Connection, unique_id: str, actor: str) -> list[UUID]:
    """Cancel a follow-up that is not created yet; one that was created is canceled at Scale by a job."""
    follow_up = _decide(connection, unique_id, actor, "cancel", (HELD, PLANNED, CREATED))
    if follow_up["state"] == CREATED:
        return queue.enqueue(connection, kinds.CANCEL, [unique_id])
    reason = Reason(ReasonCode.PERSON, f"canceled by {actor}")
    transition(connection, [unique_id], CANCELED, reason)
    job_ids = [*_publish_change(connection, unique_id), *joins.recheck_joins(connection, follow_up)]
    check = enqueue_run_check(connection, load_subscriptions(connection), follow_up["source_task_id"])
    return [*job_ids, *check]


def retry(connection: Connection, unique_id: str, actor: str) -> list[UUID]:
    """Create a follow-up again that Scale refused, or whose job is dead, with the same unique_id."""
    return _create(connection, _decide(connection, unique_id, actor, "retry", (FAILED, PLANNED)))


def _create(connection: Connection, follow_up: RowMapping) -> list[UUID]:
    unique_id = follow_up["unique_id"]
    source = select(Task.purged_at).where(Task.task_id == follow_up["source_task_id"])
    if (purged_at := connection.scalar(source)) is not None:
        raise InvalidTransition(
            f"its source and its request were purged on {purged_at:%Y-%m-%d}; nothing can be created from them"
        )
    transition(connection, [unique_id], PLANNED)
    job_ids = queue.enqueue(connection, kinds.CREATE, [unique_id], queue=follow_up["environment"])
    return [*_publish_change(connection, unique_id), *job_ids]


def _publish_change(connection: Connection, unique_id: str) -> list[UUID]:
    """Publish the new state. Subscriptions are read again, because decisions are rarer than the cache is refreshed."""
    return publish_follow_ups(connection, load_subscriptions(connection), [unique_id])


def _decide(
    connection: Connection, unique_id: str, actor: str, action: str, states: tuple[str, ...]
) -> RowMapping:
    """Lock the follow-up, store who decided, and audit it. Returns the follow-up as it was before."""
    columns = FollowUp.__table__.c
    statement = select(
        columns.unique_id,
        columns.state,
        columns.reason_code,
        columns.reason,
        columns.environment,
        *joins.JOIN_KEY,
    )
    follow_up = (
        connection.execute(statement.where(columns.unique_id == unique_id).with_for_update())
        .mappings()
        .one_or_none()
    )
    if follow_up is None:
        raise LookupError(f"there is no follow-up {unique_id}")
    state = follow_up["state"]
    if state not in states:
        raise InvalidTransition(f"the follow-up is {state}; {action} takes one that is {' or '.join(states)}")
    decided = update(FollowUp).where(FollowUp.unique_id == unique_id)
    connection.execute(decided.values(decided_by=actor, decided_at=utcnow()))
    log_action(connection, actor, f"follow-up.{action}", unique_id, {"state": state})
    return follow_up


# Workflows. A paused one plans nothing; the tasks that it would have planned are recorded.


def pause(connection: Connection, workflow: str, actor: str) -> None:
    """Plan nothing for this workflow until it is resumed. What is planned already goes on."""
    if pauses.pause_workflow(connection, workflow, actor):
        log_action(connection, actor, "workflow.pause", workflow)


def resume(connection: Connection, workflow: str, actor: str) -> list[UUID]:
    """Plan again, beginning with the tasks that changed during the pause."""
    pauses.unpause_workflow(connection, workflow)
    job_ids = pauses.replay_missed(connection, pauses.MissedBy("workflow", workflow))
    log_action(connection, actor, "workflow.resume", workflow, {"tasks": len(job_ids)})
    return job_ids + joins.recheck_workflow_joins(connection, workflow)


# Creation of tasks at Scale.


def pause_creation(connection: Connection, actor: str) -> None:
    """Create nothing until resumed. Receiving and planning go on."""
    if pauses.insert_creation_pauses(connection, actor):
        log_action(connection, actor, "creation.pause", "creation")


def resume_creation(connection: Connection, actor: str) -> None:
    """Create again. Waiting jobs run within a minute."""
    if pauses.delete_creation_pauses(connection):
        log_action(connection, actor, "creation.resume", "creation")
