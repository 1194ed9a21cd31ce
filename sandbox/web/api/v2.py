"""Endpoints of /v2 for projects and batches, which version 1 shares. The rest of version 2 is not implemented."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from sandbox.engine import batch_actions
from sandbox.engine.parameters import check_metadata, is_true
from sandbox.engine.sandbox import Sandbox
from sandbox.errors import ScaleError
from sandbox.storage import clock
from sandbox.storage.store import Batch, Project
from sandbox.web.api.request_context import (
    current_account,
    current_sandbox,
    decode_token,
    encode_token,
    query_limit,
    query_list,
    query_value,
    time_range,
)
from sandbox.web.bodies import read_object

v2 = Blueprint("v2", __name__, url_prefix="/v2")


@v2.get("/projects")
def list_projects() -> dict[str, Any]:
    """List projects, newest first."""
    with current_sandbox().store.read() as session:
        mine = select(Project).where(Project.account == current_account()).order_by(Project.number.desc())
        return {"projects": [project_object(project) for project in session.scalars(mine)]}


@v2.get("/project")
def get_project() -> dict[str, Any]:
    """Return a project by id or name."""
    with current_sandbox().store.read() as session:
        return project_object(_find_project(session, query_value("project_id"), query_value("project_name")))


@v2.post("/batch")
def create_batch() -> dict[str, Any]:
    """Create a batch."""
    body = read_object(request)
    with current_sandbox().store.write() as session:
        project = _find_project(session, body.get("project_id"), body.get("project_name"))
        batch = batch_actions.create_batch(session, current_account(), project, body)
        return batch_object(session, batch)


@v2.get("/batch")
def get_batch() -> dict[str, Any]:
    """Return a batch by id or name."""
    with current_sandbox().store.read() as session:
        return batch_object(session, _find_batch(session, query_value("batch_id"), query_value("batch_name")))


@v2.get("/batches")
def list_batches() -> dict[str, Any]:
    """List batches, newest first."""
    limit = query_limit()
    page = select(Batch).where(
        Batch.account == current_account(),
        *time_range(Batch.created_at, "created_after", "created_before"),
        *time_range(Batch.completed_at, "completed_after", "completed_before"),
    )
    if (status := query_value("status")) is not None:
        page = page.where(Batch.status == status)
    if token := query_value("next_token"):
        page = page.where(Batch.number < decode_token(token))
    with current_sandbox().store.read() as session:
        if query_value("project_id") or query_value("project_name"):
            project = _find_project(session, query_value("project_id"), query_value("project_name"))
            page = page.where(Batch.project == project.name)
        found = list(session.scalars(page.order_by(Batch.number.desc()).limit(limit + 1)))
        answer: dict[str, Any] = {"batches": [batch_object(session, batch) for batch in found[:limit]]}
    if len(found) > limit:
        answer["next_token"] = encode_token(found[limit - 1].number)
    return answer


@v2.post("/batch/metadata")
def set_batch_metadata() -> dict[str, Any]:
    """Replace the metadata of a batch, or merge into it, nested objects included."""
    body = read_object(request)
    metadata = check_metadata(body.get("metadata"))
    with current_sandbox().store.write() as session:
        batch = _find_batch(session, body.get("batch_id"), body.get("batch_name"))
        if is_true(body.get("merge")):
            metadata = check_metadata(batch_actions.deep_merge(batch.metadata_, metadata))
        batch.metadata_ = metadata
        return batch_object(session, batch)


@v2.post("/batch/finalize")
def finalize_batch() -> dict[str, Any]:
    """Finalize a batch: it completes with its last task."""
    answer: dict[str, Any] = _change_batch(batch_actions.finalize, "finalized")["batch"]
    return answer


@v2.post("/batch/pause")
def pause_batch() -> dict[str, Any]:
    """Pause a batch."""
    return _change_batch(batch_actions.pause, "paused")


@v2.post("/batch/resume")
def resume_batch() -> dict[str, Any]:
    """Resume a paused batch."""
    return _change_batch(batch_actions.resume, "resumed")


@v2.post("/batch/cancel")
def cancel_batch() -> dict[str, Any]:
    """Cancel a batch and its pending tasks."""
    return _change_batch(batch_actions.cancel, "cancelled")


def _change_batch(action: Callable[[Session, Sandbox, Batch], None], outcome: str) -> dict[str, Any]:
    """Apply an action to the batch that the body names, and return the batch with a message."""
    body = read_object(request)
    with current_sandbox().store.write() as session:
        batch = _find_batch(session, body.get("batch_id"), body.get("batch_name"))
        action(session, current_sandbox(), batch)
        answer = {
            "batch": batch_object(session, batch),
            "message": f'The batch "{batch.name}" was {outcome}.',
        }
    current_sandbox().work_available.set()
    return answer


def _find_project(session: Session, id: Any, name: Any) -> Project:
    if not isinstance(id or name, str):
        raise ScaleError(400, "Either project_id or project_name is required.")
    return batch_actions.find_project(session, current_account(), name, id)


def _find_batch(session: Session, id: Any, name: Any) -> Batch:
    if not isinstance(id or name, str):
        raise ScaleError(400, "Either batch_id or batch_name is required.")
    return batch_actions.find_batch(session, current_account(), name, id)


def project_object(project: Project) -> dict[str, Any]:
    """Return a project in the form of version 2."""
    return {
        "id": project.id,
        "name": project.name,
        "created_at": clock.format_timestamp(project.created_at),
        "types": [project.type],
    }


def batch_object(session: Session, batch: Batch) -> dict[str, Any]:
    """Return a batch in the form of version 2: with the id of its project, or with `expand=project` the project."""
    project = batch_actions.find_project(session, current_account(), batch.project)
    shown = {
        "id": batch.id,
        "name": batch.name,
        "project": project_object(project) if "project" in query_list("expand") else project.id,
        "created_at": clock.format_timestamp(batch.created_at),
        "status": batch.status,
        "metadata": batch.metadata_,
    }
    if batch.completed_at is not None:
        shown["completed_at"] = clock.format_timestamp(batch.completed_at)
    if batch.callback:
        shown["callback"] = batch.callback
    return shown
