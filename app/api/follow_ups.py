"""Follow-ups: the tasks that workflows create, and decisions about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Range
from sqlalchemy import Connection

from app.api.blueprint import Blueprint, actor
from app.api.fields import Timestamp, environment_field
from app.api.lists import CostSchema, ListQuery, OutputSchema, left_out_field, list_body, list_schema, paging
from app.api.problems import ProblemError
from app.bulk_decisions import (
    DECISIONS,
    cost_of,
    decide_many,
    preview_replan,
    replan_many,
    select_follow_ups,
    select_to_replan,
    states_of,
)
from app.extensions import dispatcher, service
from pipeline.db.sizes import MAX_VALUE_CHARACTERS
from pipeline.follow_ups import decisions
from pipeline.follow_ups.prices import cost_of_task
from pipeline.follow_ups.replan import STATES as REPLANNED_STATES
from pipeline.operations.queries import Record
from pipeline.operations.queries import follow_ups as queries

blueprint = Blueprint("follow-ups", "Tasks that workflows create.")

MAX_SELECTED = 10_000
MAX_REPLANNED = 500
"""Follow-ups that one request plans again: Scale is asked about each whose task may exist."""
SELECTING = ("workflow", "step", "source_task_id", "environment", "since")


class FollowUp(OutputSchema):
    """A follow-up as lists show it."""

    unique_id = fields.String()
    workflow = fields.String()
    step = fields.String()
    state = fields.String(validate=OneOf(queries.STATES))
    reason = fields.String(
        allow_none=True, metadata={"description": "Why the follow-up is held, failed or skipped."}
    )
    environment = environment_field()
    source_task_id = fields.String()
    source_annotation = fields.String(allow_none=True)
    task_type = fields.String()
    task_id = fields.String(allow_none=True, metadata={"description": "Id of the created task."})
    depth = fields.Integer(
        metadata={"description": "Number of follow-ups since the first task of the run, including this one."}
    )
    workflow_digest = fields.String(
        metadata={"description": "SHA-256 of the workflow file that planned the follow-up."}
    )
    decided_by = fields.String(allow_none=True)
    decided_at = Timestamp(allow_none=True)
    planned_at = Timestamp()
    created_at = Timestamp(allow_none=True)


class FollowUpDetail(FollowUp):
    """A follow-up with its request."""

    request = fields.Dict(
        allow_none=True,
        metadata={
            "description": "The request to Scale, without callback_url and unique_id; null in place of each file."
            f" Null above {MAX_VALUE_CHARACTERS:,} characters."
        },
    )
    files = fields.List(
        fields.Dict(),
        allow_none=True,
        metadata={"description": "Files of the request, built before it is sent: {path, recipe}."},
    )
    cost = fields.Nested(CostSchema, metadata={"description": "Expected cost of the task."})
    left_out = left_out_field(" `weighbridge follow-ups show` prints them.")


class FollowUpQuery(ListQuery):
    """Filters of the list of follow-ups."""

    state = fields.String(validate=OneOf(queries.STATES))
    workflow = fields.String()
    step = fields.String()
    source_task_id = fields.String()
    task_id = fields.String()
    environment = environment_field()


@blueprint.get("/follow-ups")
@blueprint.arguments(FollowUpQuery, location="query")
@blueprint.response(200, list_schema(FollowUp))
def list_follow_ups(query: Mapping[str, Any]) -> Record:
    """List follow-ups, the most recently planned first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_follow_ups(connection, query, **paging(query)))


@blueprint.get("/follow-ups/<string:unique_id>")
@blueprint.response(200, FollowUpDetail)
def get_follow_up(unique_id: str) -> Mapping[str, Any]:
    """Get one follow-up with its request"""
    with service().reader.begin() as connection:
        return _detail(connection, unique_id)


def _detail(connection: Connection, unique_id: str) -> Record:
    row = queries.get_follow_up(connection, unique_id)
    priced = {"project": row["request_project"]}
    return {**row, "cost": cost_of_task(service().prices, row["task_type"], priced).to_json()}


def _limit_field(maximum: int) -> fields.Integer:
    """Return the field for how many follow-ups filters select."""
    return fields.Integer(
        load_default=maximum,
        validate=Range(1, maximum),
        metadata={"description": "Maximum number of follow-ups that filters select, oldest first."},
    )


def _sample_field(maximum: int) -> fields.Integer:
    """Return the field for the size of a random selection."""
    return fields.Integer(validate=Range(1, maximum), metadata={"description": "Size of a random selection."})


class Selection(Schema):
    """Follow-ups by their ids, or by filters."""

    unique_ids = fields.List(fields.String(), validate=Length(1, MAX_SELECTED))
    workflow = fields.String()
    step = fields.String()
    source_task_id = fields.String()
    environment = environment_field()
    since = Timestamp(metadata={"description": "Earliest time of planning."})
    limit = _limit_field(MAX_SELECTED)
    sample = _sample_field(MAX_SELECTED)


class SelectionPreview(OutputSchema):
    """What a decision about many follow-ups would select."""

    selected = fields.Integer(metadata={"description": "Number of follow-ups that are selected."})
    states = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Number of them by state; `created` ones are tasks at Scale."},
    )
    cost = fields.Nested(CostSchema, metadata={"description": "Expected cost of their tasks."})


class DecisionResult(OutputSchema):
    """What a decision about many follow-ups changed."""

    decided = fields.List(fields.String(), metadata={"description": "unique_ids that were decided about."})
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={"description": "Message by unique_id of each follow-up that could not be decided about."},
    )


@blueprint.post("/follow-ups/approve")
@blueprint.arguments(Selection)
@blueprint.response(200, DecisionResult)
def approve_follow_ups(selection: Mapping[str, Any]) -> Record:
    """Approve held follow-ups by their ids or by filters"""
    return _decide_many("approve", selection)


@blueprint.post("/follow-ups/approve/preview")
@blueprint.arguments(Selection)
@blueprint.response(200, SelectionPreview)
def preview_approval(selection: Mapping[str, Any]) -> Record:
    """Preview an approval: how many follow-ups it selects, and what their tasks cost"""
    unique_ids = _selected("approve", selection)
    return _preview(unique_ids)


@blueprint.post("/follow-ups/cancel/preview")
@blueprint.arguments(Selection)
@blueprint.response(200, SelectionPreview)
def preview_cancellation(selection: Mapping[str, Any]) -> Record:
    """Preview a cancellation: how many follow-ups it selects, how many are tasks at Scale, and what they cost"""
    return _preview(_selected("cancel", selection))


def _preview(unique_ids: Sequence[str]) -> Record:
    return {
        "selected": len(unique_ids),
        "states": states_of(unique_ids),
        "cost": cost_of(unique_ids).to_json(),
    }


@blueprint.post("/follow-ups/cancel")
@blueprint.arguments(Selection)
@blueprint.response(200, DecisionResult)
def cancel_follow_ups(selection: Mapping[str, Any]) -> Record:
    """Cancel follow-ups by their ids or by filters"""
    return _decide_many("cancel", selection)


@blueprint.post("/follow-ups/retry")
@blueprint.arguments(Selection)
@blueprint.response(200, DecisionResult)
def retry_follow_ups(selection: Mapping[str, Any]) -> Record:
    """Retry follow-ups that Scale refused, by their ids or by filters"""
    return _decide_many("retry", selection)


def _decide_many(name: str, selection: Mapping[str, Any]) -> Record:
    unique_ids = _selected(name, selection)
    decided, errors = decide_many(name, unique_ids, actor(), dispatcher().dispatch)
    return {"decided": decided, "errors": {key: str(error) for key, error in errors.items()}}


def _selected(name: str, selection: Mapping[str, Any]) -> Sequence[str]:
    filters = {key: value for key, value in selection.items() if key in SELECTING}
    _require_selection(filters, selection)
    return selection.get("unique_ids") or select_follow_ups(
        name, filters, limit=selection["limit"], sample=selection.get("sample")
    )


def _require_selection(filters: Mapping[str, Any], selection: Mapping[str, Any]) -> None:
    if bool(filters) == ("unique_ids" in selection):
        raise ProblemError(400, f"Pass unique_ids, or at least one of {', '.join(SELECTING)}.")


class ReplanOptions(Schema):
    """Options of planning again."""

    dry_run = fields.Boolean(
        load_default=False, metadata={"description": "Only show what would change, and change nothing."}
    )


class ReplanSelection(ReplanOptions, Selection):
    """Which follow-ups are planned again: unique_ids, or filters."""

    unique_ids = fields.List(fields.String(), validate=Length(1, MAX_REPLANNED))
    state = fields.List(
        fields.String(validate=OneOf(REPLANNED_STATES)),
        load_default=["skipped"],
        metadata={"description": "States that filters select."},
    )
    limit = _limit_field(MAX_REPLANNED)
    sample = _sample_field(MAX_REPLANNED)


class RequestChange(OutputSchema):
    """One value of a request that today's workflow file would change."""

    path = fields.String(metadata={"description": "Path of the value in the request."})
    before = fields.Raw(
        allow_none=True, metadata={"description": "Value of the stored request; `(absent)` without one."}
    )
    after = fields.Raw(allow_none=True, metadata={"description": "Value of the new request."})


class ReplannedFollowUp(OutputSchema):
    """A follow-up that planning again adds."""

    unique_id = fields.String()
    state = fields.String(metadata={"description": "created, as far as the limits allow, or held."})
    reason = fields.String(allow_none=True)
    type = fields.String(metadata={"description": "Type of the task."})
    changes = fields.List(fields.Nested(RequestChange))


class Replanned(OutputSchema):
    """What planning again changed, or would change, of one follow-up."""

    unique_id = fields.String()
    workflow = fields.String(allow_none=True)
    step = fields.String(allow_none=True)
    state = fields.String(allow_none=True, metadata={"description": "State before. Null if it is not known."})
    reason = fields.String(allow_none=True)
    refused = fields.String(
        allow_none=True, metadata={"description": "Why the follow-up stays as it is. Null if it does not."}
    )
    cost = fields.Nested(CostSchema, metadata={"description": "Expected cost of the tasks."})
    follow_ups = fields.List(
        fields.Nested(ReplannedFollowUp), metadata={"description": "What takes its place: mostly itself."}
    )


@blueprint.post("/follow-ups/replan")
@blueprint.arguments(ReplanSelection)
@blueprint.response(200, list_schema(Replanned))
def replan_follow_ups(selection: Mapping[str, Any]) -> Record:
    """Plan follow-ups again with today's workflow files, by their ids or by filters"""
    filters = {key: value for key, value in selection.items() if key in SELECTING}
    _require_selection(filters, selection)
    unique_ids = selection.get("unique_ids") or select_to_replan(
        filters, selection["state"], limit=selection["limit"], sample=selection.get("sample")
    )
    return {"data": _replan(unique_ids, selection["dry_run"]), "next_cursor": None}


@blueprint.post("/follow-ups/<string:unique_id>/replan")
@blueprint.arguments(ReplanOptions)
@blueprint.response(200, Replanned)
def replan_follow_up(options: Mapping[str, Any], unique_id: str) -> Mapping[str, Any]:
    """Plan a follow-up again with today's workflow file"""
    with service().reader.begin() as connection:
        queries.get_follow_up(connection, unique_id)
    (done,) = _replan([unique_id], options["dry_run"])
    if done["refused"] is not None and not options["dry_run"]:
        raise ProblemError(409, done["refused"])
    return done


def _replan(unique_ids: Sequence[str], dry_run: bool) -> list[dict[str, Any]]:
    if dry_run:
        return preview_replan(unique_ids)[0]
    return replan_many(unique_ids, actor(), dispatcher().dispatch)


@blueprint.post("/follow-ups/<string:unique_id>/approve")
@blueprint.response(200, FollowUpDetail)
def approve_follow_up(unique_id: str) -> Mapping[str, Any]:
    """Approve a held follow-up, so that its task is created"""
    return _decide(DECISIONS["approve"].decide, unique_id)


@blueprint.post("/follow-ups/<string:unique_id>/cancel")
@blueprint.response(200, FollowUpDetail)
def cancel_follow_up(unique_id: str) -> Mapping[str, Any]:
    """Cancel a follow-up; a task that was created is canceled at Scale by a job"""
    return _decide(decisions.cancel, unique_id)


@blueprint.post("/follow-ups/<string:unique_id>/retry")
@blueprint.response(200, FollowUpDetail)
def retry_follow_up(unique_id: str) -> Mapping[str, Any]:
    """Retry a follow-up that Scale refused"""
    return _decide(decisions.retry, unique_id)


def _decide(decide: Callable[[Connection, str, str], list[UUID]], unique_id: str) -> Mapping[str, Any]:
    with service().engine.begin() as connection:
        queries.get_follow_up(connection, unique_id)
        job_ids = decide(connection, unique_id, actor())
        row = _detail(connection, unique_id)
    dispatcher().dispatch(job_ids)
    return row
