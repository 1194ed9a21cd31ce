"""Tasks as they stand now: what Scale says of them, the current response, where they come from, what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import OneOf
from sqlalchemy import Connection, RowMapping, Select, func, select, text, type_coerce
from sqlalchemy.dialects.postgresql import JSONB

from app.api.artifacts import SHOWN as ARTIFACT_COLUMNS
from app.api.artifacts import Artifact as ArtifactSchema
from app.api.blueprint import Blueprint, service
from app.api.lists import ListQuery, OutputSchema, Record, Timestamp, equals_indexed, list_schema, paginate
from app.api.problems import ProblemError
from models import Artifact, FollowUp, Response, Task
from pipeline.follow_ups.lineage import lineage

blueprint = Blueprint("tasks", "Tasks of Scale, newest first sight first")

MOST_FOLLOW_UPS = 1000


class TaskQuery(ListQuery):
    type = fields.String()
    status = fields.String(metadata={"description": "Scale's own word"})
    project = fields.String()
    batch = fields.String()
    environment = fields.String(validate=OneOf(("live", "test")))
    unique_id = fields.String()
    tag = fields.String(metadata={"description": "One of the task's tags"})
    updated_since = Timestamp(metadata={"description": "updated_at is this or later"})
    updated_before = Timestamp(metadata={"description": "updated_at is earlier"})


class Review(OutputSchema):
    status = fields.String(
        allow_none=True,
        metadata={"description": "accepted, rejected, fixed, commented; null: not reviewed"},
    )
    comments = fields.List(fields.Raw())
    reviewed_at = Timestamp(allow_none=True)


class TaskSummary(OutputSchema):
    task_id = fields.String()
    type = fields.String(allow_none=True)
    status = fields.String(allow_none=True)
    environment = fields.String()
    project = fields.String(allow_none=True)
    batch = fields.String(allow_none=True)
    unique_id = fields.String(allow_none=True)
    tags = fields.List(fields.Raw(), allow_none=True)
    priority = fields.Integer(allow_none=True)
    metadata = fields.Dict(allow_none=True)
    created_at = Timestamp(allow_none=True)
    updated_at = Timestamp(allow_none=True)
    completed_at = Timestamp(allow_none=True)
    review = fields.Nested(Review)
    response_number = fields.Integer(
        allow_none=True, metadata={"description": "The current response; null when there is none"}
    )
    response_count = fields.Integer()
    annotation_count = fields.Integer(metadata={"description": "Of the current response"})


class Source(OutputSchema):
    """What asked for this task."""

    workflow = fields.String()
    step = fields.String()
    task_id = fields.String()
    annotation = fields.String(allow_none=True)
    unique_id = fields.String()


class FollowUpBrief(OutputSchema):
    unique_id = fields.String()
    workflow = fields.String()
    step = fields.String()
    state = fields.String()
    task_id = fields.String(allow_none=True, metadata={"description": "The task that was created"})
    reason = fields.String(allow_none=True)


class TaskDetail(TaskSummary):
    instruction = fields.String(allow_none=True)
    urgency = fields.String(allow_none=True)
    params = fields.Dict(allow_none=True)
    callback_succeeded = fields.Boolean(allow_none=True)
    error = fields.Dict(allow_none=True, metadata={"description": "Scale's error response"})
    answer = fields.Raw(
        allow_none=True, metadata={"description": "The response without its annotations, under Scale's keys"}
    )
    global_attributes = fields.Raw(allow_none=True)
    warnings = fields.List(
        fields.Raw(), metadata={"description": "What was odd in the current response, in sentences"}
    )
    source = fields.Nested(Source, allow_none=True)
    follow_ups = fields.List(
        fields.Nested(FollowUpBrief),
        metadata={"description": f"The first {MOST_FOLLOW_UPS:,}; /follow-ups?source_task_id= lists all"},
    )
    artifacts = fields.List(
        fields.Nested(ArtifactSchema), metadata={"description": "Files of the current response"}
    )


class LineageQuery(Schema):
    annotation = fields.String(metadata={"description": "Only what follows from this annotation (its uuid)"})


class Ancestor(OutputSchema):
    task_id = fields.String()
    type = fields.String(allow_none=True)
    status = fields.String(allow_none=True)
    attachment = fields.Raw(allow_none=True, metadata={"description": "Of the task's params"})
    source = fields.Nested(Source, allow_none=True, metadata={"description": "What asked for it"})


class Descendant(FollowUpBrief):
    source_task_id = fields.String()
    source_annotation = fields.String(allow_none=True)
    depth = fields.Integer(metadata={"description": "1: follows from the task itself"})
    task_type = fields.String()
    task_status = fields.String(allow_none=True)


class Join(OutputSchema):
    """A step that waits for the follow-ups of another."""

    id = fields.String()
    workflow = fields.String()
    step = fields.String()
    awaited_step = fields.String(metadata={"description": "The step whose follow-ups are waited for"})
    source_task_id = fields.String()
    source_annotation = fields.String(allow_none=True)
    expected = fields.Integer(
        allow_none=True, metadata={"description": "Follow-ups to wait for; null while they are planned"}
    )
    opened_at = Timestamp()
    deadline = Timestamp(allow_none=True)
    fired_at = Timestamp(allow_none=True)
    verdict = fields.String(allow_none=True, metadata={"description": "fire, hold or stop; null: it waits"})
    reason = fields.String(allow_none=True)
    result = fields.Dict(allow_none=True, metadata={"description": "What the reducer made of the results"})


class Run(OutputSchema):
    """All tasks from one root."""

    state = fields.String(metadata={"description": "running, held, failed or completed"})
    counts = fields.Dict(
        keys=fields.String(), values=fields.Integer(), metadata={"description": "Follow-ups by state"}
    )
    tasks = fields.Integer(metadata={"description": "The root and every task that was created from it"})
    started_at = Timestamp(allow_none=True)
    finished_at = Timestamp(allow_none=True, metadata={"description": "Null while it runs"})
    duration_seconds = fields.Float(allow_none=True)


class Lineage(OutputSchema):
    task_id = fields.String()
    ancestors = fields.List(
        fields.Nested(Ancestor), metadata={"description": "From the first task to this one"}
    )
    descendants = fields.List(fields.Nested(Descendant), metadata={"description": "Nearest first"})
    truncated = fields.Boolean(metadata={"description": "There are more descendants than are listed"})
    joins = fields.List(fields.Nested(Join), metadata={"description": "Of the whole run"})
    run = fields.Nested(Run)


@blueprint.get("/tasks")
@blueprint.arguments(TaskQuery, location="query")
@blueprint.response(200, list_schema(TaskSummary))
def list_tasks(query: Mapping[str, Any]) -> Record:
    """Tasks, those seen last first"""
    with service().reader.begin() as connection:
        found = paginate(connection, tasks_like(connection, query), [Task.id], query)
    return {**found, "data": [summary(row) for row in found["data"]]}


@blueprint.get("/tasks/<string:task_id>")
@blueprint.response(200, TaskDetail)
def show_task(task_id: str) -> Record:
    """One task, with its current response, its source, its follow-ups and its files"""
    with service().reader.begin() as connection:
        return detail(connection, task_id)


@blueprint.get("/tasks/<string:task_id>/lineage")
@blueprint.arguments(LineageQuery, location="query")
@blueprint.response(200, Lineage)
def show_lineage(query: Mapping[str, Any], task_id: str) -> Any:
    """Up to the first task and its attachment, down to everything that followed"""
    with service().reader.begin() as connection:
        found = lineage(connection, task_id, annotation=query.get("annotation"))
    if found is None:
        raise missing(task_id)
    return found


def tasks_like(connection: Connection, query: Mapping[str, Any]) -> Select[Any]:
    """The rows that a TaskQuery asks for, in no order; `summary` makes a TaskSummary of each."""
    columns = [column for column in Task.__table__.c if column.key not in ("params", "extra")]
    statement = _with_current(*columns)
    for name in ("type", "project", "batch", "unique_id"):
        if name in query:
            statement = statement.where(equals_indexed(getattr(Task, name), query[name]))
    for name in ("status", "environment"):
        if name in query:
            statement = statement.where(getattr(Task, name) == query[name])
    if "updated_since" in query:
        statement = statement.where(Task.updated_at >= query["updated_since"])
    if "updated_before" in query:
        statement = statement.where(Task.updated_at < query["updated_before"])
    if "tag" in query:
        statement = statement.where(_has_tag(connection, query["tag"]))
    return statement


def detail(connection: Connection, task_id: str) -> Record:
    """Everything that stands about a task; Refused (404) when it is not known."""
    statement = _with_current(*Task.__table__.c, Response.error, Response.answer, Response.warnings)
    row = connection.execute(statement.where(Task.task_id == task_id)).mappings().one_or_none()
    if row is None:
        raise missing(task_id)
    answer = row["answer"]
    follow_ups = (
        select(
            FollowUp.unique_id,
            FollowUp.workflow,
            FollowUp.step,
            FollowUp.state,
            FollowUp.task_id,
            FollowUp.reason,
        )
        .where(FollowUp.source_task_id == task_id)
        .order_by(FollowUp.id)
        .limit(MOST_FOLLOW_UPS)
    )
    files = (
        select(*ARTIFACT_COLUMNS).where(Artifact.response_id == row["response_id"]).order_by(Artifact.ordinal)
    )
    return {
        **summary(row),
        "warnings": row["warnings"] or [],
        "global_attributes": answer.get("global_attributes") if isinstance(answer, dict) else None,
        "source": _source(connection, row["follow_up_unique_id"]),
        "follow_ups": connection.execute(follow_ups).mappings().all(),
        "artifacts": connection.execute(files).mappings().all() if row["response_id"] else [],
    }


def missing(task_id: str) -> ProblemError:
    return ProblemError(404, f"no task {task_id} is known; GET /api/v1/tasks lists those that are")


def _with_current(*columns: Any) -> Select[Any]:
    number = Response.number.label("response_number")
    count = func.coalesce(Response.annotation_count, 0).label("annotation_count")
    return (
        select(*columns, number, count).select_from(Task).outerjoin(Response, Response.id == Task.response_id)
    )


def summary(row: RowMapping) -> Record:
    review = {
        "status": row["review_status"],
        "comments": row["review_comments"] or [],
        "reviewed_at": row["reviewed_at"],
    }
    return {**row, "review": review}


def _source(connection: Connection, follow_up: str | None) -> RowMapping | None:
    if follow_up is None:
        return None
    columns = (
        FollowUp.workflow,
        FollowUp.step,
        FollowUp.source_task_id.label("task_id"),
        FollowUp.source_annotation.label("annotation"),
        FollowUp.unique_id,
    )
    return (
        connection.execute(select(*columns).where(FollowUp.unique_id == follow_up)).mappings().one_or_none()
    )


def _has_tag(connection: Connection, tag: str) -> Any:
    if connection.dialect.name == "postgresql":
        return type_coerce(Task.tags, JSONB).contains([tag])
    return text("EXISTS (SELECT 1 FROM json_each(tasks.tags) WHERE value = :tag)").bindparams(tag=tag)
