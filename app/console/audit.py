"""The audit log: who decided what, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from werkzeug.wrappers import Response

from app.console.frame import blueprint
from app.console.lists import PAGE_ROWS, Filter, Listing
from pipeline.operations.queries import Page
from pipeline.operations.queries import audit as queries


def _read(connection: Connection, filters: Mapping[str, Any], cursor: str | None) -> Page:
    return queries.list_audit_entries(connection, filters, limit=PAGE_ROWS, cursor=cursor)


LISTING = Listing(
    "audit.html",
    "Audit log",
    (Filter("actor", "Actor"), Filter("action", "Action"), Filter("subject", "Subject")),
    ("at", "actor", "action", "subject", "details"),
    _read,
)


@blueprint.get("/audit")
def audit() -> Response:
    """List decisions, newest first."""
    return LISTING.respond()
