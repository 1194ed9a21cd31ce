"""Scale's batches, as their callbacks describe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields

from app.api.blueprint import Blueprint
from app.api.fields import Timestamp, environment_field
from app.api.lists import ListQuery, OutputSchema, list_body, list_schema, paging
from app.extensions import service
from pipeline.operations.queries import Record
from pipeline.operations.queries import batches as queries

blueprint = Blueprint("batches", "Batches of Scale.")


class Batch(OutputSchema):
    """A batch at Scale, in its newest known state."""

    name = fields.String()
    environment = environment_field()
    project = fields.String(allow_none=True)
    status = fields.String(allow_none=True)
    clock = Timestamp(
        allow_none=True, metadata={"description": "Time of the newest known state, by Scale's dates."}
    )
    details = fields.Dict(allow_none=True, metadata={"description": "The batch object that Scale sent."})


class BatchQuery(ListQuery):
    """Filters of the list of batches."""

    environment = environment_field()
    project = fields.String()
    status = fields.String()
    name = fields.String()


@blueprint.get("/batches")
@blueprint.arguments(BatchQuery, location="query")
@blueprint.response(200, list_schema(Batch))
def list_batches(query: Mapping[str, Any]) -> Record:
    """List batches, the most recently changed first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_batches(connection, query, **paging(query)))
