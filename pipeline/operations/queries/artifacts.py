"""Read artifacts: the files that responses point to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from models import Artifact
from pipeline.operations.queries.filters import Filters, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, paginate

STATES = ("pending", "stored", "failed")
COLUMNS = (
    Artifact.id,
    Artifact.task_id,
    Artifact.role,
    Artifact.url,
    Artifact.state,
    Artifact.size_bytes,
    Artifact.sha256,
    Artifact.reason,
    Artifact.media_type,
    Artifact.attempts,
    Artifact.annotation_count,
    Artifact.details,
    Artifact.ordinal.label("file"),
    Artifact.purged_at,
)

LARGE = (Artifact.details, Artifact.url, Artifact.reason)


def list_artifacts(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return artifacts of all responses, newest first. Filters: state, task_id."""
    statement = select(*COLUMNS).where(*equal(Artifact, ("state", "task_id"), filters))
    return paginate(connection, statement, [Artifact.id], limit=limit, cursor=cursor, large=LARGE)


def get_artifact(connection: Connection, artifact_id: UUID) -> Mapping[str, Any]:
    """Return one artifact. Raises NotFound."""
    statement = select(*COLUMNS).where(Artifact.id == artifact_id)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no artifact {artifact_id} is known")
    return dict(row)


def artifacts_of_response(connection: Connection, response_id: UUID) -> list[Mapping[str, Any]]:
    """Return the artifacts of one response version, in the order of their appearance."""
    statement = select(*COLUMNS).where(Artifact.response_id == response_id).order_by(Artifact.ordinal)
    return [dict(row) for row in connection.execute(statement).mappings()]


def matching_ids(connection: Connection, filters: Filters) -> Sequence[UUID]:
    """Return the ids of all artifacts that match `filters`, oldest first."""
    statement = select(Artifact.id).where(*equal(Artifact, ("state", "task_id"), filters))
    return connection.scalars(statement.order_by(Artifact.id)).all()
