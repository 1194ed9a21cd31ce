"""SQL for receive.py: deliveries, tasks, batches and the follow-up that created a task, one function for each statement.

Large values are passed as parameters and not within a statement: SQLAlchemy caches the first statement of each form with its values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, and_, case, func, or_, select, text, update

from models import Batch, Delivery, DeliveryBody, FollowUp, Response
from pipeline.db.dialect import from_now, insert
from pipeline.db.follow_up_states import transition
from pipeline.db.ids import new_id
from pipeline.db.json import dumps
from pipeline.db.postgresql import fetch, insert_large
from pipeline.db.tables import TASKS, column_names, record
from pipeline.receive.ordering import CLOCK_WARNING, OrderKey, clock_of, is_implausible
from scale.cancellation import only_says_canceled
from scale.envelope import Callback, InvalidCallback

Parsed = Callback | InvalidCallback | None
"""A parsed body, why it is invalid, or None if it was not parsed yet."""


@dataclass(frozen=True, slots=True)
class DeliveryMeta:
    """The identity of one delivery."""

    id: UUID
    kind: str  # callback | reconciled | imported | input
    key_environment: str  # of the key that it came with; `environment` is what its task belongs to
    received_at: datetime
    may_create: bool = True  # whether its follow-ups are created without approval

    def order_key(self, callback: Callback) -> OrderKey:
        """Return the key that orders this delivery among those of its task."""
        return OrderKey(clock_of(callback, self.received_at), self.id)

    def log_fields(self, parsed: Parsed = None) -> dict[str, str]:
        """Return what a log line about this delivery carries as `extra`: its id, and the task's as soon as it is known."""
        fields = {"delivery_id": str(self.id)}
        if isinstance(parsed, Callback) and parsed.task_id:
            fields["task_id"] = parsed.task_id
        return fields


_STORED = Delivery.__tablename__
ON_REPETITION = {
    "duplicates": f"{_STORED}.duplicates + 1",
    # Two that arrive together may be stored in the other order.
    "last_received_at": f"""CASE WHEN excluded.last_received_at > {_STORED}.last_received_at
        THEN excluded.last_received_at ELSE {_STORED}.last_received_at END""",
}
"""What a repetition of the same bytes changes in their delivery: SQL of each column, for both databases."""

INSERT_SMALL = f"""
WITH delivery AS (
    INSERT INTO {_STORED} ({column_names(Delivery)})
    SELECT {column_names(Delivery)} FROM {record(Delivery, "new", "%(row)s")}
    ON CONFLICT (environment, sha256) DO UPDATE
    SET {", ".join(f"{column} = {sql}" for column, sql in ON_REPETITION.items())}
    RETURNING id
), body AS (
    INSERT INTO {DeliveryBody.__tablename__} (delivery_id, body)
    SELECT id, %(body)b::bytea FROM delivery WHERE id = %(id)s
)
SELECT id FROM delivery
"""
"""What insert_delivery() does, in one round trip to PostgreSQL."""


def insert_delivery(
    connection: Connection, delivery: DeliveryMeta, body: bytes, headers: Mapping[str, str], parsed: Parsed
) -> UUID | None:
    """Insert the raw delivery. If the same bytes were received before, count the duplicate and return the first one's id."""
    row = delivery_row(delivery, body, headers, parsed)
    is_postgresql = connection.dialect.name == "postgresql"
    if is_postgresql and parsed is not None:
        parameters = {"row": dumps(row), "body": body, "id": delivery.id}
        ((first_id,),) = fetch(connection, INSERT_SMALL, parameters)
        return None if first_id == delivery.id else first_id
    statement = insert(connection, Delivery).on_conflict_do_update(
        index_elements=["environment", "sha256"],
        set_={column: text(sql) for column, sql in ON_REPETITION.items()},
    )
    stored_id: UUID = connection.scalars(statement.returning(Delivery.id), row).one()
    if stored_id != delivery.id:
        return stored_id
    key = {"delivery_id": delivery.id}
    if is_postgresql:
        insert_large(connection, DeliveryBody.__tablename__, key, "body", body)
    else:
        connection.execute(insert(connection, DeliveryBody), {**key, "body": body})
    return None


def delivery_row(
    delivery: DeliveryMeta, body: bytes, headers: Mapping[str, str], parsed: Parsed
) -> dict[str, Any]:
    """Return the delivery's columns."""
    return {
        "id": delivery.id,
        "kind": delivery.kind,
        "may_create": delivery.may_create,
        "environment": parsed.environment if isinstance(parsed, Callback) else delivery.key_environment,
        "sha256": hashlib.sha256(body).hexdigest(),
        "size_bytes": len(body),
        "headers": dict(headers),
        "received_at": delivery.received_at,
        "last_received_at": delivery.received_at,
        "duplicates": 0,
        **parsed_columns(delivery, parsed),
    }


def parsed_columns(delivery: DeliveryMeta, parsed: Parsed) -> dict[str, Any]:
    """Return the delivery columns that depend on the parsed callback."""
    if parsed is None:
        return {"status": "stored"}
    if isinstance(parsed, InvalidCallback):
        return {"status": "quarantined", "reason": str(parsed), "clock": delivery.received_at}
    task = parsed.task
    review = (
        {"status": task.review_status, "comments": task.review_comments}
        if task and task.review_status
        else None
    )
    implausible = [CLOCK_WARNING] if is_implausible(parsed, delivery.received_at) else []
    return {
        "status": "processed",
        "reason": None,
        "clock": clock_of(parsed, delivery.received_at),
        "event": parsed.event,
        "task_id": parsed.task_id,
        "review": review,
        "warnings": [*parsed.warnings, *implausible] or None,
    }


def update_delivery(connection: Connection, delivery_id: UUID, **values: Any) -> None:
    """Set columns of one delivery."""
    connection.execute(update(Delivery).where(Delivery.id == delivery_id).values(**values))


def lock_task(connection: Connection, task_id: str, environment: str) -> dict[str, Any]:
    """Lock the task's row until the transaction ends, and return it. A task seen for the first time is inserted."""
    statement = insert(connection, TASKS).values(task_id=task_id, id=new_id(), environment=environment)
    statement = statement.on_conflict_do_update(
        index_elements=["task_id"], set_={"task_id": statement.excluded.task_id}
    )
    return dict(connection.execute(statement.returning(TASKS)).mappings().one())


def update_task(connection: Connection, task_id: str, changes: Mapping[str, Any]) -> None:
    """Set the columns in `changes`, if there are any."""
    if changes:
        connection.execute(update(TASKS).where(TASKS.c.task_id == task_id), changes)


def link_follow_up(connection: Connection, task: Mapping[str, Any], named: str | None = None) -> str | None:
    """Set the follow-up that created this task to the task's state. Return its unique_id, or None if no follow-up did.

    It is found by unique_id, also before the create call was answered. `named` is the unique_id in a delivery, which the
    newest delivery may not repeat.
    """
    unique_id: str | None = task["follow_up_unique_id"] or named or task["unique_id"]
    if unique_id is None:
        return None
    linked = transition(
        connection,
        [unique_id],
        _follow_up_state(connection, task),
        where=(
            FollowUp.environment == task["environment"],
            or_(FollowUp.task_id.is_(None), FollowUp.task_id == task["task_id"]),
        ),
        task_id=task["task_id"],
        created_at=func.coalesce(FollowUp.created_at, from_now()),
    )
    return unique_id if linked else None


def _follow_up_state(connection: Connection, task: Mapping[str, Any]) -> str:
    """Return created, completed, error or canceled: the state of the follow-up that created `task`."""
    if task["status"] == "error":
        return "error"
    is_canceled = task["status"] == "canceled"
    if task["response_id"] is not None:
        has_nothing_else = and_(Response.annotation_count == 0, Response.artifact_count == 0)
        columns = (Response.error.is_not(None), case((has_nothing_else, Response.answer)))
        current = select(*columns).where(Response.id == task["response_id"])
        has_error, answer = connection.execute(current).one()
        if has_error:
            return "error"
        is_canceled = is_canceled or only_says_canceled(answer)
    if is_canceled:
        return "canceled"
    return "completed" if task["response_id"] is not None else "created"


def upsert_batch(connection: Connection, callback: Callback, delivery: DeliveryMeta) -> None:
    """Store a callback that names only a batch. The newest one wins; the project may come from any of them."""
    statement = insert(connection, Batch).values(
        environment=callback.environment,
        name=callback.batch,
        project=callback.batch_project,
        status=callback.status,
        details=callback.batch_details,
        clock=clock_of(callback, delivery.received_at),
    )
    new, known = statement.excluded, Batch.__table__.c
    newer = or_(known.clock.is_(None), known.clock <= new.clock)
    columns = {name: case((newer, new[name]), else_=known[name]) for name in ("status", "details", "clock")}
    columns["project"] = case(
        (newer, func.coalesce(new.project, known.project)), else_=func.coalesce(known.project, new.project)
    )
    connection.execute(statement.on_conflict_do_update(index_elements=["environment", "name"], set_=columns))
