"""Tasks: Scale's task object, and what changes it. Creation is here; what people do to a task is in people.py."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from sandbox.engine.parameters import Checked
from sandbox.errors import ScaleError, invalid
from sandbox.settings import is_test_key
from sandbox.storage import clock
from sandbox.storage.store import Batch, Project, Task, object_id

NO_INHERITANCE = -1
"""The project_param_version that leaves a project's parameters aside. Source: docs, "Parameter Updating"."""


def task_object(task: Task) -> dict[str, Any]:
    """Scale's task object. `tags`, `unique_id` and `batch` are absent, not null, when there are none."""
    details = task.details
    shown: dict[str, Any] = {
        "task_id": task.task_id,
        "created_at": clock.iso(task.created_at),
        "updated_at": clock.iso(task.updated_at),
        "completed_at": None if task.completed_at is None else clock.iso(task.completed_at),
        "callback_url": details.get("callback_url"),
        "type": task.type,
        "status": task.status,
        "instruction": details.get("instruction"),
        "is_test": is_test_key(task.account),
        "urgency": details.get("urgency", "standard"),
        "metadata": details.get("metadata", {}),
        "project": task.project,
        "batch": task.batch,
        "unique_id": task.unique_id,
        "tags": task.tags or None,
        "customer_review_status": task.review_status,
        **{name: value for name, value in details.items() if name not in _OWN_PLACE},
        "params": details["params"],
        "response": details.get("response"),
    }
    return {name: value for name, value in shown.items() if value is not None}


_OWN_PLACE = ("callback_url", "instruction", "urgency", "metadata", "params", "response")


def limited_object(task: Task) -> dict[str, Any]:
    """What `limited_response=true` leaves of a task."""
    whole = task_object(task)
    return {
        name: whole[name]
        for name in ("task_id", "status", "metadata", "project", "otherVersion")
        if name in whole
    }


def matched_by(task: Task) -> dict[str, Any]:
    """What the switch of a fault may name of a task."""
    names = ("account", "task_id", "unique_id", "type", "project", "batch")
    return {name: getattr(task, name) for name in names}


def find_task(session: Session, account: str, task_id: str) -> Task:
    task = session.scalar(select(Task).where(Task.task_id == task_id, Task.account == account))
    if task is None:
        raise ScaleError(404, "Task with that ID not found.")
    return task


def inherited_params(
    session: Session, account: str, request: dict[str, Any]
) -> tuple[Project | None, Batch | None, dict[str, Any]]:
    """The project and the batch that a request names, and the project's parameters that its task inherits."""
    batch = project = None
    for named in ("project", "batch"):
        if request.get(named) is not None and not isinstance(request[named], str):
            raise invalid(f'"{named}" must be a string')
    name = request.get("project")
    if request.get("batch") is not None:
        batch = session.scalar(select(Batch).where(Batch.account == account, Batch.name == request["batch"]))
        if batch is None:
            raise ScaleError(404, f'Batch with name "{request["batch"]}" not found.')
        if name is not None and name != batch.project:
            raise ScaleError(400, f'The batch "{batch.name}" does not belong to the project "{name}".')
        if batch.status == "cancelled":
            raise ScaleError(400, f'The batch "{batch.name}" was cancelled and takes no more tasks.')
        name = batch.project
    if name is not None:
        project = session.scalar(select(Project).where(Project.account == account, Project.name == name))
        if project is None:
            raise ScaleError(404, f'Project with name "{name}" not found.')
    return project, batch, _params_of(project, request.get("project_param_version"))


def _params_of(project: Project | None, version: Any) -> dict[str, Any]:
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
    checked: Checked,
    request: dict[str, Any],
    project: Project | None,
    batch: Batch | None,
) -> Task:
    """A pending task that is not in any session yet."""
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
        answer_at=None,
        rounds=0,
        details={"metadata": {}, **general, "params": checked.params},
        request=request,
    )


def refuse_taken_unique_id(
    session: Session, account: str, unique_id: str | None, but: str | None = None
) -> None:
    """409 when another task of the account, `but` one, has this unique_id."""
    if unique_id is None:
        return
    other = session.scalar(
        select(Task.task_id).where(
            Task.account == account, Task.unique_id == unique_id, Task.task_id != (but or "")
        )
    )
    if other is not None:
        raise ScaleError(
            409, f'The unique_id ("{unique_id}") is already used for a different task ({other}).'
        )


def change(task: Task, **details: Any) -> None:
    """Set details (None removes one) and move `updated_at`, which goes forward even within a millisecond."""
    kept = {**task.details, **details}
    task.details = {name: value for name, value in kept.items() if value is not None}
    task.updated_at = max(clock.now(), task.updated_at + 1)
