"""Before it costs money: what would follow from a task, and why something does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields
from sqlalchemy import select

from app.api.blueprint import Blueprint, service
from app.api.lists import OutputSchema, Record, list_schema
from app.api.problems import ProblemError
from app.api.tasks import missing
from models import Task
from pipeline.follow_ups.preview import Preview, explanations
from pipeline.follow_ups.views import load_snapshot
from workflows.definition.model import Workflow
from workflows.planning.view import View

blueprint = Blueprint("previews", "What workflows would do; nothing is written")


class PreviewQuery(Schema):
    workflow = fields.String(metadata={"description": "Only this workflow"})


class Previewed(OutputSchema):
    unique_id = fields.String()
    workflow = fields.String()
    step = fields.String()
    state = fields.String(metadata={"description": "created, held, skipped, or already_exists"})
    reason = fields.String(allow_none=True)
    type = fields.String()
    request = fields.Dict(metadata={"description": "As Scale would get it; files still as recipes"})


class Condition(OutputSchema):
    name = fields.String()
    held = fields.Boolean(allow_none=True, metadata={"description": "Null: it can't be said"})
    why = fields.String()


class AsItStands(OutputSchema):
    unique_id = fields.String()
    state = fields.String(allow_none=True, metadata={"description": "Null: it is not recorded"})
    reason = fields.String(allow_none=True)
    task_id = fields.String(allow_none=True)


class Explanation(OutputSchema):
    workflow = fields.String()
    paused = fields.Boolean()
    step = fields.String()
    conditions = fields.List(fields.Nested(Condition))
    elements = fields.Integer(metadata={"description": "Of the fan-out; 1 without one"})
    left = fields.Integer(metadata={"description": "Of these, after `where`"})
    follow_ups = fields.List(fields.Nested(AsItStands))


@blueprint.get("/tasks/<string:task_id>/plan")
@blueprint.arguments(PreviewQuery, location="query")
@blueprint.response(200, list_schema(Previewed))
def plan_of_task(query: Mapping[str, Any], task_id: str) -> Record:
    """What would be created, with the exact requests, and where limits would stop"""
    view = seen(task_id)
    return {"data": list(Preview(service(), chosen(query)).of(view)), "next_cursor": None}


@blueprint.get("/tasks/<string:task_id>/explain")
@blueprint.arguments(PreviewQuery, location="query")
@blueprint.response(200, list_schema(Explanation))
def explain_task(query: Mapping[str, Any], task_id: str) -> Record:
    """Each step, each condition, whether it holds, and what followed"""
    view = seen(task_id)
    with service().reader.begin() as connection:
        return {"data": explanations(connection, service(), view, chosen(query)), "next_cursor": None}


def seen(task_id: str) -> View:
    with service().reader.begin() as connection:
        found = load_snapshot(connection, task_id)
        if found is None and connection.scalar(select(Task.task_id).where(Task.task_id == task_id)) is None:
            raise missing(task_id)
    if found is None:
        raise ProblemError(
            409, f"files of {task_id} are still to be fetched: it is planned once they are read"
        )
    return found.view


def chosen(query: Mapping[str, Any]) -> list[Workflow]:
    loaded = service().workflows.loaded
    if "workflow" not in query:
        return list(loaded)
    if (workflow := service().workflows.workflow(query["workflow"])) is None:
        raise ProblemError(
            404, f"no workflow {query['workflow']} is loaded; GET /api/v1/workflows lists them"
        )
    return [workflow]
