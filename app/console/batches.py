"""Batches of Scale and their state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from werkzeug.wrappers import Response

from app.console.frame import blueprint
from app.console.lists import PAGE_ROWS, Filter, Listing
from app.extensions import service
from pipeline.insights import late_tasks
from pipeline.operations.queries import Page
from pipeline.operations.queries import batches as queries
from pipeline.operations.queries.tasks import counts_by_batch
from scale.environments import ENVIRONMENTS


def _read(connection: Connection, filters: Mapping[str, Any], cursor: str | None) -> Page:
    """Return a page of batches, each with its number of tasks by status, and of late ones."""
    found = queries.list_batches(connection, filters, limit=PAGE_ROWS, cursor=cursor)
    names = [row["name"] for row in found.rows]
    key = f"batches {names}"
    counts = service().totals.get(key, lambda: counts_by_batch(connection, names))
    late: Counter[str | None] = Counter()
    for (_, batch), number in service().totals.get("late tasks", lambda: late_tasks(connection)).items():
        late[batch] += number
    rows = [{**row, "tasks": counts[row["name"]], "late": late[row["name"]]} for row in found.rows]
    return Page(rows, found.next_cursor)


LISTING = Listing(
    "batches.html",
    "Batches",
    (
        Filter("project", "Project"),
        Filter("status", "Status"),
        Filter("environment", "Environment", ENVIRONMENTS),
        Filter("name", "Name"),
    ),
    ("name", "project", "status", "environment", "clock", "tasks", "late"),
    _read,
)


@blueprint.get("/batches")
def batches() -> Response:
    """List batches, the most recently changed first."""
    return LISTING.respond()
