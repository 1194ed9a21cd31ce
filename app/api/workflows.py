"""The workflow files as they are read now, their pauses, and the switch that stops all creating."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import fields
from sqlalchemy import Connection

from app.api.blueprint import Blueprint, actor, dispatcher, service
from app.api.lists import OutputSchema, Record, list_schema
from app.api.problems import ProblemError
from pipeline.db.state import get_state
from pipeline.follow_ups import decisions, pauses
from pipeline.follow_ups.pauses import STOPPED
from workflows.definition.document import FileProblem as Finding
from workflows.definition.model import InvalidWorkflow, Workflow

blueprint = Blueprint("workflows", "Workflow files, and the switches that people have")


class WorkflowProblem(OutputSchema):
    line = fields.Integer()
    field = fields.String()
    message = fields.String()


class WorkflowSchema(OutputSchema):
    name = fields.String(allow_none=True, metadata={"description": "Null where a broken file does not tell"})
    path = fields.String()
    digest = fields.String(allow_none=True, metadata={"description": "sha256 of the file; null: set aside"})
    description = fields.String(allow_none=True)
    steps = fields.List(fields.String())
    paused = fields.Boolean()
    broken = fields.Boolean(
        metadata={"description": "The file is set aside whole until its problems are mended"}
    )
    problems = fields.List(fields.Nested(WorkflowProblem))
    warnings = fields.List(fields.Nested(WorkflowProblem))


class Creating(OutputSchema):
    stopped = fields.Boolean()
    stopped_by = fields.String(allow_none=True)
    stopped_at = fields.String(allow_none=True)
    pauses = fields.List(
        fields.Dict(), metadata={"description": "What Scale asked for: {environment, reason, until}"}
    )


@blueprint.get("/workflows")
@blueprint.response(200, list_schema(WorkflowSchema))
def list_workflows() -> Record:
    """Every workflow file, also those that are set aside, with what is wrong in them"""
    with service().reader.begin() as connection:
        paused = pauses.paused(connection)
    files = service().workflows
    data = [_shown(workflow, paused) for workflow in (*files.loaded, *files.invalid)]
    return {"data": sorted(data, key=lambda shown: shown["path"]), "next_cursor": None}


@blueprint.post("/workflows/<string:name>/pause")
@blueprint.response(200, WorkflowSchema)
def pause_workflow(name: str) -> Record:
    """Plan nothing for this workflow until it is resumed"""
    found = _find(name)
    with service().engine.begin() as connection:
        decisions.pause(connection, name, actor())
    return _shown(found, {name})


@blueprint.post("/workflows/<string:name>/resume")
@blueprint.response(200, WorkflowSchema)
def resume_workflow(name: str) -> Record:
    """Plan again, also for what changed during the pause"""
    found = _find(name)
    with service().engine.begin() as connection:
        job_ids = decisions.resume(connection, name, actor())
    dispatcher().dispatch(job_ids)
    return _shown(found, ())


@blueprint.get("/creating")
@blueprint.response(200, Creating)
def show_creating() -> Record:
    """Whether tasks are created at Scale now"""
    with service().reader.begin() as connection:
        return _creating(connection)


@blueprint.post("/creating/stop")
@blueprint.response(200, Creating)
def stop_creating() -> Record:
    """Keep receiving, create nothing"""
    with service().engine.begin() as connection:
        decisions.pause_creation(connection, actor())
        return _creating(connection)


@blueprint.post("/creating/start")
@blueprint.response(200, Creating)
def start_creating() -> Record:
    """Create again"""
    with service().engine.begin() as connection:
        decisions.resume_creation(connection, actor())
        return _creating(connection)


def _find(name: str) -> Workflow | InvalidWorkflow:
    files = service().workflows
    for found in (*files.loaded, *files.invalid):
        if found.name == name:
            return found
    raise ProblemError(404, f"no workflow {name} is known; GET /api/v1/workflows lists those that are")


def _shown(workflow: Workflow | InvalidWorkflow, paused: Iterable[str]) -> Record:
    shown: Record = {"name": workflow.name, "path": workflow.path, "paused": workflow.name in paused}
    if isinstance(workflow, InvalidWorkflow):
        problems = _problems(workflow.errors)
        return {
            **shown,
            "digest": None,
            "description": None,
            "steps": [],
            "broken": True,
            "problems": problems,
            "warnings": [],
        }
    return {
        **shown,
        "digest": workflow.digest,
        "description": workflow.description,
        "steps": [step.name for step in workflow.steps],
        "broken": False,
        "problems": [],
        "warnings": _problems(workflow.warnings),
    }


def _problems(findings: Iterable[Finding]) -> list[Mapping[str, Any]]:
    return [{"line": found.line, "field": found.field, "message": found.message} for found in findings]


def _creating(connection: Connection) -> Record:
    stopped = get_state(connection, STOPPED)
    return {
        "stopped": stopped is not None,
        "stopped_by": (stopped or {}).get("actor"),
        "stopped_at": (stopped or {}).get("at"),
        "pauses": pauses.active_throttles(connection),
    }
