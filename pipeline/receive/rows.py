"""The rows that a delivery leaves behind, one function each: what receive.py tells in order is written here.

Large values go beside a statement and not into it: SQLAlchemy keeps the first statement of each form, and all that it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Connection, Table, case, delete, func, or_, select, true, update

from models import Annotation, Artifact, Batch, Delivery, FollowUp, Response, Task
from pipeline.db.annotation_rows import write_annotations
from pipeline.db.dialect import from_now, insert
from pipeline.db.engine import close_on_return
from pipeline.db.ids import new_id
from pipeline.jobs import queue
from pipeline.receive.ordering import OrderKey
from scale.envelope import Callback, InvalidCallback
from scale.masks import INDEX_IMAGE_ROLES
from scale.results import ParsedResponse
from scale.task_types import parse_response

TASKS = cast(Table, Task.__table__)


@dataclass(frozen=True, slots=True)
class DeliveryMeta:
    """The identity and the moment of one delivery."""

    id: UUID
    kind: str  # callback | reconciled | imported
    environment: str  # of the key that it came with, until its task says otherwise
    received_at: datetime


def insert_delivery(
    connection: Connection,
    delivery: DeliveryMeta,
    body: bytes,
    headers: Mapping[str, str],
    reading: Callback | InvalidCallback | None,
) -> UUID | None:
    """Write the raw delivery; the id of the first one instead when the same bytes came before, which is counted."""
    if reading is None:
        close_on_return(connection)
    statement = insert(connection, Delivery).on_conflict_do_update(
        index_elements=["environment", "sha256"],
        set_={"duplicates": Delivery.duplicates + 1, "last_received_at": delivery.received_at},
    )
    row = {"body": body, **delivery_row(delivery, body, headers, reading)}
    kept = connection.scalars(statement.returning(Delivery.id), row).one()
    return None if kept == delivery.id else kept


def delivery_row(
    delivery: DeliveryMeta,
    body: bytes,
    headers: Mapping[str, str],
    reading: Callback | InvalidCallback | None,
) -> dict[str, Any]:
    """The delivery's columns, without the body itself."""
    return {
        "id": delivery.id,
        "kind": delivery.kind,
        "environment": reading.environment if isinstance(reading, Callback) else delivery.environment,
        "sha256": hashlib.sha256(body).hexdigest(),
        "size_bytes": len(body),
        "headers": dict(headers),
        "received_at": delivery.received_at,
        "last_received_at": delivery.received_at,
        "duplicates": 0,
        **parsed_columns(delivery, reading),
    }


def parsed_columns(delivery: DeliveryMeta, reading: Callback | InvalidCallback | None) -> dict[str, Any]:
    """The columns of a delivery that say what was understood of it."""
    if reading is None:
        return {"status": "stored"}
    if isinstance(reading, InvalidCallback):
        return {"status": "quarantined", "reason": str(reading), "clock": delivery.received_at}
    task = reading.task
    review = (
        {"status": task.review_status, "comments": task.review_comments}
        if task and task.review_status
        else None
    )
    return {
        "status": "processed",
        "reason": None,
        "clock": reading.clock or delivery.received_at,
        "event": reading.event,
        "task_id": reading.task_id,
        "review": review,
        "warnings": reading.warnings or None,
    }


def update_delivery(connection: Connection, delivery_id: UUID, **values: Any) -> None:
    connection.execute(update(Delivery).where(Delivery.id == delivery_id).values(**values))


def lock_task(connection: Connection, task_id: str, environment: str) -> dict[str, Any]:
    """The task's row, made if this is the first that is heard of it, and ours until the transaction ends."""
    statement = insert(connection, TASKS).values(task_id=task_id, id=new_id(), environment=environment)
    statement = statement.on_conflict_do_update(
        index_elements=["task_id"], set_={"task_id": statement.excluded.task_id}
    )
    return dict(connection.execute(statement.returning(TASKS)).mappings().one())


def find_version(
    connection: Connection, task_id: str, digest: str, event: str, moment: OrderKey
) -> UUID | None:
    """The version that holds this response already; its event is what the earliest delivery of it told."""
    known = connection.execute(
        select(Response.id, Response.clock, Response.delivery_id).where(
            Response.task_id == task_id, Response.digest == digest
        )
    ).one_or_none()
    if known is None:
        return None
    if moment < (known.clock, known.delivery_id):
        earlier = {"event": event, "clock": moment[0], "delivery_id": moment[1]}
        connection.execute(update(Response).where(Response.id == known.id).values(**earlier))
        renumber_versions(connection, task_id)
    seen: UUID = known.id
    return seen


def renumber_versions(connection: Connection, task_id: str) -> None:
    """Number the versions of a task in the order in which they came about, however late each was received."""
    versions = connection.execute(
        select(Response.id, Response.number)
        .where(Response.task_id == task_id)
        .order_by(Response.clock, Response.delivery_id)
    )
    moved = [(row.id, number) for number, row in enumerate(versions, 1) if row.number != number]
    for sign in (-1, 1):  # no two have one number, not even in between
        for version_id, number in moved:
            connection.execute(update(Response).where(Response.id == version_id).values(number=sign * number))


def write_version(
    connection: Connection,
    version_id: UUID,
    number: int,
    digest: str,
    delivery: DeliveryMeta,
    callback: Callback,
    result: ParsedResponse,
) -> None:
    """One response version with its inline annotations."""
    row = version_row(version_id, number, digest, delivery, callback, result)
    connection.execute(insert(connection, Response), row)
    write_annotations(connection, version_id, 0, result.annotations)


def version_row(
    version_id: UUID,
    number: int,
    digest: str,
    delivery: DeliveryMeta,
    callback: Callback,
    result: ParsedResponse,
) -> dict[str, Any]:
    """The columns of a response version."""
    return {
        "id": version_id,
        "task_id": callback.task_id,
        "number": number,
        "digest": digest,
        "event": callback.event,
        "delivery_id": delivery.id,
        "clock": callback.clock or delivery.received_at,
        "received_at": delivery.received_at,
        "response": callback.response,
        **result_columns(result),
    }


def result_columns(result: ParsedResponse) -> dict[str, Any]:
    """The columns of a version that depend on how well its response is understood."""
    return {
        "error": result.error,
        "answer": result.answer,
        "warnings": result.warnings or None,
        "annotation_count": len(result.annotations),
        "artifact_count": len(result.artifacts),
    }


def write_artifacts(
    connection: Connection, version_id: UUID, task_id: str, result: ParsedResponse
) -> list[UUID]:
    """One row for each file that the response points to, and the jobs that fetch them."""
    if not result.artifacts:
        return []
    rows = [
        {
            "id": new_id(),
            "response_id": version_id,
            "task_id": task_id,
            "ordinal": artifact.ordinal,
            "role": artifact.role,
            "url": artifact.url,
            "state": "pending",
        }
        for artifact in result.artifacts
    ]
    connection.execute(insert(connection, Artifact), rows)
    return queue.enqueue(connection, queue.FETCH, [str(row["id"]) for row in rows])


def reparse_versions(
    connection: Connection,
    task_id: str,
    type_name: str | None,
    params: dict[str, Any] | None,
    version_id: UUID | None = None,
) -> list[UUID]:
    """Replace what was understood of the task's versions, or of one: its type became known, or the code knows more.

    Files that are still pointed to at the same address keep their rows and what was read from them.
    """
    job_ids: list[UUID] = []
    versions = select(Response.id, Response.response).where(Response.task_id == task_id)
    if version_id is not None:
        versions = versions.where(Response.id == version_id)
    for known_id, response in connection.execute(versions).all():
        result = parse_response(type_name, response, params)
        files = connection.execute(
            select(Artifact.ordinal, Artifact.role, Artifact.url, Artifact.annotation_count)
            .where(Artifact.response_id == known_id)
            .order_by(Artifact.ordinal)
        ).all()
        same_files = [(file.ordinal, file.role, file.url) for file in files] == [
            tuple(ref) for ref in result.artifacts
        ]
        connection.execute(
            delete(Annotation).where(
                Annotation.response_id == known_id, Annotation.file == 0 if same_files else true()
            )
        )
        write_annotations(connection, known_id, 0, result.annotations)
        columns = result_columns(result)
        if same_files:
            columns["annotation_count"] += sum(file.annotation_count or 0 for file in files)
            job_ids += requeue_masks(connection, known_id)
        else:
            gone = connection.scalars(
                delete(Artifact).where(Artifact.response_id == known_id).returning(Artifact.id)
            )
            queue.delete_pending(connection, queue.FETCH, map(str, gone))
            job_ids += write_artifacts(connection, known_id, task_id, result)
        connection.execute(update(Response).where(Response.id == known_id), columns)
    return job_ids


def link_follow_up(connection: Connection, task: Mapping[str, Any], named: str | None = None) -> str | None:
    """Tell the follow-up that asked for this task how it goes; its unique_id, or None when nobody here asked for it.

    Found by unique_id, so that a callback which overtakes the answer to the create call finds it as well. `named` is the
    unique_id in a delivery, which a newer one may have lost.
    """
    unique_id: str | None = task["follow_up_unique_id"] or named or task["unique_id"]
    if unique_id is None:
        return None
    failed = task["status"] == "error"
    if task["response_id"] is not None and not failed:
        failed = bool(
            connection.scalar(select(Response.error.is_not(None)).where(Response.id == task["response_id"]))
        )
    if failed:
        state = "error"
    elif task["status"] == "canceled":
        state = "canceled"
    else:
        state = "completed" if task["response_id"] is not None else "created"
    statement = (
        update(FollowUp)
        .where(
            FollowUp.unique_id == unique_id,
            FollowUp.environment == task["environment"],
            or_(FollowUp.task_id.is_(None), FollowUp.task_id == task["task_id"]),
        )
        .values(
            state=state, task_id=task["task_id"], created_at=func.coalesce(FollowUp.created_at, from_now())
        )
    )
    return unique_id if connection.execute(statement).rowcount else None


def upsert_batch(connection: Connection, callback: Callback, delivery: DeliveryMeta) -> None:
    """A body that names only a batch: the newest one is what the batch is, in the project that any of them names."""
    statement = insert(connection, Batch).values(
        environment=callback.environment,
        name=callback.batch,
        project=callback.batch_project,
        status=callback.status,
        details=callback.batch_details,
        clock=callback.clock or delivery.received_at,
    )
    new, known = statement.excluded, Batch.__table__.c
    newer = or_(known.clock.is_(None), known.clock <= new.clock)
    columns = {name: case((newer, new[name]), else_=known[name]) for name in ("status", "details", "clock")}
    columns["project"] = case(
        (newer, func.coalesce(new.project, known.project)), else_=func.coalesce(known.project, new.project)
    )
    connection.execute(statement.on_conflict_do_update(index_elements=["environment", "name"], set_=columns))


def requeue_masks(connection: Connection, response_id: UUID) -> list[UUID]:
    """Enqueue the index images of a response whose mask rows were written again, without their pixels."""
    statement = (
        update(Artifact)
        .where(
            Artifact.response_id == response_id,
            Artifact.role.in_(INDEX_IMAGE_ROLES),
            Artifact.state == "stored",
        )
        .values(state="pending")
    )
    ids = connection.scalars(statement.returning(Artifact.id)).all()
    return queue.enqueue(connection, queue.FETCH, map(str, ids))
