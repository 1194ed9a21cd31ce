"""Read the audit log."""

from __future__ import annotations

from sqlalchemy import Connection, select

from models import AuditEntry
from pipeline.operations.queries.filters import Filters, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, paginate

COLUMNS = (
    AuditEntry.id,
    AuditEntry.at,
    AuditEntry.actor,
    AuditEntry.action,
    AuditEntry.subject,
    AuditEntry.details,
)


def list_audit_entries(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return decisions, newest first. Filters: actor, action, subject, since (made then or later)."""
    statement = select(*COLUMNS).where(*equal(AuditEntry, ("actor", "action", "subject"), filters))
    if (since := filters.get("since")) is not None:
        statement = statement.where(AuditEntry.at >= since)
    return paginate(connection, statement, [AuditEntry.id], limit=limit, cursor=cursor)
