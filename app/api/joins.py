"""Joins: steps that wait for the follow-ups of another step, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields
from marshmallow.validate import OneOf

from app.api.blueprint import Blueprint
from app.api.lists import ListQuery, OutputSchema, left_out_field, list_body, list_schema, paging
from app.api.tasks import Join
from app.extensions import service
from pipeline.operations.queries import Record
from pipeline.operations.queries import joins as queries
from workflows.planning.joins import CONCLUSIONS

blueprint = Blueprint("joins", "Steps that wait for the follow-ups of another step.")


class JoinQuery(ListQuery):
    """Filters of the list of joins."""

    workflow = fields.String()
    step = fields.String()
    source_task_id = fields.String()
    verdict = fields.String(validate=OneOf(CONCLUSIONS))
    outcome = fields.String(validate=OneOf((*queries.OUTCOMES, queries.WAITING)))


class Member(OutputSchema):
    """A follow-up that a join waits for."""

    unique_id = fields.String()
    state = fields.String()
    attempt = fields.Integer()
    task_id = fields.String(allow_none=True)
    task_status = fields.String(allow_none=True)
    review = fields.String(allow_none=True)


class JoinDetail(Join):
    """A join with its members."""

    members = fields.List(fields.Nested(Member), metadata={"description": "The first 1,000 members."})
    left_out = left_out_field(" `weighbridge joins show` prints them.")


@blueprint.get("/joins")
@blueprint.arguments(JoinQuery, location="query")
@blueprint.response(200, list_schema(Join))
def list_joins(query: Mapping[str, Any]) -> Record:
    """List joins, the last opened first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_joins(connection, query, **paging(query)))


@blueprint.get("/joins/<string:join_id>")
@blueprint.response(200, JoinDetail)
def get_join(join_id: str) -> Record:
    """Get one join with its members and its reduced value"""
    with service().reader.begin() as connection:
        return queries.get_join(connection, join_id)
