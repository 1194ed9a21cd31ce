"""Follow-ups: the tasks that workflows ask for, and what a person decides about one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from marshmallow import fields
from marshmallow.validate import OneOf
from sqlalchemy import Connection, select

from app.api.blueprint import Blueprint, actor, dispatcher, service
from app.api.lists import ListQuery, OutputSchema, Record, Timestamp, list_schema, paginate
from app.api.problems import ProblemError
from models import FollowUp as Row
from pipeline.follow_ups import decisions
from pipeline.follow_ups.decisions import InvalidTransition

blueprint = Blueprint("follow-ups", "Tasks that the workflows ask for, newest first")

STATES = ("planned", "held", "created", "completed", "error", "canceled", "failed", "skipped")


class FollowUp(OutputSchema):
    unique_id = fields.String()
    workflow = fields.String()
    step = fields.String()
    state = fields.String(validate=OneOf(STATES))
    reason = fields.String(allow_none=True, metadata={"description": "Why it is held, failed or skipped"})
    environment = fields.String(validate=OneOf(("live", "test")))
    source_task_id = fields.String()
    source_annotation = fields.String(allow_none=True)
    task_type = fields.String()
    task_id = fields.String(allow_none=True, metadata={"description": "The task that was created"})
    depth = fields.Integer(
        metadata={"description": "Follow-ups since the customer's own task, this one included"}
    )
    workflow_digest = fields.String(metadata={"description": "sha256 of the file that planned it"})
    decided_by = fields.String(allow_none=True)
    decided_at = Timestamp(allow_none=True)
    planned_at = Timestamp()
    created_at = Timestamp(allow_none=True)


class FollowUpDetail(FollowUp):
    request = fields.Dict(metadata={"description": "The body for Scale, without callback_url and unique_id"})


class FollowUpQuery(ListQuery):
    state = fields.String(validate=OneOf(STATES))
    workflow = fields.String()
    step = fields.String()
    source_task_id = fields.String()
    task_id = fields.String()
    environment = fields.String(validate=OneOf(("live", "test")))


COLUMNS = tuple(getattr(Row, name) for name in FollowUp._declared_fields)


@blueprint.get("/follow-ups")
@blueprint.arguments(FollowUpQuery, location="query")
@blueprint.response(200, list_schema(FollowUp))
def list_follow_ups(query: Mapping[str, Any]) -> Record:
    """Follow-ups, those planned last first"""
    statement = select(*COLUMNS, Row.id)
    for name in ("state", "workflow", "step", "source_task_id", "task_id", "environment"):
        if name in query:
            statement = statement.where(getattr(Row, name) == query[name])
    with service().reader.begin() as connection:
        return paginate(connection, statement, [Row.id], query)


@blueprint.get("/follow-ups/<string:unique_id>")
@blueprint.response(200, FollowUpDetail)
def show_follow_up(unique_id: str) -> Any:
    """One follow-up with its request"""
    with service().reader.begin() as connection:
        return _row(connection, unique_id)


@blueprint.post("/follow-ups/<string:unique_id>/approve")
@blueprint.response(200, FollowUpDetail)
def approve_follow_up(unique_id: str) -> Any:
    """Let a held follow-up be created"""
    return _decided(decisions.approve, unique_id)


@blueprint.post("/follow-ups/<string:unique_id>/cancel")
@blueprint.response(200, FollowUpDetail)
def cancel_follow_up(unique_id: str) -> Any:
    """Never create it; one that was created is canceled at Scale a little later"""
    return _decided(decisions.cancel, unique_id)


@blueprint.post("/follow-ups/<string:unique_id>/retry")
@blueprint.response(200, FollowUpDetail)
def retry_follow_up(unique_id: str) -> Any:
    """Ask Scale again for one that it refused"""
    return _decided(decisions.retry, unique_id)


def _decided(decide: Callable[[Connection, str, str], list[UUID]], unique_id: str) -> Any:
    try:
        with service().engine.begin() as connection:
            job_ids = decide(connection, unique_id, actor())
            row = _row(connection, unique_id)
    except LookupError:
        raise _missing(unique_id) from None
    except InvalidTransition as refused:
        raise ProblemError(409, str(refused)) from None
    dispatcher().dispatch(job_ids)
    return row


def _row(connection: Connection, unique_id: str) -> Any:
    statement = select(*COLUMNS, Row.request).where(Row.unique_id == unique_id)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise _missing(unique_id)
    return row


def _missing(unique_id: str) -> ProblemError:
    return ProblemError(
        404, f"no follow-up {unique_id} is known; GET /api/v1/follow-ups lists those that are"
    )
