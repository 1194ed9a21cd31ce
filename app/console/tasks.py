"""Tasks: search and filter them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response

from app.console.frame import blueprint
from app.console.lists import PAGE_ROWS, Filter, Listing
from app.extensions import service
from pipeline.operations.queries import Page
from pipeline.operations.queries import tasks as queries
from scale.environments import ENVIRONMENTS

FIELDS = (
    "task_id",
    "type",
    "status",
    "project",
    "batch",
    "environment",
    "unique_id",
    "created_at",
    "updated_at",
    "completed_at",
    "review_status",
    "response_number",
    "annotation_count",
)


def _searched(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {**filters, "search": request.args.get("q", "").strip() or None}


def _read(connection: Connection, filters: Mapping[str, Any], cursor: str | None) -> Page:
    return queries.list_tasks(connection, _searched(filters), limit=PAGE_ROWS, cursor=cursor)


def _count(connection: Connection, filters: Mapping[str, Any]) -> int:
    return queries.count_tasks(connection, _searched(filters))


LISTING = Listing(
    "tasks.html",
    "Tasks",
    (
        Filter("type", "Type"),
        Filter("project", "Project"),
        Filter("batch", "Batch"),
        Filter("status", "Status"),
        Filter("environment", "Environment", ENVIRONMENTS),
        Filter("unique_id", "Unique id"),
        Filter("review", "Review", queries.REVIEWS),
        Filter("workflow", "Workflow"),
        Filter("step", "Step"),
        Filter("label", "Label"),
    ),
    FIELDS,
    _read,
    _count,
)


@blueprint.get("/tasks")
def tasks() -> Response:
    """List tasks. A search for a task id opens the task."""
    text = request.args.get("q", "").strip()
    if text and "format" not in request.args and "\0" not in text:
        with service().reader.begin() as connection:
            if queries.has_task(connection, text):
                return redirect(url_for("console.task", task_id=text))
    return LISTING.respond(search=text, has_thumbnails="thumbnails" in request.args)
