"""Batches of Scale and their state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from werkzeug.wrappers import Response

from app.console.frame import blueprint
from app.console.lists import PAGE_ROWS, Filter, Listing
from pipeline.operations.queries import Page
from pipeline.operations.queries import batches as queries


def _read(connection: Connection, filters: Mapping[str, Any], cursor: str | None) -> Page:
    return queries.list_batches(connection, filters, limit=PAGE_ROWS, cursor=cursor)


LISTING = Listing(
    "batches.html",
    "Batches",
    (
        Filter("project", "Project"),
        Filter("status", "Status"),
        Filter("environment", "Environment", ("live", "test")),
        Filter("name", "Name"),
    ),
    ("name", "project", "status", "environment", "clock"),
    _read,
)


@blueprint.get("/batches")
def batches() -> Response:
    """List batches, the most recently changed first."""
    return LISTING.respond()
