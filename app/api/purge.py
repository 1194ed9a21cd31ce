"""Purge: forget bodies, files and content of named tasks. `weighbridge purge` also purges by age, project and environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf

from app.api.blueprint import Blueprint, actor
from app.api.lists import OutputSchema
from app.api.tokens import require_scope
from app.extensions import service
from pipeline.access.tokens import ADMIN
from pipeline.operations.queries import Record
from pipeline.retention.purge import expand
from pipeline.retention.purge import purge as run
from pipeline.retention.selection import CLASSES, Selection

blueprint = Blueprint("purge", "Forgetting what finished tasks hold.")

MAX_TASKS = 100


class PurgeRequest(Schema):
    """What to purge."""

    task_ids = fields.List(fields.String(), required=True, validate=Length(1, MAX_TASKS))
    classes = fields.List(
        fields.String(validate=OneOf(CLASSES)),
        required=True,
        validate=Length(1),
        metadata={
            "description": "bodies: the bytes of deliveries. artifacts: the content of result files. rows: what was read from both."
        },
    )
    runs = fields.Boolean(
        load_default=False,
        metadata={"description": "Also purge every other task of their runs, such as follow-ups."},
    )
    force = fields.Boolean(
        load_default=False,
        metadata={
            "description": "Also purge members of dataset versions; the versions record that they are gone."
        },
    )
    dry_run = fields.Boolean(load_default=True, metadata={"description": "Count, and change nothing."})


class PurgeCount(OutputSchema):
    """What one class of a purge emptied, and what it left alone."""

    count = fields.Integer(metadata={"description": "Deliveries, artifacts or tasks."})
    bytes = fields.Integer()
    responses = fields.Integer()
    annotations = fields.Integer()
    open = fields.Integer(
        metadata={"description": "Left alone: pending tasks, and what belongs to a run that goes on."}
    )
    protected = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Left alone, by dataset version: what belongs to its members."},
    )
    damaged = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Forced, by dataset version: what belonged to its members."},
    )


class PurgeReport(OutputSchema):
    """The counts of a purge."""

    dry_run = fields.Boolean()
    tasks = fields.List(
        fields.String(), metadata={"description": "The tasks, with `runs` those of their runs."}
    )
    counts = fields.Dict(keys=fields.String(validate=OneOf(CLASSES)), values=fields.Nested(PurgeCount))


@blueprint.post("/purge")
@blueprint.arguments(PurgeRequest)
@blueprint.response(200, PurgeReport)
def purge_tasks(given: Mapping[str, Any]) -> Record:
    """Purge finished tasks, or count what a purge would empty; needs the scope admin

    Identity, status, digests and counts stay, so that late callbacks are recognised and nothing is created twice.
    """
    require_scope(ADMIN)
    with service().reader.begin() as connection:
        task_ids = expand(connection, given["task_ids"], runs=given["runs"])
    selection = Selection(tuple(given["classes"]), task_ids=task_ids, force=given["force"])
    *_, done = run(service(), selection, actor(), dry_run=given["dry_run"])
    return {"dry_run": given["dry_run"], "tasks": task_ids, "counts": done.counts}
