"""Read Scale's batches."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, func, literal, select

from models import Batch
from models.columns import UtcDateTime
from pipeline.operations.queries.filters import Filters, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, paginate

FILTERS = ("environment", "project", "status", "name")


def list_batches(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return batches, the most recently changed first. Filters: environment, project, status, name."""
    never = literal(datetime(1970, 1, 1, tzinfo=UTC), UtcDateTime())
    changed = func.coalesce(Batch.clock, never, type_=UtcDateTime()).label("changed")
    statement = select(
        Batch.name, Batch.environment, Batch.project, Batch.status, Batch.clock, Batch.details, changed
    ).where(*equal(Batch, FILTERS, filters))
    key = [changed, Batch.environment, Batch.name]
    return paginate(connection, statement, key, limit=limit, cursor=cursor)
