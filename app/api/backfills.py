"""Backfills: run a workflow over results that are already stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields
from marshmallow.validate import OneOf, Range

from app.api.blueprint import Blueprint, actor
from app.api.fields import Timestamp, environment_field
from app.api.lists import CostSchema, ListQuery, OutputSchema, list_body, list_schema, paging
from app.api.previews import PlannedFollowUp, loaded_workflow
from app.api.problems import ProblemError
from app.extensions import dispatcher, service
from pipeline.follow_ups import backfill
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import Record
from pipeline.operations.queries import backfills as queries

blueprint = Blueprint("backfills", "Workflows over results that are already stored.")

MAX_EVALUATED = 1_000
"""Results that a preview evaluates: the web process computes it, which also receives callbacks."""


class BackfillRequest(Schema):
    """Which results to run over, and how fast."""

    since = Timestamp(metadata={"description": "Earliest time of a task's newest event."})
    until = Timestamp(metadata={"description": "Time before which a task's newest event is."})
    project = fields.String()
    type = fields.String(metadata={"description": "Type of the task."})
    label = fields.String(metadata={"description": "Label of at least one annotation."})
    batch = fields.String()
    tag = fields.String()
    environment = environment_field()
    limit = fields.Integer(
        validate=Range(1),
        metadata={"description": "Number of results with new follow-ups after which the backfill ends."},
    )
    per_minute = fields.Integer(
        validate=Range(1), metadata={"description": "Maximum number of results a minute."}
    )
    dry_run = fields.Boolean(
        load_default=False, metadata={"description": "Only count what would be created, and start nothing."}
    )


class BackfillSchema(OutputSchema):
    """A backfill with its progress."""

    id = fields.UUID()
    workflow = fields.String()
    requested_by = fields.String()
    filters = fields.Dict()
    max_results = fields.Integer(allow_none=True, metadata={"description": "The limit of the request."})
    per_minute = fields.Integer(allow_none=True)
    state = fields.String(validate=OneOf(backfill.STATES))
    total = fields.Integer(
        metadata={"description": "Number of results that the filters selected at the start."}
    )
    evaluated = fields.Integer()
    not_ready = fields.Integer(metadata={"description": "Results whose files were still to be fetched."})
    failed = fields.Integer(metadata={"description": "Results on which planning itself failed."})
    results = fields.Integer(metadata={"description": "Results with new follow-ups."})
    follow_ups = fields.Integer(metadata={"description": "New follow-ups."})
    started_at = Timestamp()
    updated_at = Timestamp()
    finished_at = Timestamp(allow_none=True)


class BackfillPreviewSchema(OutputSchema):
    """What a backfill would create."""

    matching = fields.Integer(metadata={"description": "Number of results that the filters select."})
    evaluated = fields.Integer(
        metadata={"description": f"Number of evaluated results, at most {MAX_EVALUATED:,}."}
    )
    results = fields.Integer(metadata={"description": "Results with new follow-ups."})
    follow_ups = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Number of follow-ups by state: created, held, skipped, already_exists."},
    )
    cost = fields.Nested(CostSchema)
    examples = fields.List(
        fields.Nested(PlannedFollowUp), metadata={"description": "The first follow-ups with their requests."}
    )


class BackfillAnswer(OutputSchema):
    """The backfill that was started, or its preview."""

    backfill = fields.Nested(BackfillSchema, allow_none=True, metadata={"description": "Null in a dry run."})
    preview = fields.Nested(
        BackfillPreviewSchema, allow_none=True, metadata={"description": "Null unless it is a dry run."}
    )


class BackfillQuery(ListQuery):
    """Filters of backfills."""

    state = fields.String(validate=OneOf(backfill.STATES))


@blueprint.post("/workflows/<string:name>/backfills")
@blueprint.arguments(BackfillRequest)
@blueprint.response(200, BackfillAnswer)
def start_backfill(given: Mapping[str, Any], name: str) -> Record:
    """Run a workflow over stored results, or preview it with `dry_run`"""
    workflow = loaded_workflow(name)
    filters = filters_of(given)
    if given["dry_run"]:
        *_, found = backfill.preview(
            service(), workflow, filters, limit=given.get("limit"), max_evaluated=MAX_EVALUATED
        )
        return {"backfill": None, "preview": preview_body(found)}
    with service().engine.begin() as connection:
        backfill_id, job_ids = backfill.start(
            connection, name, filters, actor(), limit=given.get("limit"), per_minute=given.get("per_minute")
        )
        row = queries.get_backfill(connection, backfill_id)
    dispatcher().dispatch(job_ids)
    return {"backfill": row, "preview": None}


@blueprint.get("/workflows/<string:name>/backfills")
@blueprint.arguments(BackfillQuery, location="query")
@blueprint.response(200, list_schema(BackfillSchema))
def list_backfills(query: Mapping[str, Any], name: str) -> Record:
    """List the backfills of a workflow, the newest first"""
    with service().reader.begin() as connection:
        filters = {**query, "workflow": name}
        return list_body(queries.list_backfills(connection, filters, **paging(query)))


@blueprint.get("/backfills/<uuid:backfill_id>")
@blueprint.response(200, BackfillSchema)
def get_backfill(backfill_id: UUID) -> Record:
    """Get one backfill with its progress"""
    with service().reader.begin() as connection:
        return queries.get_backfill(connection, backfill_id)


@blueprint.post("/backfills/<uuid:backfill_id>/stop")
@blueprint.response(200, BackfillSchema)
def stop_backfill(backfill_id: UUID) -> Record:
    """Stop a backfill after the result that it evaluates now"""
    try:
        with service().engine.begin() as connection:
            queries.get_backfill(connection, backfill_id)
            backfill.stop(connection, backfill_id, actor())
            return queries.get_backfill(connection, backfill_id)
    except InvalidTransition as error:
        raise ProblemError(409, str(error)) from None


@blueprint.post("/backfills/<uuid:backfill_id>/resume")
@blueprint.response(200, BackfillSchema)
def resume_backfill(backfill_id: UUID) -> Record:
    """Go on with a stopped backfill where it stopped"""
    try:
        with service().engine.begin() as connection:
            queries.get_backfill(connection, backfill_id)
            job_ids = backfill.resume(connection, backfill_id, actor())
            row = queries.get_backfill(connection, backfill_id)
    except InvalidTransition as error:
        raise ProblemError(409, str(error)) from None
    dispatcher().dispatch(job_ids)
    return row


def filters_of(given: Mapping[str, Any]) -> Record:
    """Return the filters of a BackfillRequest."""
    return {name: given[name] for name in backfill.FILTERS if name in given}


def preview_body(found: backfill.BackfillPreview) -> Record:
    """Return a preview as the API and the command show it."""
    return {
        "matching": found.matching,
        "evaluated": found.evaluated,
        "results": found.results,
        "follow_ups": dict(found.follow_ups),
        "cost": found.cost.to_json(),
        "examples": found.examples,
    }
