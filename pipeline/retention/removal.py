"""Empty the rows of a batch in one short transaction, and record what is left to delete after its commit.

What a purged task leaves behind: the task's identity, status, project, dates and order keys; number, digest and counts of its
responses; digest and size of its deliveries and files; unique_id, state and task of its follow-ups.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, case, delete, func, literal, null, select, update

from models import (
    Artifact,
    Delivery,
    DeliveryBody,
    FollowUp,
    Job,
    Join,
    Notification,
    Response,
    Subscriber,
    Task,
)
from models.columns import Json
from pipeline.db.ids import created_at
from pipeline.db.months import Month
from pipeline.db.tables import TASKS
from pipeline.jobs import kinds
from pipeline.receive.purged import PURGED_ERROR, RESPONSE_CONTENT, TASK_CONTENT
from pipeline.retention.leftovers import Leftovers
from pipeline.retention.selection import Candidate

DELIVERY_EVENTS = ("delivery.received", "response.received")


def awaited_bodies(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the deliveries whose bytes a subscriber is still to get."""
    keys = [f"{DELIVERY_EVENTS[0]}:{one}" for one in ids]
    waiting = select(Notification.delivery_id).where(
        Notification.subscriber_id.in_(select(Subscriber.id)),
        Notification.key.in_(keys),
        Notification.state == "pending",
    )
    return {one for one in connection.scalars(waiting) if one is not None}


def unchanged_tasks(connection: Connection, candidates: Sequence[Candidate]) -> set[str]:
    """Lock the tasks, and return those that nothing has changed since they were read and that no job will plan."""
    ids = sorted(one.task_id for one in candidates if one.task_id is not None)
    locked = connection.execute(
        select(Task.task_id, Task.clock_delivery_id)
        .where(Task.task_id.in_(ids), Task.purged_at.is_(None))
        .order_by(Task.task_id)
        .with_for_update()
    ).all()
    keys = {f"{kinds.PLAN}:{task_id}": task_id for task_id in ids}
    planned = {keys[key] for key in connection.scalars(select(Job.key).where(Job.key.in_(keys)))}
    versions = {row.task_id: row.clock_delivery_id for row in locked}
    return {
        one.task_id
        for one in candidates
        if one.task_id is not None
        and one.task_id in versions
        and versions[one.task_id] == one.version
        and one.task_id not in planned
    }


def purge_bodies(
    connection: Connection, ids: Sequence[UUID], now: datetime, later: Collection[Month]
) -> Leftovers:
    """Mark these deliveries as purged, and delete their bodies but those of the months `later`: see old_months.py.

    One in quarantine is dismissed: nothing is left to look at.
    """
    in_quarantine = Delivery.status == "quarantined"
    statement = update(Delivery).where(Delivery.id.in_(ids), Delivery.purged_at.is_(None))
    connection.execute(
        statement.values(
            purged_at=now,
            dismissed_at=case(
                (in_quarantine, func.coalesce(Delivery.dismissed_at, now)), else_=Delivery.dismissed_at
            ),
        )
    )
    by_row = [one for one in ids if Month.of(created_at(one)) not in later]
    connection.execute(delete(DeliveryBody).where(DeliveryBody.delivery_id.in_(by_row)))
    return Leftovers()


def purge_artifacts(connection: Connection, ids: Sequence[UUID], now: datetime) -> Leftovers:
    """Mark the files as purged; their content is deleted after the commit, where nothing else refers to it."""
    statement = update(Artifact).where(
        Artifact.id.in_(ids), Artifact.purged_at.is_(None), Artifact.state == "stored"
    )
    digests = connection.scalars(statement.values(purged_at=now).returning(Artifact.sha256)).all()
    return Leftovers(files=sorted({digest for digest in digests if digest is not None}))


def purge_tasks(connection: Connection, task_ids: Sequence[str], now: datetime) -> Leftovers:
    """Empty the tasks, whose rows are locked, and what was read of them; their annotations are deleted after the commit."""
    emptied: dict[str, Any] = {name: null() for name in TASK_CONTENT}
    connection.execute(update(TASKS).where(TASKS.c.task_id.in_(task_ids)).values(purged_at=now, **emptied))
    error = case((Response.error.is_not(None), literal(PURGED_ERROR, Json)), else_=null())
    contents: dict[str, Any] = {name: null() for name in RESPONSE_CONTENT}
    statement = update(Response).where(Response.task_id.in_(task_ids)).values(error=error, **contents)
    response_ids = connection.scalars(statement.returning(Response.id)).all()
    connection.execute(
        update(Artifact).where(Artifact.task_id.in_(task_ids)).values(details=null(), reason=null(), url="")
    )
    _empty_deliveries(connection, task_ids)
    _empty_follow_ups(connection, task_ids)
    return Leftovers(responses=sorted(response_ids))


def _empty_deliveries(connection: Connection, task_ids: Sequence[str]) -> None:
    """Drop what deliveries say in addition to their bytes, and the notifications about them."""
    statement = update(Delivery).where(Delivery.task_id.in_(task_ids)).values(review=null(), warnings=null())
    rows = connection.execute(statement.returning(Delivery.id, Delivery.event)).all()
    keys = [f"{event}:{row.id}" for row in rows for event in (*DELIVERY_EVENTS, f"task.{row.event}")]
    connection.execute(
        delete(Notification).where(
            Notification.subscriber_id.in_(select(Subscriber.id)),
            Notification.key.in_(keys),
            Notification.state != "pending",
        )
    )


def _empty_follow_ups(connection: Connection, task_ids: Sequence[str]) -> None:
    """Drop the requests that were made of the tasks. What names and counts them stays, so that none is created again."""
    empty = {"request": literal({}, Json), "files": null()}
    connection.execute(update(FollowUp).where(FollowUp.source_task_id.in_(task_ids)).values(**empty))
    connection.execute(update(Join).where(Join.source_task_id.in_(task_ids)).values(result=null()))
