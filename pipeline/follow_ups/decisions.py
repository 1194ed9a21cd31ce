"""What people decide: whether a follow-up may cost money, whether a workflow goes on, whether anything is created at all.

Each is written to the audit log in the same transaction. What returns job ids wants them rung for after the commit.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping, select, update

from models import FollowUp
from pipeline.access.audit import log_action
from pipeline.db.ids import format_timestamp, utcnow
from pipeline.db.state import delete_state, get_state, set_state
from pipeline.events.outbox import enqueue_run_check, publish_follow_ups
from pipeline.events.subscriptions import load_subscriptions
from pipeline.follow_ups import joins
from pipeline.follow_ups.pauses import PAUSED, STOPPED, replay_missed
from pipeline.jobs import kinds, queue


class InvalidTransition(Exception):
    """The decision does not fit the state that things are in; args[0] says why, and what would."""


# Follow-ups. Each raises LookupError for a unique_id that is not known, and OutOfPlace.


def approve(connection: Connection, unique_id: str, actor: str) -> list[UUID]:
    """A held follow-up may be created, whatever it was held for: limits, age, `hold`."""
    follow_up = _decide(connection, unique_id, actor, "approve", ("held",), state="planned", reason=None)
    job_ids = queue.enqueue(connection, kinds.CREATE, [unique_id], queue=follow_up["environment"])
    return [*_publish_change(connection, unique_id), *job_ids]


def cancel(connection: Connection, unique_id: str, actor: str) -> list[UUID]:
    """A follow-up that is held or planned is never created; one that was created is canceled at Scale by a job."""
    follow_up = _decide(connection, unique_id, actor, "cancel", ("held", "planned", "created"))
    if follow_up["state"] == "created":
        return queue.enqueue(connection, kinds.CANCEL, [unique_id])
    connection.execute(
        update(FollowUp)
        .where(FollowUp.unique_id == unique_id)
        .values(state="canceled", reason=f"canceled by {actor}")
    )
    job_ids = [*_publish_change(connection, unique_id), *joins.recheck_joins(connection, follow_up)]
    return [
        *job_ids,
        *enqueue_run_check(connection, load_subscriptions(connection), follow_up["source_task_id"]),
    ]


def retry(connection: Connection, unique_id: str, actor: str) -> list[UUID]:
    """A follow-up that Scale refused, or that its workers gave up, is tried again with the same unique_id."""
    follow_up = _decide(
        connection, unique_id, actor, "retry", ("failed", "planned"), state="planned", reason=None
    )
    job_ids = queue.enqueue(connection, kinds.CREATE, [unique_id], queue=follow_up["environment"])
    return [*_publish_change(connection, unique_id), *job_ids]


def _publish_change(connection: Connection, unique_id: str) -> list[UUID]:
    """Subscribers hear of it: asked anew, since people decide more seldom than this process remembers who they are."""
    return publish_follow_ups(connection, load_subscriptions(connection), [unique_id])


def _decide(
    connection: Connection, unique_id: str, actor: str, action: str, fitting: tuple[str, ...], **values: Any
) -> RowMapping:
    """Lock the row and write the decision; the follow-up as it was before."""
    columns = FollowUp.__table__.c
    found = (
        select(columns.state, columns.environment, *joins.JOIN_KEY)
        .where(columns.unique_id == unique_id)
        .with_for_update()
    )
    follow_up = connection.execute(found).mappings().one_or_none()
    if follow_up is None:
        raise LookupError(f"there is no follow-up {unique_id}")
    state = follow_up["state"]
    if state not in fitting:
        raise InvalidTransition(
            f"the follow-up is {state}; {action} takes one that is {' or '.join(fitting)}"
        )
    connection.execute(
        update(FollowUp)
        .where(FollowUp.unique_id == unique_id)
        .values(decided_by=actor, decided_at=utcnow(), **values)
    )
    log_action(connection, actor, f"follow-up.{action}", unique_id, {"state": state})
    return follow_up


# Workflows. A paused one plans nothing; the tasks that it would have looked at wait with their ids.


def pause(connection: Connection, workflow: str, actor: str) -> None:
    """Plan nothing for this workflow until it is resumed. What is planned already goes on."""
    if get_state(connection, PAUSED + workflow) is None:
        set_state(connection, PAUSED + workflow, {"actor": actor, "at": format_timestamp(utcnow())})
        log_action(connection, actor, "workflow.pause", workflow)


def resume(connection: Connection, workflow: str, actor: str) -> list[UUID]:
    """Plan again, and first of all for the tasks that changed during the pause."""
    delete_state(connection, PAUSED + workflow)
    job_ids = replay_missed(connection, workflow)
    log_action(connection, actor, "workflow.resume", workflow, {"tasks": len(job_ids)})
    joins.recheck_workflow_joins(connection, workflow)
    return job_ids


# Creating: the one switch.


def pause_creation(connection: Connection, actor: str) -> None:
    """Keep receiving and planning, create nothing."""
    if get_state(connection, STOPPED) is None:
        set_state(connection, STOPPED, {"actor": actor, "at": format_timestamp(utcnow())})
        log_action(connection, actor, "creating.stop", "creating")


def resume_creation(connection: Connection, actor: str) -> None:
    """Create again. The jobs that waited look once a minute."""
    if get_state(connection, STOPPED) is not None:
        delete_state(connection, STOPPED)
        log_action(connection, actor, "creating.start", "creating")
