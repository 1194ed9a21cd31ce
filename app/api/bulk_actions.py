"""Bulk actions: decisions about all rows that match a filter, made by a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields
from marshmallow.validate import OneOf, Range

from app.api.blueprint import Blueprint, actor
from app.api.fields import Timestamp
from app.api.lists import CostSchema, ListQuery, OutputSchema, list_body, list_schema, paging
from app.api.problems import ProblemError
from app.bulk_decisions import cost_of
from app.extensions import dispatcher, service
from pipeline.jobs import kinds, queue
from pipeline.operations import bulk_actions
from pipeline.operations.queries import Record

blueprint = Blueprint("bulk-actions", "Decisions about all rows that match a filter.")

STATES = (bulk_actions.RUNNING, bulk_actions.COMPLETED, bulk_actions.STOPPED)


class BulkActionRequest(Schema):
    """What is decided, and about which rows."""

    action = fields.String(
        required=True, validate=OneOf(tuple(action.name for action in bulk_actions.ACTIONS))
    )
    filters = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        load_default=dict,
        metadata={
            "description": "Filters of the list that the action belongs to; {} for all rows that it can take."
        },
    )
    expected = fields.Integer(
        validate=Range(0, 2**31 - 1),
        metadata={
            "description": "Number of rows that you expect: nothing is done if more match. Needed unless dry_run."
        },
    )
    dry_run = fields.Boolean(load_default=False, metadata={"description": "Only count rows and cost."})


class BulkActionSchema(OutputSchema):
    """A bulk action with its progress."""

    id = fields.UUID()
    action = fields.String()
    filters = fields.Dict()
    actor = fields.String()
    state = fields.String(validate=OneOf(STATES))
    expected = fields.Integer(metadata={"description": "Number of rows that matched at the start."})
    done = fields.Integer(metadata={"description": "Number of rows that were decided about."})
    failed = fields.Integer(metadata={"description": "Number of rows that had changed meanwhile."})
    cost = fields.String(allow_none=True, metadata={"description": "The cost that was shown before."})
    last_error = fields.String(allow_none=True)
    stopped_by = fields.String(allow_none=True)
    created_at = Timestamp()
    completed_at = Timestamp(allow_none=True)


class BulkActionAnswer(OutputSchema):
    """The action that was begun, or what it would decide about."""

    count = fields.Integer(metadata={"description": "Number of rows that match."})
    cost = fields.Nested(
        CostSchema, allow_none=True, metadata={"description": "Null if the action creates no tasks."}
    )
    command = fields.String(metadata={"description": "The command that does the same."})
    bulk_action = fields.Nested(
        BulkActionSchema, allow_none=True, metadata={"description": "Null in a dry run."}
    )


@blueprint.post("/bulk-actions")
@blueprint.arguments(BulkActionRequest)
@blueprint.response(200, BulkActionAnswer)
def begin_bulk_action(given: Mapping[str, Any]) -> Record:
    """Decide about all rows that match, or count them with `dry_run`"""
    action, filters = bulk_actions.find_action(given["action"]), given["filters"]
    names = bulk_actions.filter_names(action)
    if unknown := sorted(filters.keys() - set(names)):
        raise ProblemError(
            422, f"{action.name} has no filter {', '.join(unknown)}; known: {', '.join(names)}."
        )
    with service().reader.begin() as connection:
        keys = bulk_actions.matching_keys(connection, action, filters)
    cost = cost_of(keys) if action.has_cost else None
    answer = {
        "count": len(keys),
        "cost": None if cost is None else cost.to_json(),
        "command": action.shell_line(filters),
        "bulk_action": None,
    }
    if given["dry_run"]:
        return answer
    if given.get("expected") is None:
        raise ProblemError(422, "Pass `expected`, the number of rows that `dry_run` counts.")
    if len(keys) > given["expected"]:
        raise ProblemError(
            409, f"{len(keys):,} {action.noun} match, more than `expected`. Nothing was changed."
        )
    with service().engine.begin() as connection:
        summary = None if cost is None else cost.summary
        action_id = bulk_actions.request_action(connection, action, filters, actor(), len(keys), summary)
        job_ids = queue.enqueue(connection, kinds.BULK, [str(action_id)])
        row = bulk_actions.get_action(connection, action_id)
    dispatcher().dispatch(job_ids)
    return {**answer, "bulk_action": row}


@blueprint.get("/bulk-actions")
@blueprint.arguments(ListQuery, location="query")
@blueprint.response(200, list_schema(BulkActionSchema))
def list_bulk_actions(query: Mapping[str, Any]) -> Record:
    """List bulk actions, the newest first"""
    with service().reader.begin() as connection:
        return list_body(bulk_actions.list_actions(connection, **paging(query)))


@blueprint.get("/bulk-actions/<uuid:action_id>")
@blueprint.response(200, BulkActionSchema)
def get_bulk_action(action_id: UUID) -> Record:
    """Get one bulk action with its progress"""
    with service().reader.begin() as connection:
        return bulk_actions.get_action(connection, action_id)


@blueprint.post("/bulk-actions/<uuid:action_id>/stop")
@blueprint.response(200, BulkActionSchema)
def stop_bulk_action(action_id: UUID) -> Record:
    """Stop a bulk action after its present batch"""
    with service().engine.begin() as connection:
        bulk_actions.stop_action(connection, action_id, actor())
        return bulk_actions.get_action(connection, action_id)
