"""Follow-ups: the tasks that workflows create, and decisions about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from marshmallow import fields
from marshmallow.validate import OneOf
from sqlalchemy import Connection

from app.api.blueprint import Blueprint, actor
from app.api.lists import ListQuery, OutputSchema, Timestamp, list_body, list_schema, paging
from app.api.problems import ProblemError
from app.extensions import dispatcher, service
from pipeline.follow_ups import decisions
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import Record
from pipeline.operations.queries import follow_ups as queries

blueprint = Blueprint("follow-ups", "Tasks that workflows create.")


class FollowUp(OutputSchema):
    unique_id = fields.String()
    workflow = fields.String()
    step = fields.String()
    state = fields.String(validate=OneOf(queries.STATES))
    reason = fields.String(
        allow_none=True, metadata={"description": "Why the follow-up is held, failed or skipped."}
    )
    environment = fields.String(validate=OneOf(("live", "test")))
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
    request = fields.Dict(
        metadata={
            "description": "The request to Scale, without callback_url and unique_id; null in place of each file."
        }
    )
    files = fields.List(
        fields.Dict(),
        allow_none=True,
        metadata={"description": "Files of the request, built before it is sent: {path, recipe}."},
    )


class FollowUpQuery(ListQuery):
    state = fields.String(validate=OneOf(queries.STATES))
    workflow = fields.String()
    step = fields.String()
    source_task_id = fields.String()
    task_id = fields.String()
    environment = fields.String(validate=OneOf(("live", "test")))


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
        return queries.get_follow_up(connection, unique_id)


@blueprint.post("/follow-ups/<string:unique_id>/approve")
@blueprint.response(200, FollowUpDetail)
def approve_follow_up(unique_id: str) -> Mapping[str, Any]:
    """Approve a held follow-up, so that its task is created"""
    return _decide(decisions.approve, unique_id)


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
    try:
        with service().engine.begin() as connection:
            queries.get_follow_up(connection, unique_id)
            job_ids = decide(connection, unique_id, actor())
            row = queries.get_follow_up(connection, unique_id)
    except InvalidTransition as error:
        raise ProblemError(409, str(error)) from None
    dispatcher().dispatch(job_ids)
    return row
