"""Runs: first tasks with everything that followed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields
from marshmallow.validate import Range

from app.api.blueprint import Blueprint
from app.api.fields import environment_field
from app.api.lists import ListQuery, list_body, list_schema, paging
from app.api.tasks import Run
from app.extensions import service
from pipeline.operations.queries import Record
from pipeline.operations.queries import runs as queries

blueprint = Blueprint("runs", "First tasks with everything that followed from them.")

MAX_RUNS = 200
"""Runs of one page: each is walked from its first task down."""


class ListedRun(Run):
    """A run with its first task."""

    task_id = fields.String(metadata={"description": "The first task of the run."})
    type = fields.String(allow_none=True)
    environment = environment_field()
    project = fields.String(allow_none=True)
    status = fields.String(allow_none=True, metadata={"description": "Status of the first task at Scale."})
    workflows = fields.List(fields.String(), metadata={"description": "Workflows that planned follow-ups."})
    open = fields.Integer(metadata={"description": "Number of follow-ups that are planned, held or created."})


class RunQuery(ListQuery):
    """Filters of the list of runs."""

    workflow = fields.String(metadata={"description": "Workflow of a follow-up of the first task."})
    environment = environment_field()
    project = fields.String()
    limit = fields.Integer(
        load_default=50, validate=Range(1, MAX_RUNS), metadata={"description": "Maximum number of items."}
    )


@blueprint.get("/runs")
@blueprint.arguments(RunQuery, location="query")
@blueprint.response(200, list_schema(ListedRun))
def list_runs(query: Mapping[str, Any]) -> Record:
    """List the runs that have follow-ups, the most recently discovered first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_runs(connection, query, service().prices, **paging(query)))


@blueprint.get("/runs/<string:task_id>")
@blueprint.response(200, ListedRun)
def get_run(task_id: str) -> Record:
    """Get the run that a task belongs to"""
    with service().reader.begin() as connection:
        return queries.get_run(connection, task_id, service().prices)
