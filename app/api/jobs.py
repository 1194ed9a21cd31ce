"""Jobs: rows of work that are ready, running or dead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import fields
from marshmallow.validate import OneOf

from app.api.blueprint import Blueprint, actor
from app.api.deliveries import Dismissal
from app.api.fields import Timestamp
from app.api.lists import ListQuery, OutputSchema, list_body, list_schema, paging
from app.extensions import dispatcher, service
from pipeline.jobs import kinds
from pipeline.operations import dismissals, retries
from pipeline.operations.queries import Record
from pipeline.operations.queries import jobs as queries

blueprint = Blueprint("jobs", "Rows of work. A job that succeeded is deleted.")

KINDS = tuple(kinds.MAX_ATTEMPTS)


class Job(OutputSchema):
    """A row of work."""

    id = fields.UUID()
    kind = fields.String(validate=OneOf(KINDS))
    subject = fields.String(
        metadata={"description": "Id of the delivery, task, artifact or follow-up that the job works on."}
    )
    state = fields.String(validate=OneOf(queries.STATES))
    attempts = fields.Integer()
    run_at = Timestamp(
        metadata={"description": "Earliest start of the next attempt; end of the lease while it runs."}
    )
    last_error = fields.String(allow_none=True)
    created_at = Timestamp()


class JobQuery(ListQuery):
    """Filters of the list of jobs."""

    state = fields.String(validate=OneOf(queries.STATES))
    kind = fields.String(validate=OneOf(KINDS))


@blueprint.get("/jobs")
@blueprint.arguments(JobQuery, location="query")
@blueprint.response(200, list_schema(Job))
def list_jobs(query: Mapping[str, Any]) -> Record:
    """List jobs, newest first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_jobs(connection, query, **paging(query)))


@blueprint.post("/jobs/<uuid:job_id>/retry")
@blueprint.response(200, Job)
def retry_job(job_id: UUID) -> Mapping[str, Any]:
    """Retry a dead or waiting job now, with its attempts reset"""
    with service().engine.begin() as connection:
        row = retries.retry_job(connection, job_id, actor())
    dispatcher().dispatch([job_id])
    return row


@blueprint.post("/jobs/<uuid:job_id>/dismiss")
@blueprint.arguments(Dismissal)
@blueprint.response(204)
def dismiss_job(dismissal: Mapping[str, Any], job_id: UUID) -> None:
    """Dismiss a dead job: it is deleted, and the audit log keeps what it was"""
    with service().engine.begin() as connection:
        dismissals.dismiss_job(connection, job_id, actor(), dismissal["reason"])
