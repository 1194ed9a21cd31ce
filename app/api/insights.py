"""Numbers about tasks: how many are open, late and rejected, how long they take, how good they are and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields

from app.api.blueprint import Blueprint
from app.api.fields import Timestamp
from app.api.lists import OutputSchema
from app.api.problems import ProblemError
from app.extensions import service
from pipeline.insights import DEFAULT_GROUPS, KEYS, MAX_TASKS, TABLES, insights
from pipeline.insights.numbers import COUNTS
from pipeline.insights.tasks import GROUPS, TooManyChanges
from pipeline.operations.queries import Record

blueprint = Blueprint("insights", "Numbers about tasks, each with its definition.")

INTEGERS = frozenset(
    (
        *COUNTS, "accepted_annotations", "items", "categories", "shape_pairs", "joins", "annotations", "changes"
    )
)  # fmt: skip
WORDS = frozenset(("limit", *(name for names in KEYS.values() for name in names)))


def check_groups(text: str) -> None:
    """Raise ValidationError for a name that tasks are not grouped by."""
    unknown = [name for name in text.split(",") if name not in GROUPS]
    if unknown:
        raise ValidationError(f"No group is called {', '.join(unknown)}; known: {', '.join(GROUPS)}.")


class CountedQuery(Schema):
    """Which tasks are counted."""

    without = fields.String(
        validate=check_groups,
        metadata={"description": "Groups, separated by commas, for which a counted task has no value."},
    )
    since = Timestamp(metadata={"description": "Earliest creation."})
    until = Timestamp(metadata={"description": "The creation is before this time."})
    as_of = Timestamp(
        metadata={
            "description": "The numbers as they were at this time: callbacks that were received later are left out."
        }
    )


_FILTERS: dict[str, fields.Field[Any]] = {
    name: fields.String(metadata={"description": f"Only tasks with this {name}."}) for name in GROUPS
}
CountedTasksQuery = CountedQuery.from_dict(_FILTERS, name="InsightsTasksQuery")


class InsightsQuery(CountedTasksQuery):  # type: ignore[misc, valid-type]
    """How tasks are grouped, and which of them are counted."""

    group_by = fields.String(
        load_default=",".join(DEFAULT_GROUPS),
        validate=check_groups,
        metadata={"description": f"Names separated by commas: {', '.join(GROUPS)}."},
    )


def _row_schema(table: str, name: str) -> type[Schema]:
    """Return the schema of a row of a table: what it is about, and each number with its definition."""

    def column(key: str, meaning: str | None) -> fields.Field[Any]:
        described: dict[str, Any] = {"metadata": {"description": meaning}} if meaning else {}
        if key in WORDS:
            return fields.String(allow_none=True, **described)
        if key in INTEGERS:
            return fields.Integer(**described)
        return fields.Float(allow_none=True, **described)

    columns = {**dict.fromkeys(KEYS[table]), **TABLES[table]}
    return OutputSchema.from_dict(
        {key: column(key, meaning) for key, meaning in columns.items()}, name=f"Insights{name}"
    )


class Insights(OutputSchema):
    """The numbers of all groups, and what each number means."""

    as_of = Timestamp()
    group_by = fields.List(fields.String())
    currency = fields.String()
    undated = fields.Integer(
        metadata={"description": "Number of tasks without a time of creation, which no number counts."}
    )
    is_whole = fields.Boolean(
        metadata={
            "description": f"Whether all tasks were looked at: false where there are more than {MAX_TASKS:,}; "
            "`weighbridge stats` looks at all of them."
        }
    )
    data = fields.List(fields.Nested(_row_schema("data", "Group")))
    agreement = fields.List(fields.Nested(_row_schema("agreement", "Agreement")))
    label_changes = fields.List(fields.Nested(_row_schema("label_changes", "LabelChange")))
    labels = fields.List(fields.Nested(_row_schema("labels", "Label")))
    budget = fields.List(fields.Nested(_row_schema("budget", "Budget")))
    definitions = fields.Dict(keys=fields.String(), values=fields.String())


def selection(query: Mapping[str, Any]) -> Record:
    """Return what a CountedQuery selects, as the functions of pipeline.insights take it."""
    filters: dict[str, str | None] = {name: query[name] for name in GROUPS if query.get(name) is not None}
    filters |= dict.fromkeys(name for name in (query.get("without") or "").split(",") if name)
    return {"filters": filters, **{name: query.get(name) for name in ("since", "until", "as_of")}}


def read_insights(query: Mapping[str, Any], newest: int | None = MAX_TASKS) -> Record:
    """Return the numbers for the parameters of an InsightsQuery, of the `newest` tasks. Large ones are some seconds old."""
    chosen = selection(query)
    groups = query["group_by"].split(",")

    def read() -> Record:
        with service().reader.begin() as connection:
            return insights(connection, service(), groups, newest=newest, **chosen)

    try:
        return service().totals.get(f"insights {groups} {chosen}", read)
    except TooManyChanges as error:
        raise ProblemError(400, str(error)) from None


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
