"""Tasks with their current response, source, follow-ups and lineage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import OneOf

from app.api.artifacts import Artifact as ArtifactSchema
from app.api.blueprint import Blueprint
from app.api.fields import Timestamp, environment_field
from app.api.lists import CostSchema, ListQuery, OutputSchema, left_out_field, list_body, list_schema, paging
from app.extensions import service
from pipeline.follow_ups.lineage import MAX_ANSWER_LENGTH, MAX_RESULT_CHARACTERS, lineage
from pipeline.operations.queries import Record
from pipeline.operations.queries import tasks as queries
from pipeline.operations.queries.artifacts import MAX_OF_RESPONSE
from pipeline.operations.queries.tasks import MAX_FOLLOW_UPS, REVIEWS, task_not_found

blueprint = Blueprint("tasks", "Tasks of Scale.")


class TaskQuery(ListQuery):
    """Filters of the list of tasks."""

    type = fields.String()
    status = fields.String(metadata={"description": "Status in Scale's own words."})
    project = fields.String()
    batch = fields.String()
    environment = environment_field()
    unique_id = fields.String()
    tag = fields.String(metadata={"description": "A tag that the task has."})
    updated_since = Timestamp(metadata={"description": "Earliest `updated_at`."})
    updated_before = Timestamp(metadata={"description": "`updated_at` is before this time."})
    completed_since = Timestamp(metadata={"description": "Earliest `completed_at`."})
    completed_before = Timestamp(metadata={"description": "`completed_at` is before this time."})
    review = fields.String(validate=OneOf(REVIEWS), metadata={"description": "Status of the review."})
    workflow = fields.String(metadata={"description": "Workflow that created the task."})
    step = fields.String(metadata={"description": "Step that created the task."})
    label = fields.String(metadata={"description": "Label that an annotation of the current response has."})


class Review(OutputSchema):
    """The audit of a completed task."""

    status = fields.String(
        allow_none=True,
        metadata={"description": "accepted, rejected, fixed or commented; null if not reviewed."},
    )
    comments = fields.List(fields.Raw())
    reviewed_at = Timestamp(allow_none=True)


class Source(OutputSchema):
    """The step that created a task."""

    workflow = fields.String()
    step = fields.String()
    task_id = fields.String()
    annotation = fields.String(allow_none=True)
    unique_id = fields.String()


class TaskSummary(OutputSchema):
    """A task as lists show it."""

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
        allow_none=True, metadata={"description": "Number of the current response; null if there is none."}
    )
    response_count = fields.Integer()
    purged_at = Timestamp(
        allow_none=True,
        metadata={"description": "Time at which the content was purged. Identity, status and counts stay."},
    )
    annotation_count = fields.Integer(
        metadata={"description": "Number of annotations of the current response."}
    )
    source = fields.Nested(
        Source,
        allow_none=True,
        metadata={"description": "Step that created the task; null if none did."},
    )


class FollowUpBrief(OutputSchema):
    """A follow-up of the task."""

    unique_id = fields.String()
    workflow = fields.String()
    step = fields.String()
    state = fields.String()
    task_id = fields.String(allow_none=True, metadata={"description": "Id of the created task."})
    reason = fields.String(allow_none=True)


class TaskDetail(TaskSummary):
    """A task with its current response, follow-ups and files."""

    instruction = fields.String(allow_none=True)
    urgency = fields.String(allow_none=True)
    params = fields.Dict(allow_none=True)
    callback_succeeded = fields.Boolean(allow_none=True)
    error = fields.Dict(allow_none=True, metadata={"description": "Error response of Scale."})
    answer = fields.Raw(
        allow_none=True, metadata={"description": "The response without its annotations, under Scale's keys."}
    )
    global_attributes = fields.Raw(allow_none=True)
    warnings = fields.List(
        fields.Raw(), metadata={"description": "Human-readable parse warnings of the current response."}
    )
    left_out = left_out_field(" Download /responses/{number}/content or /deliveries/{id}/body instead.")
    attachmentS3Downloads = fields.Raw(  # noqa: N815  (a key of Scale)
        allow_none=True,
        metadata={"description": "Scale's copies of the attachments, as the task object lists them."},
    )
    prior_responses = fields.Raw(
        allow_none=True, metadata={"description": "Earlier responses that the task object contains."}
    )
    follow_ups = fields.List(
        fields.Nested(FollowUpBrief),
        metadata={
            "description": f"The first {MAX_FOLLOW_UPS:,} follow-ups; /follow-ups?source_task_id= lists all."
        },
    )
    artifacts = fields.List(
        fields.Nested(ArtifactSchema),
        metadata={
            "description": f"The first {MAX_OF_RESPONSE:,} files of the current response; /artifacts?task_id= lists all."
        },
    )


class LineageQuery(Schema):
    """Parameters of a lineage."""

    annotation = fields.String(
        metadata={"description": "uuid of an annotation: only its descendants are returned."}
    )


class Ancestor(OutputSchema):
    """A task above the task."""

    task_id = fields.String()
    type = fields.String(allow_none=True)
    status = fields.String(allow_none=True)
    attachment = fields.Raw(allow_none=True, metadata={"description": "Attachment of the task."})
    source = fields.Nested(Source, allow_none=True, metadata={"description": "Step that created the task."})


class Descendant(FollowUpBrief):
    """A follow-up below the task."""

    source_task_id = fields.String()
    source_annotation = fields.String(allow_none=True)
    depth = fields.Integer(
        metadata={"description": "Number of follow-ups since the task; 1 for a direct one."}
    )
    task_type = fields.String()
    task_status = fields.String(allow_none=True)
    review = fields.String(allow_none=True, metadata={"description": "Status of the task's review."})
    answer = fields.Raw(
        allow_none=True,
        metadata={
            "description": f"Answer of the task; null if there is none, or above {MAX_ANSWER_LENGTH} characters."
        },
    )


class Join(OutputSchema):
    """A step that waits for the follow-ups of another step."""

    id = fields.String()
    workflow = fields.String()
    step = fields.String()
    awaited_step = fields.String(metadata={"description": "Step whose follow-ups the join waits for."})
    source_task_id = fields.String()
    source_annotation = fields.String(allow_none=True)
    expected = fields.Integer(
        allow_none=True,
        metadata={"description": "Number of follow-ups to wait for; null while they are planned."},
    )
    opened_at = Timestamp()
    deadline = Timestamp(allow_none=True)
    fired_at = Timestamp(allow_none=True)
    outcome = fields.String(
        allow_none=True,
        metadata={
            "description": "What was done: fire, hold (what follows is held) or stop (nothing follows). Null while it waits."
        },
    )
    verdict = fields.String(
        allow_none=True,
        metadata={
            "description": "How it ended: agreed or disagreed (`agreement` of the reducer is at least 0.8, or less), or"
            " deadline (fewer results than needed). Null while it waits, or if nothing is compared."
        },
    )
    reason = fields.String(allow_none=True)
    result = fields.Dict(
        allow_none=True,
        metadata={
            "description": f"Result of the reducer. In a lineage null above {MAX_RESULT_CHARACTERS:,} characters; /joins/{{id}} has it."
        },
    )


class RunCost(OutputSchema):
    """Cost of a run by the price list."""

    spent = fields.Nested(CostSchema, metadata={"description": "Cost of the tasks with a result."})
    committed = fields.Nested(
        CostSchema, metadata={"description": "Expected cost of the tasks at Scale without a result."}
    )
    planned = fields.Nested(
        CostSchema, metadata={"description": "Expected cost of the follow-ups that are planned or held."}
    )


class Run(OutputSchema):
    """A first task and everything that followed from it."""

    state = fields.String(metadata={"description": "State: running, held, failed or completed."})
    counts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Number of follow-ups by state."},
    )
    tasks = fields.Integer(
        metadata={"description": "Number of tasks: the first one and every task created from it."}
    )
    started_at = Timestamp(allow_none=True)
    finished_at = Timestamp(allow_none=True, metadata={"description": "End of the run; null while it runs."})
    duration_seconds = fields.Float(allow_none=True)
    cost = fields.Nested(RunCost)


class Lineage(OutputSchema):
    """The tasks above and below a task, and the run that it belongs to."""

    task_id = fields.String()
    ancestors = fields.List(
        fields.Nested(Ancestor),
        metadata={"description": "Tasks from the first one down to this one's source."},
    )
    descendants = fields.List(
        fields.Nested(Descendant), metadata={"description": "Follow-ups below this task, nearest first."}
    )
    truncated = fields.Boolean(metadata={"description": "Whether there are more descendants than listed."})
    joins = fields.List(fields.Nested(Join), metadata={"description": "Joins of the whole run."})
    run = fields.Nested(Run)


@blueprint.get("/tasks")
@blueprint.arguments(TaskQuery, location="query")
@blueprint.response(200, list_schema(TaskSummary))
def list_tasks(query: Mapping[str, Any]) -> Record:
    """List tasks, the most recently discovered first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_tasks(connection, query, **paging(query)))


@blueprint.get("/tasks/<string:task_id>")
@blueprint.response(200, TaskDetail)
def get_task(task_id: str) -> Record:
    """Get one task with its current response, source, follow-ups and files"""
    with service().reader.begin() as connection:
        return queries.get_task(connection, task_id)


@blueprint.get("/tasks/<string:task_id>/lineage")
@blueprint.arguments(LineageQuery, location="query")
@blueprint.response(200, Lineage)
def get_lineage(query: Mapping[str, Any], task_id: str) -> Any:
    """Get the ancestors of a task up to the first one, and everything that followed from it"""
    with service().reader.begin() as connection:
        found = lineage(connection, task_id, service().prices, annotation=query.get("annotation"))
    if found is None:
        raise task_not_found(task_id)
    return found
