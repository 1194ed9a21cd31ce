"""Preview and explain endpoints: which follow-ups a task would produce, without writing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Response
from marshmallow import Schema, fields

from app.api.blueprint import Blueprint
from app.api.lists import CostSchema, OutputSchema, list_schema, write_lists
from app.api.problems import ProblemError
from app.extensions import service
from pipeline.db.memory_budget import ReadTooLarge
from pipeline.follow_ups.preview import Preview, explanations
from pipeline.operations.queries.views import MAX_CHARACTERS, FilesPending, TooLarge, get_view
from workflows.definition.model import Workflow
from workflows.planning.explain import MAX_ELEMENTS
from workflows.planning.view import View

blueprint = Blueprint("previews", "What workflows would create. Nothing is written.")


class PreviewQuery(Schema):
    """Parameters of a preview."""

    workflow = fields.String(metadata={"description": "Name of the only workflow to evaluate."})


class PlannedFollowUp(OutputSchema):
    """A follow-up that would be planned."""

    unique_id = fields.String()
    workflow = fields.String()
    step = fields.String()
    state = fields.String(
        metadata={"description": "State it would have: created, held, skipped, or already_exists."}
    )
    reason = fields.String(allow_none=True)
    type = fields.String(metadata={"description": "Type of the task."})
    cost = fields.Nested(CostSchema, metadata={"description": "Expected cost of the task."})
    request = fields.Dict(metadata={"description": "The request to Scale, with generated files as recipes."})


class SeenValue(OutputSchema):
    """A part of an expression, and its value for the task."""

    expression = fields.String()
    value = fields.Raw(allow_none=True, metadata={"description": "The value; a large one is described."})


class Condition(OutputSchema):
    """One condition of a step, and whether the task meets it."""

    name = fields.String()
    held = fields.Boolean(allow_none=True, metadata={"description": "Whether it is true. Null if unknown."})
    why = fields.String()
    values = fields.List(fields.Nested(SeenValue), metadata={"description": "What the expression saw."})


class ExplainedElement(OutputSchema):
    """One element of the fan-out, and whether `where` selects it."""

    element = fields.String(allow_none=True, metadata={"description": "The element, as in the unique_id."})
    held = fields.Boolean(allow_none=True)
    values = fields.List(fields.Nested(SeenValue), metadata={"description": "What the expression saw."})


class CurrentFollowUp(OutputSchema):
    """A follow-up that the step has planned from the task."""

    unique_id = fields.String()
    state = fields.String(allow_none=True, metadata={"description": "Null if the follow-up is not recorded."})
    reason = fields.String(allow_none=True)
    task_id = fields.String(allow_none=True)
    cost = fields.Nested(CostSchema, metadata={"description": "Expected cost of the task."})


class Explanation(OutputSchema):
    """Why a step follows from the task, or does not."""

    workflow = fields.String()
    paused = fields.Boolean()
    step = fields.String()
    conditions = fields.List(fields.Nested(Condition))
    elements = fields.Integer(metadata={"description": "Number of elements of the fan-out; 1 without one."})
    left = fields.Integer(metadata={"description": "Number of elements that `where` selects."})
    where = fields.List(
        fields.Nested(ExplainedElement),
        metadata={"description": f"The first {MAX_ELEMENTS} elements of a step with `where`."},
    )
    omitted = fields.Integer(
        metadata={
            "description": "Annotations or items that no element contains: those of an object in other frames, and equal ones."
        }
    )
    follow_ups = fields.List(fields.Nested(CurrentFollowUp))


@blueprint.get("/tasks/<string:task_id>/plan")
@blueprint.arguments(PreviewQuery, location="query")
@blueprint.response(200, list_schema(PlannedFollowUp))
def plan_task(query: Mapping[str, Any], task_id: str) -> Response:
    """Preview the follow-ups of a task with their requests and limits"""
    chosen = _selected(query)
    with planned_here(task_id):
        follow_ups = Preview(service(), chosen).of(_view(task_id))
        return write_lists({"next_cursor": None}, data=map(PlannedFollowUp().dump, follow_ups))


@blueprint.get("/tasks/<string:task_id>/explain")
@blueprint.arguments(PreviewQuery, location="query")
@blueprint.response(200, list_schema(Explanation))
def explain_task(query: Mapping[str, Any], task_id: str) -> Response:
    """Explain each step: its conditions, whether they are true, and its follow-ups"""
    chosen = _selected(query)
    with planned_here(task_id), service().reader.begin() as connection:
        steps = explanations(connection, service(), _view(task_id), chosen)
        return write_lists({"next_cursor": None}, data=map(Explanation().dump, steps))


@contextmanager
def planned_here(task_id: str) -> Iterator[None]:
    """Raise ProblemError (409) for a task that cannot be planned in the web process, or that has too many follow-ups for an answer."""
    try:
        yield
    except FilesPending as error:
        raise ProblemError(409, str(error)) from None
    except (TooLarge, ReadTooLarge):
        raise ProblemError(409, str(TooLarge(task_id))) from None


def _view(task_id: str) -> View:
    with service().reader.begin() as connection:
        return get_view(connection, task_id, MAX_CHARACTERS)


def _selected(query: Mapping[str, Any]) -> list[Workflow]:
    if "workflow" not in query:
        return list(service().workflows.loaded)
    return [loaded_workflow(query["workflow"])]


def loaded_workflow(name: str) -> Workflow:
    """Return a workflow by its name. Raises ProblemError (404) if none of that name is loaded."""
    workflow = service().workflows.workflow(name)
    if workflow is None:
        raise ProblemError(404, f"no workflow {name} is loaded; GET /api/v1/workflows lists the loaded ones.")
    return workflow
