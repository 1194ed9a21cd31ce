"""Workflow files with their problems, pausing them, and pausing the creation of tasks."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from marshmallow import fields

from app.api.blueprint import Blueprint, actor
from app.api.lists import OutputSchema, list_schema
from app.api.problems import ProblemError
from app.extensions import dispatcher, service
from pipeline.follow_ups import decisions, pauses
from pipeline.operations.queries import Record
from pipeline.operations.queries.creation import creation_status
from workflows.definition.document import FileProblem
from workflows.definition.model import InvalidWorkflow, Workflow

blueprint = Blueprint("workflows", "Workflow files, and pausing them.")


class WorkflowProblem(OutputSchema):
    """One problem in a workflow file."""

    line = fields.Integer()
    field = fields.String()
    message = fields.String()


class WorkflowSchema(OutputSchema):
    """A workflow with its file, steps and state."""

    name = fields.String(
        allow_none=True, metadata={"description": "Name. Null if the file is too broken to name it."}
    )
    path = fields.String()
    digest = fields.String(
        allow_none=True, metadata={"description": "SHA-256 of the file. Null if it is not loaded."}
    )
    description = fields.String(allow_none=True)
    steps = fields.List(fields.String())
    paused = fields.Boolean()
    broken = fields.Boolean(
        metadata={"description": "Whether the file has problems. It is not loaded until they are fixed."}
    )
    problems = fields.List(fields.Nested(WorkflowProblem))
    warnings = fields.List(fields.Nested(WorkflowProblem))


class CreationStatus(OutputSchema):
    """Whether tasks are created at the moment, and why not."""

    stopped = fields.Boolean(metadata={"description": "Whether the creation of tasks is paused."})
    stopped_by = fields.String(allow_none=True)
    stopped_at = fields.String(allow_none=True)
    reason = fields.String(
        allow_none=True,
        metadata={"description": "The fault that paused it and the way out; null if a person paused it."},
    )
    environments = fields.List(
        fields.String(), metadata={"description": "Environments in which creation is paused."}
    )
    pauses = fields.List(
        fields.Dict(), metadata={"description": "Rate limits of Scale: {environment, reason, until}."}
    )


@blueprint.get("/workflows")
@blueprint.response(200, list_schema(WorkflowSchema))
def list_workflows() -> Record:
    """List every workflow file with its problems, also those that are not loaded"""
    with service().reader.begin() as connection:
        paused = pauses.paused(connection)
    data = [_body(workflow, paused) for workflow in _all_files()]
    return {"data": sorted(data, key=lambda body: str(body["path"])), "next_cursor": None}


@blueprint.post("/workflows/<string:name>/pause")
@blueprint.response(200, WorkflowSchema)
def pause_workflow(name: str) -> Record:
    """Pause a workflow: it plans nothing until it is resumed"""
    workflow = _find(name)
    with service().engine.begin() as connection:
        decisions.pause(connection, name, actor())
    return _body(workflow, {name})


@blueprint.post("/workflows/<string:name>/resume")
@blueprint.response(200, WorkflowSchema)
def resume_workflow(name: str) -> Record:
    """Resume a workflow; tasks that changed during the pause are planned now"""
    workflow = _find(name)
    with service().engine.begin() as connection:
        job_ids = decisions.resume(connection, name, actor())
    dispatcher().dispatch(job_ids)
    return _body(workflow, ())


@blueprint.get("/creating")
@blueprint.response(200, CreationStatus)
def get_creation_status() -> Record:
    """Get whether tasks are created at Scale now"""
    with service().reader.begin() as connection:
        return creation_status(connection)


@blueprint.post("/creating/stop")
@blueprint.response(200, CreationStatus)
def pause_creation() -> Record:
    """Pause the creation of tasks; receiving and planning continue"""
    with service().engine.begin() as connection:
        decisions.pause_creation(connection, actor())
        return creation_status(connection)


@blueprint.post("/creating/start")
@blueprint.response(200, CreationStatus)
def resume_creation() -> Record:
    """Resume the creation of tasks"""
    with service().engine.begin() as connection:
        decisions.resume_creation(connection, actor())
        return creation_status(connection)


def _all_files() -> list[Workflow | InvalidWorkflow]:
    files = service().workflows
    return [*files.loaded, *files.invalid]


def _find(name: str) -> Workflow | InvalidWorkflow:
    for workflow in _all_files():
        if workflow.name == name:
            return workflow
    raise ProblemError(404, f"no workflow {name} is known; GET /api/v1/workflows lists the known ones.")


def _body(workflow: Workflow | InvalidWorkflow, paused: Container[str | None]) -> Record:
    body: Record = {"name": workflow.name, "path": workflow.path, "paused": workflow.name in paused}
    if isinstance(workflow, InvalidWorkflow):
        nothing: Record = {"digest": None, "description": None, "steps": [], "warnings": []}
        return {**body, **nothing, "broken": True, "problems": _problems(workflow.errors)}
    return {
        **body,
        "digest": workflow.digest,
        "description": workflow.description,
        "steps": [step.name for step in workflow.steps],
        "broken": False,
        "problems": [],
        "warnings": _problems(workflow.warnings),
    }


def _problems(problems: Iterable[FileProblem]) -> list[Mapping[str, Any]]:
    return [{"line": one.line, "field": one.field, "message": one.message} for one in problems]
