"""Batches and projects, which both versions of the API share: create, find and change them."""

from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sandbox.engine import lifecycle
from sandbox.engine.parameters import check_callback_url, check_metadata, find_rules, is_true
from sandbox.engine.sandbox import Sandbox
from sandbox.errors import ScaleError, invalid
from sandbox.storage import clock
from sandbox.storage.store import Batch, Project, Task, object_id

Named = TypeVar("Named", Project, Batch)


def find_project(session: Session, account: str, name: str | None = None, id: str | None = None) -> Project:
    """Return a project by id if there is one, else by name. Raises ScaleError (404)."""
    return _find(session, Project, account, name, id)


def find_batch(session: Session, account: str, name: str | None = None, id: str | None = None) -> Batch:
    """Return a batch by id if there is one, else by name. Raises ScaleError (404)."""
    return _find(session, Batch, account, name, id)


def _find(session: Session, table: type[Named], account: str, name: str | None, id: str | None) -> Named:
    key = table.id == id if id else table.name == name
    found = session.scalar(select(table).where(table.account == account, key))
    if found is None:
        raise ScaleError(404, f'{table.__name__} "{id or name}" not found.')
    return found


def create_project(session: Session, account: str, body: dict[str, Any]) -> Project:
    """Create a project; its first params have version 0. Source: docs, "Project Creation"."""
    name = _required_text(body, "name")
    type_name = _required_text(body, "type")
    find_rules(type_name)
    params = body.get("params") or {}
    if not isinstance(params, dict):
        raise invalid('"params" must be of type object')
    dataset_id = body.get("datasetId")
    if dataset_id is not None and not isinstance(dataset_id, str):
        raise invalid('"datasetId" must be a string')
    if session.scalar(select(Project.id).where(Project.account == account, Project.name == name)):
        raise ScaleError(409, f'A project with the name "{name}" already exists.')
    now = clock.now()
    project = Project(
        id=object_id(),
        account=account,
        name=name,
        type=type_name,
        rapid=is_true(body.get("rapid")),
        studio=is_true(body.get("studio")),
        dataset_id=dataset_id,
        param_history=[_version(params, 0, now)],
        created_at=now,
    )
    session.add(project)
    return project


def set_params(project: Project, body: dict[str, Any]) -> None:
    """Add a version of a project's params: with `patch` over those of the last version, else alone."""
    last = project.param_history[-1]
    before = last if is_true(body.get("patch")) else {}
    params = {name: value for name, value in body.items() if name != "patch"}
    entry = _version({**before, **params}, last["version"] + 1, clock.now())
    project.param_history = [*project.param_history, entry]


def create_batch(session: Session, account: str, project: Project, body: dict[str, Any]) -> Batch:
    """Create a batch. In self-serve projects, or on request of v2, it stays in staging until it is finalized."""
    name = _required_text(body, "name")
    callback = body.get("callback") or None
    if callback is not None:
        check_callback_url(callback, "callback")
    metadata = check_metadata(body.get("metadata") or {})
    if session.scalar(select(Batch.id).where(Batch.account == account, Batch.name == name)):
        raise ScaleError(409, f'A batch with the name "{name}" already exists.')
    staging = project.rapid or project.studio or is_true(body.get("staging_batch"))
    batch = Batch(
        id=object_id(),
        account=account,
        name=name,
        project=project.name,
        status="staging" if staging else "in_progress",
        callback=callback,
        calibration_batch=is_true(body.get("calibration_batch")),
        self_label_batch=is_true(body.get("self_label_batch")),
        metadata_=metadata,
        created_at=clock.now(),
        groups=[],
    )
    session.add(batch)
    return batch


def finalize(session: Session, sandbox: Sandbox, batch: Batch) -> None:
    """Declare a batch complete in tasks: it completes with its last task. Raises ScaleError (400)."""
    if batch.status == "cancelled":
        raise ScaleError(400, f'The batch "{batch.name}" was cancelled and cannot be finalized.')
    batch.finalized = True
    if batch.status == "staging":
        batch.status = "in_progress"
    lifecycle.resume_work(session, sandbox, batch)


def pause(session: Session, sandbox: Sandbox, batch: Batch) -> None:
    """Pause a batch: its pending tasks are not completed. Raises ScaleError (400)."""
    if batch.status not in ("in_progress", "paused"):
        raise ScaleError(400, f"The batch is {batch.status} and cannot be paused.")
    batch.status, batch.finish_at = "paused", None
    lifecycle.stop_work(session, batch)


def resume(session: Session, sandbox: Sandbox, batch: Batch) -> None:
    """Resume a paused batch. Raises ScaleError (400)."""
    if batch.status != "paused":
        raise ScaleError(400, f"The batch is {batch.status} and cannot be resumed.")
    batch.status = "in_progress"
    lifecycle.resume_work(session, sandbox, batch)


def cancel(session: Session, sandbox: Sandbox, batch: Batch) -> None:
    """Cancel a batch and its pending tasks; a cancelled batch stays as it is. Raises ScaleError (400)."""
    if batch.status == "completed":
        raise ScaleError(400, "The batch is completed and cannot be cancelled.")
    batch.status, batch.finish_at = "cancelled", None
    lifecycle.stop_work(session, batch, cancel=True)


def task_counts(session: Session, batch: Batch) -> dict[str, int]:
    """Count the tasks of a batch by status; statuses without tasks are absent."""
    rows = session.execute(
        select(Task.status, func.count())
        .where(Task.account == batch.account, Task.batch == batch.name)
        .group_by(Task.status)
    )
    return {row[0]: row[1] for row in rows}


def deep_merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Merge `new` over `old`: objects key by key, replacing everything else."""
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            value = deep_merge(before, value)
        merged[name] = value
    return merged


def _version(params: dict[str, Any], version: int, now: int) -> dict[str, Any]:
    """Build a version of params. A null removes a parameter of the earlier version."""
    given = {name: value for name, value in params.items() if value is not None}
    return {**given, "version": version, "created_at": clock.format_timestamp(now)}


def _required_text(body: dict[str, Any], field: str) -> str:
    """Return a text of the body. Raises ScaleError (400) if it is missing."""
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise invalid(f'"{field}" is required')
    return value
