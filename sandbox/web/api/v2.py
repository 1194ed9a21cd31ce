"""/v2: projects and batches, the same ones that v1 has. Everything else of v2 is left out."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from sandbox.engine import batch_actions as deeds
from sandbox.engine.parameters import check_metadata
from sandbox.engine.sandbox import Sandbox
from sandbox.errors import ScaleError
from sandbox.storage import clock
from sandbox.storage.store import Batch, Project
from sandbox.web.api.calls import (
    account,
    current_sandbox,
    decode_token,
    encode_token,
    query,
    query_limit,
    query_list,
    within,
)
from sandbox.web.bodies import is_true, read_object

v2 = Blueprint("v2", __name__, url_prefix="/v2")


@v2.get("/projects")
def list_projects() -> dict[str, Any]:
    with current_sandbox().store.read() as session:
        mine = select(Project).where(Project.account == account()).order_by(Project.number.desc())
        return {"projects": [project_object(project) for project in session.scalars(mine)]}


@v2.get("/project")
def get_project() -> dict[str, Any]:
    with current_sandbox().store.read() as session:
        return project_object(_project(session, query("project_id"), query("project_name")))


@v2.post("/batch")
def create_batch() -> dict[str, Any]:
    body = read_object(request)
    with current_sandbox().store.write() as session:
        project = _project(session, body.get("project_id"), body.get("project_name"))
        batch = deeds.create_batch(session, account(), project, body)
        return batch_object(session, batch)


@v2.get("/batch")
def get_batch() -> dict[str, Any]:
    with current_sandbox().store.read() as session:
        return batch_object(session, _batch(session, query("batch_id"), query("batch_name")))


@v2.get("/batches")
def list_batches() -> dict[str, Any]:
    limit = query_limit()
    page = select(Batch).where(
        Batch.account == account(),
        *within(Batch.created_at, "created_after", "created_before"),
        *within(Batch.completed_at, "completed_after", "completed_before"),
    )
    if (status := query("status")) is not None:
        page = page.where(Batch.status == status)
    if token := query("next_token"):
        page = page.where(Batch.number < decode_token(token))
    with current_sandbox().store.read() as session:
        if query("project_id") or query("project_name"):
            project = _project(session, query("project_id"), query("project_name"))
            page = page.where(Batch.project == project.name)
        found = list(session.scalars(page.order_by(Batch.number.desc()).limit(limit + 1)))
        answer: dict[str, Any] = {"batches": [batch_object(session, batch) for batch in found[:limit]]}
    if len(found) > limit:
        answer["next_token"] = encode_token(found[limit - 1].number)
    return answer


@v2.post("/batch/metadata")
def set_batch_metadata() -> dict[str, Any]:
    """Replace a batch's metadata, or merge into it, objects in objects included."""
    body = read_object(request)
    metadata = check_metadata(body.get("metadata"))
    with current_sandbox().store.write() as session:
        batch = _batch(session, body.get("batch_id"), body.get("batch_name"))
        if is_true(body.get("merge")):
            metadata = check_metadata(deeds.deep_merge(batch.metadata_, metadata))
        batch.metadata_ = metadata
        return batch_object(session, batch)


@v2.post("/batch/finalize")
def finalize_batch() -> dict[str, Any]:
    answer: dict[str, Any] = _do(deeds.finalize, "finalized")["batch"]
    return answer


@v2.post("/batch/pause")
def pause_batch() -> dict[str, Any]:
    return _do(deeds.pause, "paused")


@v2.post("/batch/resume")
def resume_batch() -> dict[str, Any]:
    return _do(deeds.resume, "resumed")


@v2.post("/batch/cancel")
def cancel_batch() -> dict[str, Any]:
    return _do(deeds.cancel, "cancelled")


def _do(deed: Callable[[Session, Sandbox, Batch], None], done: str) -> dict[str, Any]:
    body = read_object(request)
    with current_sandbox().store.write() as session:
        batch = _batch(session, body.get("batch_id"), body.get("batch_name"))
        deed(session, current_sandbox(), batch)
        answer = {"batch": batch_object(session, batch), "message": f'The batch "{batch.name}" was {done}.'}
    current_sandbox().wake()
    return answer


def _project(session: Session, id: Any, name: Any) -> Project:
    if not isinstance(id or name, str):
        raise ScaleError(400, "Either project_id or project_name is required.")
    return deeds.find_project(session, account(), name, id)


def _batch(session: Session, id: Any, name: Any) -> Batch:
    if not isinstance(id or name, str):
        raise ScaleError(400, "Either batch_id or batch_name is required.")
    return deeds.find_batch(session, account(), name, id)


def project_object(project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "created_at": clock.iso(project.created_at),
        "types": [project.type],
    }


def batch_object(session: Session, batch: Batch) -> dict[str, Any]:
    """The batch as v2 shows it: `project` is the project's id, or all of it with `expand=project`."""
    project = deeds.find_project(session, account(), batch.project)
    shown = {
        "id": batch.id,
        "name": batch.name,
        "project": project_object(project) if "project" in query_list("expand") else project.id,
        "created_at": clock.iso(batch.created_at),
        "status": batch.status,
        "metadata": batch.metadata_,
    }
    if batch.completed_at is not None:
        shown["completed_at"] = clock.iso(batch.completed_at)
    if batch.callback:
        shown["callback"] = batch.callback
    return shown
