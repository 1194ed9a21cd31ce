"""Scale's batches, as their callbacks tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import fields
from marshmallow.validate import OneOf
from sqlalchemy import func, literal, select

from app.api.blueprint import Blueprint, service
from app.api.lists import ListQuery, OutputSchema, Record, Timestamp, list_schema, paginate
from models import Batch as Row
from models.columns import UtcDateTime

blueprint = Blueprint("batches", "Batches of Scale")


class Batch(OutputSchema):
    name = fields.String()
    environment = fields.String(validate=OneOf(("live", "test")))
    project = fields.String(allow_none=True)
    status = fields.String(allow_none=True)
    clock = Timestamp(allow_none=True, metadata={"description": "When it was so, by Scale's dates"})
    details = fields.Dict(allow_none=True, metadata={"description": "As Scale sent it"})


class BatchQuery(ListQuery):
    environment = fields.String(validate=OneOf(("live", "test")))
    project = fields.String()
    status = fields.String()
    name = fields.String()


@blueprint.get("/batches")
@blueprint.arguments(BatchQuery, location="query")
@blueprint.response(200, list_schema(Batch))
def list_batches(query: Mapping[str, Any]) -> Record:
    """Batches, those that changed last first"""
    long_ago = literal(datetime(1970, 1, 1, tzinfo=UTC), UtcDateTime())
    changed = func.coalesce(Row.clock, long_ago, type_=UtcDateTime()).label("changed")
    statement = select(Row.name, Row.environment, Row.project, Row.status, Row.clock, Row.details, changed)
    for name in ("environment", "project", "status", "name"):
        if name in query:
            statement = statement.where(getattr(Row, name) == query[name])
    with service().reader.begin() as connection:
        return paginate(connection, statement, [changed, Row.environment, Row.name], query)
