"""Tasks: Scale's task object, and how a row becomes one. lifecycle.py changes their status."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from sandbox.engine.parameters import CheckedRequest
from sandbox.errors import ScaleError, invalid
from sandbox.settings import is_test_account
from sandbox.storage import clock
from sandbox.storage.store import Batch, Project, Task, object_id

NO_INHERITANCE = -1
"""The project_param_version of a task that inherits no parameters. Source: docs, "Parameter Updating"."""


def task_object(task: Task) -> dict[str, Any]:
    """Return Scale's task object. Fields without a value, such as `tags` or `batch`, are absent, not null."""
    details = task.details
    shown: dict[str, Any] = {
        "task_id": task.task_id,
        "created_at": clock.format_timestamp(task.created_at),
        "updated_at": clock.format_timestamp(task.updated_at),
        "completed_at": None if task.completed_at is None else clock.format_timestamp(task.completed_at),
        "callback_url": details.get("callback_url"),
        "type": task.type,
        "status": task.status,
        "instruction": details.get("instruction"),
        "is_test": is_test_account(task.account),
        "urgency": details.get("urgency", "standard"),
        "metadata": details.get("metadata", {}),
        "project": task.project,
        "batch": task.batch,
        "unique_id": task.unique_id,
        "tags": task.tags or None,
        "customer_review_status": task.review_status,
        **{name: value for name, value in details.items() if name not in _SHOWN_SEPARATELY},
        "params": details["params"],
        "response": details.get("response"),
    }
    return {name: value for name, value in shown.items() if value is not None}


_SHOWN_SEPARATELY = ("callback_url", "instruction", "urgency", "metadata", "params", "response")


def limited_task_object(task: Task) -> dict[str, Any]:
    """Return the part of the task object that `limited_response=true` asks for."""
    shown = task_object(task)
    return {
        name: shown[name]
        for name in ("task_id", "status", "metadata", "project", "otherVersion")
        if name in shown
    }


def match_fields(task: Task) -> dict[str, Any]:
    """Return the fields of a task that a fault rule can match."""
    names = ("account", "task_id", "unique_id", "type", "project", "batch")
    return {name: getattr(task, name) for name in names}


def find_task(session: Session, account: str, task_id: str) -> Task:
    """Return a task of the account. Raises ScaleError (404)."""
    task = session.scalar(select(Task).where(Task.task_id == task_id, Task.account == account))
    if task is None:
        raise ScaleError(404, "Task with that ID not found.")
    return task


def inherited_params(
    session: Session, account: str, request: dict[str, Any]
) -> tuple[Project | None, Batch | None, dict[str, Any]]:
    """Return the project and the batch that a request names, and the parameters that its task inherits.

    Raises ScaleError for an unknown or unsuitable project or batch.
    """
    project = None
    for field in ("project", "batch"):
        if request.get(field) is not None and not isinstance(request[field], str):
            raise invalid(f'"{field}" must be a string')
    batch = _batch_of_request(session, account, request)
    name = batch.project if batch else request.get("project")
    if name is not None:
        project = session.scalar(select(Project).where(Project.account == account, Project.name == name))
        if project is None:
            raise ScaleError(404, f'Project with name "{name}" not found.')
    return project, batch, _params_of(project, request.get("project_param_version"))


def _batch_of_request(session: Session, account: str, request: dict[str, Any]) -> Batch | None:
    """Return the batch that a request names, or None. Raises ScaleError if it cannot take the task."""
    name, project = request.get("batch"), request.get("project")
    if name is None:
        return None
    batch = session.scalar(select(Batch).where(Batch.account == account, Batch.name == name))
    if batch is None:
        raise ScaleError(404, f'Batch with name "{name}" not found.')
    if project is not None and project != batch.project:
        raise ScaleError(400, f'The batch "{batch.name}" does not belong to the project "{project}".')
    if batch.status == "cancelled":
        raise ScaleError(400, f'The batch "{batch.name}" was cancelled and takes no more tasks.')
    return batch


def _params_of(project: Project | None, version: Any) -> dict[str, Any]:
    """Return the params of one version of a project, the last one by default. Raises ScaleError (400)."""
    if project is None or version in (NO_INHERITANCE, str(NO_INHERITANCE)):
        return {}
    history = project.param_history
    if version is not None:
        history = [entry for entry in history if str(entry["version"]) == str(version)]
        if not history:
            raise ScaleError(400, f'Project "{project.name}" has no params of version {version}.')
    return {name: value for name, value in history[-1].items() if name not in ("version", "created_at")}


def new_task(
    account: str,
    type_name: str,
    checked: CheckedRequest,
    request: dict[str, Any],
    project: Project | None,
    batch: Batch | None,
) -> Task:
    """Build a pending task that is not in a session yet."""
    general = dict(checked.general)
    now = clock.now()
    for name in ("project", "batch"):
        general.pop(name, None)
    return Task(
        task_id=object_id(),
        account=account,
        type=type_name,
        status="pending",
        project=project.name if project else None,
        batch=batch.name if batch else None,
        unique_id=general.pop("unique_id", None),
        tags=general.pop("tags", []),
        review_status=None,
        created_at=now,
        updated_at=now,
        completed_at=None,
        complete_at=None,
        review_at=None,
        attempt=0,
        details={"metadata": {}, **general, "params": checked.params},
        request=request,
    )


def check_unique_id_is_free(
    session: Session, account: str, unique_id: str | None, except_task: str | None = None
) -> None:
    """Raise ScaleError (409) if another task of the account than `except_task` has this unique_id."""
    if unique_id is None:
        return
    other = session.scalar(
        select(Task.task_id).where(
            Task.account == account, Task.unique_id == unique_id, Task.task_id != (except_task or "")
        )
    )
    if other is not None:
        raise ScaleError(
            409, f'The unique_id ("{unique_id}") is already used for a different task ({other}).'
        )


def update_task(task: Task, **details: Any) -> None:
    """Set details (None removes one) and advance `updated_at`, even within the same millisecond."""
    merged = {**task.details, **details}
    task.details = {name: value for name, value in merged.items() if value is not None}
    task.updated_at = max(clock.now(), task.updated_at + 1)
