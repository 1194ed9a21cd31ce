"""The jobs table: what waits, runs or died, and running it now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import fields
from marshmallow.validate import OneOf
from sqlalchemy import select

from app.api.blueprint import Blueprint, actor, dispatcher, service
from app.api.lists import ListQuery, OutputSchema, Record, Timestamp, list_schema, paginate
from app.api.problems import ProblemError
from models import Job as Row
from pipeline.access.audit import log_action
from pipeline.jobs import queue

blueprint = Blueprint("jobs", "Work that is to be done; a job that succeeded is gone")

STATES = ("ready", "running", "dead")


class Job(OutputSchema):
    id = fields.UUID()
    kind = fields.String(validate=OneOf(tuple(queue.MAX_ATTEMPTS)))
    subject = fields.String(
        metadata={"description": "The delivery, task, artifact or follow-up that it works on"}
    )
    state = fields.String(validate=OneOf(STATES))
    attempts = fields.Integer()
    run_at = Timestamp(metadata={"description": "Not before; while it runs, when its lease ends"})
    last_error = fields.String(allow_none=True)
    created_at = Timestamp()


class JobQuery(ListQuery):
    state = fields.String(validate=OneOf(STATES))
    kind = fields.String(validate=OneOf(tuple(queue.MAX_ATTEMPTS)))


COLUMNS = tuple(getattr(Row, name) for name in Job._declared_fields)


@blueprint.get("/jobs")
@blueprint.arguments(JobQuery, location="query")
@blueprint.response(200, list_schema(Job))
def list_jobs(query: Mapping[str, Any]) -> Record:
    """Jobs, newest first"""
    statement = select(*COLUMNS)
    for name in ("state", "kind"):
        if name in query:
            statement = statement.where(getattr(Row, name) == query[name])
    with service().reader.begin() as connection:
        return paginate(connection, statement, [Row.id], query)


@blueprint.post("/jobs/<uuid:job_id>/retry")
@blueprint.response(200, Job)
def retry_job(job_id: UUID) -> Any:
    """Run a dead job, or one that waits, now and with all its attempts"""
    with service().engine.begin() as connection:
        retried = queue.retry(connection, job_id)
        row = connection.execute(select(*COLUMNS).where(Row.id == job_id)).mappings().one_or_none()
        if row is None:
            raise ProblemError(404, f"there is no job {job_id}: one that succeeded is gone")
        if not retried:
            raise ProblemError(409, "the job is running; its outcome will show here")
        log_action(connection, actor(), "job.retry", f"{row['kind']}:{row['subject']}")
    dispatcher().dispatch([job_id])
    return row
