"""Numbers about tasks: how many are open, late and rejected, how long they take, how good they are and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields

from app.api.blueprint import Blueprint
from app.api.lists import OutputSchema, Timestamp
from app.extensions import service
from pipeline.operations.insights import DEFAULT_GROUPS, DEFINITIONS, GROUPS, insights
from pipeline.operations.queries import Record

blueprint = Blueprint("insights", "Numbers about tasks, each with its definition.")

COUNTS = frozenset(
    ("created", "open", "late", "completed", "canceled", "error", "reviewed", "accepted", "rejected")
)


def check_groups(text: str) -> None:
    """Raise ValidationError for a name that tasks are not grouped by."""
    unknown = [name for name in text.split(",") if name not in GROUPS]
    if unknown:
        raise ValidationError(f"No group is called {', '.join(unknown)}; known: {', '.join(GROUPS)}.")


class InsightsQuery(Schema):
    """How tasks are grouped, and which of them are counted."""

    group_by = fields.String(
        load_default=",".join(DEFAULT_GROUPS),
        validate=check_groups,
        metadata={"description": f"Names separated by commas: {', '.join(GROUPS)}."},
    )
    since = Timestamp(metadata={"description": "Earliest creation."})
    until = Timestamp(metadata={"description": "The creation is before this time."})
    as_of = Timestamp(
        metadata={"description": "The numbers as they were at this time: later callbacks are left out."}
    )


_NUMBERS: dict[str, fields.Field[Any]] = {
    name: (fields.Integer if name in COUNTS else fields.Float)(
        allow_none=name not in COUNTS, metadata={"description": meaning}
    )
    for name, meaning in DEFINITIONS.items()
}
Group = OutputSchema.from_dict(
    {**{name: fields.String(allow_none=True) for name in GROUPS}, **_NUMBERS}, name="InsightsGroup"
)


class Agreement(OutputSchema):
    """How far the copies of a task agree, by the step that joins them."""

    workflow = fields.String()
    step = fields.String()
    joins = fields.Integer()
    agreed_percent = fields.Float(allow_none=True)
    mean_agreement = fields.Float()
    categories = fields.Integer()
    category_percent = fields.Float(allow_none=True)
    alpha = fields.Float(allow_none=True)


class Insights(OutputSchema):
    """The numbers of all groups, and what each number means."""

    as_of = Timestamp()
    group_by = fields.List(fields.String())
    currency = fields.String()
    data = fields.List(fields.Nested(Group))
    agreement = fields.List(fields.Nested(Agreement))
    definitions = fields.Dict(keys=fields.String(), values=fields.String())


def read_insights(query: Mapping[str, Any]) -> Record:
    """Return the numbers for the parameters of an InsightsQuery."""
    moments = {name: query.get(name) for name in ("since", "until", "as_of")}
    with service().reader.begin() as connection:
        return insights(connection, service().prices, query["group_by"].split(","), **moments)


@blueprint.get("/insights")
@blueprint.arguments(InsightsQuery, location="query")
@blueprint.response(200, Insights)
def get_insights(query: Mapping[str, Any]) -> Record:
    """Get numbers about tasks by project, step, week, status …, with their definitions"""
    return read_insights(query)


@blueprint.get("/stats")
@blueprint.arguments(InsightsQuery, location="query")
@blueprint.response(200, Insights)
def get_stats(query: Mapping[str, Any]) -> Record:
    """Get how many tasks are open, late and rejected, by project and step: the same as /insights"""
    return read_insights(query)
