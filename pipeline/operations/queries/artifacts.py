"""Read artifacts: the files that responses point to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, select

from models import Artifact
from pipeline.db.sizes import read_row
from pipeline.operations.queries.filters import Filters, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, paginate

STATES = ("pending", "stored", "failed")
MAX_OF_RESPONSE = 1000
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


def list_artifacts(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return artifacts of all responses, newest first. Filters: state, task_id."""
    statement = select(*COLUMNS).where(*equal(Artifact, ("state", "task_id"), filters))
    return paginate(connection, statement, [Artifact.id], limit=limit, cursor=cursor)


def get_artifact(connection: Connection, artifact_id: UUID) -> Mapping[str, Any]:
    """Return one artifact. Raises NotFound."""
    row = read_row(connection, _DETAIL, id=artifact_id)
    if row is None:
        raise NotFound(f"no artifact {artifact_id} is known")
    return row


_DETAIL = select(*COLUMNS).where(Artifact.id == bindparam("id"))


def artifacts_of_response(connection: Connection, response_id: UUID) -> Sequence[Mapping[str, Any]]:
    """Return the first artifacts of one response version, in the order of their appearance: one page of them."""
    statement = select(*COLUMNS).where(Artifact.response_id == response_id)
    file = Artifact.ordinal.label("file")
    return paginate(connection, statement, [file], limit=MAX_OF_RESPONSE, ascending=True).rows


def matching_ids(connection: Connection, filters: Filters) -> Sequence[UUID]:
    """Return the ids of all artifacts that match `filters`, oldest first."""
    statement = select(Artifact.id).where(*equal(Artifact, ("state", "task_id"), filters))
    return connection.scalars(statement.order_by(Artifact.id)).all()
