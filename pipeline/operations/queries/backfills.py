"""Read backfills: runs of a workflow over stored results."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, select

from models import Backfill
from pipeline.operations.queries.filters import Filters, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, Record, paginate

COLUMNS = tuple(column for column in Backfill.__table__.c if column.key != "position")


def list_backfills(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return backfills, the newest first. Filters: workflow, state."""
    statement = select(*COLUMNS).where(*equal(Backfill, ("workflow", "state"), filters))
    return paginate(connection, statement, [Backfill.id], limit=limit, cursor=cursor)


def get_backfill(connection: Connection, backfill_id: UUID) -> Record:
    """Return one backfill with its progress. Raises NotFound."""
    row = connection.execute(select(*COLUMNS).where(Backfill.id == backfill_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no backfill {backfill_id} is known")
    return dict(row)
