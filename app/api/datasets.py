"""Dataset versions: fixed lists of results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields

from app.api.blueprint import Blueprint
from app.api.fields import Timestamp
from app.api.lists import ListQuery, OutputSchema, list_schema, paging
from app.api.problems import ProblemError
from app.extensions import service
from pipeline.datasets import versions
from pipeline.datasets.filters import Unusable
from pipeline.datasets.versions import UnknownDataset, Version
from pipeline.db.ids import format_timestamp
from pipeline.operations.queries import Record

blueprint = Blueprint("datasets", "Dataset versions, created with `weighbridge datasets create`.")


class Moment(Timestamp):
    """A time in UTC with microseconds and `Z`: `--as-of` with it gives the same members."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format_timestamp(value, "microseconds")


class Dataset(OutputSchema):
    """A dataset version without its members."""

    name = fields.String()
    version = fields.Integer()
    digest = fields.String(metadata={"description": "sha256 over members, splits and classes."})
    filters = fields.Dict(metadata={"description": "What chose the members."})
    as_of = Moment(metadata={"description": "Deliveries received later were not looked at."})
    tasks = fields.Integer()
    annotations = fields.Dict(metadata={"description": "{total, by_type, by_label}"})
    splits = fields.Dict(metadata={"description": "Tasks by split."})
    classes = fields.List(fields.String(), metadata={"description": "Labels in the order of their ids."})
    damage = fields.String(
        allow_none=True, metadata={"description": "Why members are missing; null if none are."}
    )
    created_at = Timestamp()


@blueprint.get("/datasets")
@blueprint.arguments(ListQuery, location="query")
@blueprint.response(200, list_schema(Dataset))
def list_datasets(query: Mapping[str, Any]) -> Record:
    """List dataset versions, newest first"""
    with service().reader.begin() as connection:
        found, next_cursor = versions.page(connection, **paging(query))
    return {"data": [_fields_of(version) for version in found], "next_cursor": next_cursor}


@blueprint.get("/datasets/<string:reference>")
@blueprint.response(200, Dataset)
def get_dataset(reference: str) -> Record:
    """Get one dataset version: NAME@N, or NAME for the newest one"""
    try:
        with service().reader.begin() as connection:
            return _fields_of(versions.find(connection, reference))
    except (Unusable, UnknownDataset) as problem:
        raise ProblemError(404, str(problem.args[0])) from None


def _fields_of(version: Version) -> Record:
    counts = version.counts
    return {
        **{
            name: getattr(version, name)
            for name in ("name", "version", "digest", "filters", "as_of", "classes")
        },
        "tasks": counts["tasks"],
        "annotations": counts["annotations"],
        "splits": counts["splits"],
        "damage": version.damage,
        "created_at": version.created_at,
    }
