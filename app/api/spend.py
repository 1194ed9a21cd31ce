"""What tasks cost: planned, committed, spent, and what the limits have left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import OneOf

from app.api.blueprint import Blueprint
from app.api.fields import Timestamp
from app.api.lists import CostSchema, OutputSchema
from app.extensions import service
from pipeline.operations.queries import Record
from pipeline.operations.queries.spend import GROUPS, spend_report

blueprint = Blueprint("spend", "Cost of tasks by the price list, and limits.")


class SpendQuery(Schema):
    """How tasks are grouped, and which of them are counted."""

    by = fields.String(load_default="workflow", validate=OneOf(GROUPS))
    since = Timestamp(metadata={"description": "Earliest creation or planning."})
    until = Timestamp(metadata={"description": "End of the creation or planning, itself excluded."})


class Costs(OutputSchema):
    """Cost of some tasks, by stage."""

    tasks = fields.Integer()
    planned = fields.Nested(
        CostSchema, metadata={"description": "Expected cost of planned and held follow-ups."}
    )
    committed = fields.Nested(
        CostSchema, metadata={"description": "Expected cost of tasks at Scale without a result."}
    )
    spent = fields.Nested(CostSchema, metadata={"description": "Cost of tasks with a result."})


class SpendRow(Costs):
    """One group. The keys that it is not grouped by are null."""

    workflow = fields.String(
        allow_none=True,
        metadata={"description": "With by=workflow or step. Null: tasks that no workflow created."},
    )
    step = fields.String(allow_none=True, metadata={"description": "With by=step."})
    project = fields.String(allow_none=True, metadata={"description": "With by=project."})
    day = fields.String(allow_none=True, metadata={"description": "UTC day, with by=day."})


class UsedLimit(OutputSchema):
    """A limit, and what is left of it."""

    limit = fields.String(metadata={"description": "The limit as text."})
    scope = fields.String(validate=OneOf(("installation", "workflow", "step")))
    workflow = fields.String(allow_none=True)
    step = fields.String(allow_none=True)
    period = fields.String(validate=OneOf(("day", "total")))
    unit = fields.String(metadata={"description": "`tasks`, or the code of a currency."})
    most = fields.Float()
    used = fields.Float()
    left = fields.Float()
    released_at = Timestamp(
        allow_none=True,
        metadata={
            "description": "Beginning of the next day, when a limit of a day is whole again. Null for a total."
        },
    )


class SpendReport(OutputSchema):
    """The cost of all groups, and every limit."""

    by = fields.String(validate=OneOf(GROUPS))
    data = fields.List(fields.Nested(SpendRow))
    total = fields.Nested(Costs)
    limits = fields.List(fields.Nested(UsedLimit))
    currency = fields.String()


@blueprint.get("/spend")
@blueprint.arguments(SpendQuery, location="query")
@blueprint.response(200, SpendReport)
def get_spend(query: Mapping[str, Any]) -> Record:
    """Get what tasks cost by workflow, step, project or day, and what the limits have left"""
    with service().reader.begin() as connection:
        return spend_report(connection, service().workflows, query)
