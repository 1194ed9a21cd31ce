"""Jobs: the rows of work by kind and state, and the retry of dead ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import flash, redirect, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint
from app.console.lists import PAGE_ROWS, Filter, Listing
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.jobs import queue
from pipeline.operations import dismissals, retries
from pipeline.operations.bulk_actions import DISMISSED
from pipeline.operations.queries import Page
from pipeline.operations.queries import jobs as queries

FIELDS = ("id", "kind", "subject", "state", "attempts", "run_at", "last_error", "created_at")


def _read(connection: Connection, filters: Mapping[str, Any], cursor: str | None) -> Page:
    return queries.list_jobs(connection, filters, limit=PAGE_ROWS, cursor=cursor)


LISTING = Listing(
    "jobs.html",
    "Jobs",
    (Filter("state", "State", queries.STATES), Filter("kind", "Kind")),
    FIELDS,
    _read,
    queries.count_jobs,
)


@blueprint.get("/jobs")
def jobs() -> Response:
    """List jobs, with counts by kind and state."""
    with service().reader.begin() as connection:
        counts = service().totals.get("jobs", lambda: queue.counts(connection))
    return LISTING.respond(counts=sorted(counts.items()))


@blueprint.post("/jobs/<uuid:job_id>/retry")
def retry_job(job_id: UUID) -> Response:
    """Run a dead or waiting job now, with its attempts reset."""
    session.require_role(OPERATE)
    with service().engine.begin() as connection:
        row = retries.retry_job(connection, job_id, session.actor())
    dispatcher().dispatch([job_id])
    flash(f"Retried the job {row['kind']}:{row['subject']}.")
    return redirect(url_for("console.jobs"))


@blueprint.post("/jobs/<uuid:job_id>/dismiss")
def dismiss_job(job_id: UUID) -> Response:
    """Delete a dead job; the audit log keeps what it was."""
    session.require_role(OPERATE)
    with service().engine.begin() as connection:
        dismissals.dismiss_job(connection, job_id, session.actor(), DISMISSED)
    flash("Dismissed the job.")
    return redirect(url_for("console.jobs"))
