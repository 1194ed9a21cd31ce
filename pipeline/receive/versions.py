"""Response versions: one row for each distinct response of a task, with its annotations and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, and_, case, delete, null, or_, select, true, update

from models import Annotation, Artifact, Response
from pipeline.db.annotation_rows import write_annotations
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id
from pipeline.jobs import kinds, queue
from pipeline.receive.ordering import OrderKey
from pipeline.receive.rows import DeliveryMeta
from scale.envelope import ABSENT, Callback, response_digest
from scale.task_types import parse_response
from scale.task_types.base import INDEX_IMAGE_ROLES, ParsedResponse


@dataclass(frozen=True, slots=True)
class Version:
    """The response version that a delivery carries."""

    id: UUID
    digest: str
    is_new: bool


def find_version(connection: Connection, callback: Callback, key: OrderKey) -> Version | None:
    """Return the version that holds the callback's response, a new one if none does, None without a response.

    A known version takes over the event of its earliest delivery, and the versions are renumbered if that is this one.
    """
    if callback.response is ABSENT:
        return None
    digest = response_digest(callback.response)
    known = connection.execute(
        select(Response.id, Response.clock, Response.delivery_id).where(
            Response.task_id == callback.task_id, Response.digest == digest
        )
    ).one_or_none()
    if known is None:
        return Version(new_id(), digest, is_new=True)
    if key < (known.clock, known.delivery_id):
        earlier = {"event": callback.event, "clock": key.clock, "delivery_id": key.delivery_id}
        connection.execute(update(Response).where(Response.id == known.id).values(**earlier))
        renumber_versions(connection, callback.task_id)
    return Version(known.id, digest, is_new=False)


def renumber_versions(connection: Connection, task_id: str | None) -> None:
    """Assign the numbers 1, 2, 3 … to the versions of a task in the order of their keys, whatever the order of receipt."""
    versions = connection.execute(
        select(Response.id, Response.number)
        .where(Response.task_id == task_id)
        .order_by(Response.clock, Response.delivery_id)
    )
    moved = [(row.id, number) for number, row in enumerate(versions, 1) if row.number != number]
    for sign in (-1, 1):  # by way of negative numbers: (task_id, number) is unique at every moment
        for version_id, number in moved:
            connection.execute(update(Response).where(Response.id == version_id).values(number=sign * number))


def insert_version(
    connection: Connection,
    version: Version,
    delivery: DeliveryMeta,
    callback: Callback,
    task: Mapping[str, Any],
) -> list[UUID]:
    """Insert a new version with its inline annotations and its files. Return the jobs that fetch the files.

    `task` is the task's row as this delivery leaves it.
    """
    parsed = parse_response(task["type"], callback.response, task["params"])
    number = task["response_count"]
    row = version_row(version, number, delivery, callback, parsed)
    connection.execute(insert(connection, Response), {**row, "response": callback.response})
    write_annotations(connection, version.id, 0, parsed.annotations)
    job_ids = insert_artifacts(connection, version.id, task["task_id"], parsed)
    if number > 1:
        renumber_versions(connection, task["task_id"])
    return job_ids


def version_row(
    version: Version, number: int, delivery: DeliveryMeta, callback: Callback, parsed: ParsedResponse
) -> dict[str, Any]:
    """Return the columns of a response version without the response itself."""
    key = delivery.order_key(callback)
    return {
        "id": version.id,
        "task_id": callback.task_id,
        "number": number,
        "digest": version.digest,
        "event": callback.event,
        "delivery_id": key.delivery_id,
        "clock": key.clock,
        "received_at": delivery.received_at,
        **result_columns(parsed),
    }


def result_columns(parsed: ParsedResponse) -> dict[str, Any]:
    """Return the columns of a version that depend on how its response is parsed."""
    return {
        "error": parsed.error,
        "answer": parsed.answer,
        "warnings": parsed.warnings or None,
        "annotation_count": len(parsed.annotations),
        "artifact_count": len(parsed.artifacts),
    }


def insert_artifacts(
    connection: Connection, version_id: UUID, task_id: str, parsed: ParsedResponse
) -> list[UUID]:
    """Insert a row for each file that the response points to. Return the jobs that fetch them, one for each URL: files
    with the URL of another one are read once that one is stored."""
    if not parsed.artifacts:
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
        for artifact in parsed.artifacts
    ]
    connection.execute(insert(connection, Artifact), rows)
    first_of_url = {row["url"]: str(row["id"]) for row in reversed(rows)}
    return queue.enqueue(connection, kinds.FETCH, reversed(first_of_url.values()))


def reparse_versions(
    connection: Connection, task: Mapping[str, Any], version_id: UUID | None = None
) -> list[UUID]:
    """Parse the stored responses of a task again, or one of them, and replace their annotations. Return the jobs to run.

    Needed when the task's type or params became known, or after an upgrade. Files whose address is unchanged keep their
    rows and what was read from them.
    """
    job_ids: list[UUID] = []
    versions = select(Response.id, Response.response).where(Response.task_id == task["task_id"])
    if version_id is not None:
        versions = versions.where(Response.id == version_id)
    for row in connection.execute(versions).all():
        parsed = parse_response(task["type"], row.response, task["params"])
        job_ids += _replace_result(connection, row.id, task["task_id"], parsed)
    return job_ids


def _replace_result(
    connection: Connection, version_id: UUID, task_id: str, parsed: ParsedResponse
) -> list[UUID]:
    files = connection.execute(
        select(Artifact.ordinal, Artifact.role, Artifact.url, Artifact.annotation_count)
        .where(Artifact.response_id == version_id)
        .order_by(Artifact.ordinal)
    ).all()
    same_files = [(file.ordinal, file.role, file.url) for file in files] == [
        tuple(artifact) for artifact in parsed.artifacts
    ]
    replaced = Annotation.file == 0 if same_files else true()
    connection.execute(delete(Annotation).where(Annotation.response_id == version_id, replaced))
    write_annotations(connection, version_id, 0, parsed.annotations)
    columns = result_columns(parsed)
    if same_files:
        columns["annotation_count"] += sum(file.annotation_count or 0 for file in files)
        job_ids = requeue_files(connection, version_id)
    else:
        gone = delete(Artifact).where(Artifact.response_id == version_id).returning(Artifact.id)
        queue.delete_pending(connection, kinds.FETCH, map(str, connection.scalars(gone)))
        job_ids = insert_artifacts(connection, version_id, task_id, parsed)
    connection.execute(update(Response).where(Response.id == version_id), columns)
    return job_ids


def requeue_files(connection: Connection, response_id: UUID) -> list[UUID]:
    """Enqueue the files of a response that was parsed again: those that failed, and index images, whose mask rows were
    written again without their pixels."""
    failed = Artifact.state == "failed"
    index_image = and_(Artifact.role.in_(INDEX_IMAGE_ROLES), Artifact.state == "stored")
    statement = (
        update(Artifact)
        .where(Artifact.response_id == response_id, or_(failed, index_image))
        .values(
            state="pending",
            sha256=case((failed, null()), else_=Artifact.sha256),
            attempts=case((failed, 0), else_=Artifact.attempts),
            first_attempt_at=case((failed, null()), else_=Artifact.first_attempt_at),
        )
    )
    ids = connection.scalars(statement.returning(Artifact.id)).all()
    return queue.enqueue(connection, kinds.FETCH, map(str, ids))
