"""Endpoints of /v1/projects."""

from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import select

from sandbox.engine import batch_actions
from sandbox.errors import ScaleError
from sandbox.storage import clock
from sandbox.storage.store import Project
from sandbox.web.api.request_context import current_account, current_sandbox
from sandbox.web.bodies import read_object

projects = Blueprint("projects", __name__, url_prefix="/v1/projects")

TYPES_WITH_TEMPLATES = ("textcollection", "chat")


@projects.post("")
def create_project() -> dict[str, Any]:
    """Create a project."""
    with current_sandbox().store.write() as session:
        return project_object(batch_actions.create_project(session, current_account(), read_object(request)))


@projects.get("")
def list_projects() -> Response:
    """List projects, newest first."""
    with current_sandbox().store.read() as session:
        mine = session.scalars(
            select(Project).where(Project.account == current_account()).order_by(Project.number.desc())
        )
        return jsonify([project_object(project) for project in mine])


@projects.get("/<name:project>")
def get_project(project: str) -> dict[str, Any]:
    """Return a project by name."""
    with current_sandbox().store.read() as session:
        return project_object(batch_actions.find_project(session, current_account(), project))


@projects.post("/<name:project>/setParams")
def set_project_params(project: str) -> dict[str, Any]:
    """Add a version of a project's params."""
    body = read_object(request)
    with current_sandbox().store.write() as session:
        found = batch_actions.find_project(session, current_account(), project)
        batch_actions.set_params(found, body)
        return project_object(found)


@projects.get("/<name:project>/taskTemplates")
def get_project_template(project: str) -> dict[str, Any]:
    """Return the template of a project's tasks, built from its params."""
    with current_sandbox().store.read() as session:
        found = batch_actions.find_project(session, current_account(), project)
    if found.type not in TYPES_WITH_TEMPLATES:
        raise ScaleError(400, f'Task templates are not supported for the task type "{found.type}".')
    last = found.param_history[-1]
    return {
        "id": found.id,
        "version": last["version"],
        "created_at": clock.format_timestamp(found.created_at),
        "updated_at": last["created_at"],
        "template_variables": {k: v for k, v in last.items() if k not in ("version", "created_at")},
        "auto_onboard_enabled": False,
    }


def project_object(project: Project) -> dict[str, Any]:
    """Return a project in the form of version 1."""
    return {
        "id": project.id,
        "name": project.name,
        "type": project.type,
        "created_at": clock.format_timestamp(project.created_at),
        "param_history": project.param_history,
        "rapid": project.rapid,
        "studio": project.studio,
        "datasetId": project.dataset_id,
    }
