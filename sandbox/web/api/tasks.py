"""Endpoints of /v1/task and /v1/tasks."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, g, request
from sqlalchemy import ColumnElement, Text, func, select
from sqlalchemy import cast as sql_cast

from sandbox.engine import creation, lifecycle
from sandbox.engine.parameters import check_metadata, check_tags, check_unique_id
from sandbox.engine.tasks import (
    check_unique_id_is_free,
    find_task,
    limited_task_object,
    task_object,
    update_task,
)
from sandbox.errors import invalid
from sandbox.storage.store import Task
from sandbox.web.api.request_context import (
    current_account,
    current_sandbox,
    decode_token,
    encode_token,
    query_flag,
    query_limit,
    query_list,
    query_number,
    query_value,
    time_range,
)
from sandbox.web.bodies import read_object, read_strings

tasks = Blueprint("tasks", __name__, url_prefix="/v1")


@tasks.post("/task/<name:type_name>")
def create_task(type_name: str) -> dict[str, Any]:
    """Create a task of a type."""
    return creation.create_task(
        current_sandbox(),
        current_account(),
        type_name,
        read_object(request),
        callback_first="callback_first" in g.faults,
    )


@tasks.get("/task/<name:task_id>")
def get_task(task_id: str) -> dict[str, Any]:
    """Return a task."""
    with current_sandbox().store.read() as session:
        task = find_task(session, current_account(), task_id)
    return _shown_task(task)


@tasks.post("/task/<name:task_id>/cancel")
def cancel_task(task_id: str) -> dict[str, Any]:
    """Cancel a pending task."""
    return lifecycle.cancel(current_sandbox(), current_account(), task_id, query_flag("clear_unique_id"))


@tasks.post("/task/<name:task_id>/unique_id")
def set_unique_id(task_id: str) -> dict[str, Any]:
    """Change the unique_id of a task."""
    unique_id = check_unique_id(read_object(request).get("unique_id"))
    with current_sandbox().store.write() as session:
        task = find_task(session, current_account(), task_id)
        check_unique_id_is_free(session, current_account(), unique_id, except_task=task_id)
        task.unique_id = unique_id
        update_task(task)
        return task_object(task)


@tasks.delete("/task/<name:task_id>/unique_id")
def clear_unique_id(task_id: str) -> dict[str, Any]:
    """Remove the unique_id of a task."""
    with current_sandbox().store.write() as session:
        task = find_task(session, current_account(), task_id)
        if task.unique_id is not None:
            task.unique_id = None
            update_task(task)
        return task_object(task)


@tasks.post("/task/<name:task_id>/setMetadata")
def set_metadata(task_id: str) -> dict[str, Any]:
    """Replace the metadata of a task."""
    metadata = check_metadata(read_object(request))
    with current_sandbox().store.write() as session:
        task = find_task(session, current_account(), task_id)
        update_task(task, metadata=metadata)
        return task_object(task)


@tasks.post("/task/<name:task_id>/tags")
def set_tags(task_id: str) -> dict[str, Any]:
    """Replace the tags of a task."""
    return _change_tags(task_id, lambda _current, given: given)


@tasks.put("/task/<name:task_id>/tags")
def add_tags(task_id: str) -> dict[str, Any]:
    """Add tags to a task."""
    return _change_tags(task_id, lambda current, given: [*current, *given])


@tasks.delete("/task/<name:task_id>/tags")
def delete_tags(task_id: str) -> dict[str, Any]:
    """Remove tags from a task."""
    return _change_tags(task_id, lambda current, given: [tag for tag in current if tag not in given])


@tasks.post("/task/<name:task_id>/audit")
def audit_task(task_id: str) -> dict[str, Any]:
    """Accept or reject a completed task."""
    body = read_object(request)
    accepted = body.get("accepted")
    if isinstance(accepted, str) and accepted.lower() in ("true", "false"):
        accepted = accepted.lower() == "true"
    if not isinstance(accepted, bool):
        raise invalid('"accepted" must be a boolean')
    result = "accepted" if accepted else "rejected"
    return lifecycle.audit(current_sandbox(), current_account(), task_id, result, body.get("comments"))


@tasks.post("/task/<name:task_id>/send_callback")
def send_callback(task_id: str) -> dict[str, Any]:
    """Send the callback of a task again. The path is a guess."""
    return lifecycle.resend(current_sandbox(), current_account(), task_id)


@tasks.get("/tasks")
def list_tasks() -> dict[str, Any]:
    """List tasks, newest first."""
    limit, offset = query_limit(), query_number("offset", 0, 0)
    filters = _list_filters()
    page = select(Task).where(*filters)
    skipped = offset
    if token := query_value("next_token"):
        # The token says where to continue; `offset` applies to the first page only.
        page, skipped = page.where(Task.number < decode_token(token)), 0
    with current_sandbox().store.read() as session:
        total = session.scalar(select(func.count()).select_from(Task).where(*filters))
        # One row more than `limit` shows whether there is another page.
        found = list(session.scalars(page.order_by(Task.number.desc()).offset(skipped).limit(limit + 1)))
    shown, has_more = found[:limit], len(found) > limit
    show = limited_task_object if query_flag("limited_response") else _shown_task
    answer: dict[str, Any] = {
        "docs": [show(task) for task in shown],
        "total": total,
        "limit": limit,
        "offset": offset,
        "has_more": has_more,
    }
    if has_more:
        answer["next_token"] = encode_token(shown[-1].number)
    return answer


def _list_filters() -> list[ColumnElement[bool]]:
    """Return the conditions of the list's query parameters."""
    filters: list[ColumnElement[bool]] = [
        Task.account == current_account(),
        *time_range(Task.created_at, "start_time", "end_time"),
        *time_range(Task.completed_at, "completed_after", "completed_before"),
        *time_range(Task.updated_at, "updated_after", "updated_before"),
    ]
    for name, column in (
        ("project", Task.project),
        ("batch", Task.batch),
        ("type", Task.type),
        ("status", Task.status),
    ):
        if (value := query_value(name)) is not None:
            filters.append(column == value)
    if reviews := query_value("customer_review_status"):
        filters.append(Task.review_status.in_(reviews.split(",")))
    if unique_ids := query_list("unique_id"):
        filters.append(Task.unique_id.in_(unique_ids))
    if tags := query_list("tags"):
        tag = func.json_each(sql_cast(Task.tags, Text)).table_valued("value")
        filters.append(select(1).select_from(tag).where(tag.c.value.in_(tags)).exists())
    return filters


def _change_tags(task_id: str, combine: Callable[[list[str], list[str]], list[str]]) -> dict[str, Any]:
    """Set the tags of a task to the combination of its current ones and those of the body."""
    given = read_strings(request)
    with current_sandbox().store.write() as session:
        task = find_task(session, current_account(), task_id)
        task.tags = check_tags(combine(task.tags, given))
        update_task(task)
        return task_object(task)


def _shown_task(task: Task) -> dict[str, Any]:
    """Return the task object; with `include_attachment_url` also the URLs of uploaded attachments, a guess in form."""
    shown = task_object(task)
    if query_flag("include_attachment_url"):
        params = shown["params"]
        attachments = [params.get("attachment"), *(params.get("attachments") or [])]
        uploads = [url for url in attachments if isinstance(url, str) and url.startswith("scaledata://")]
        if uploads:
            files = current_sandbox().files
            shown["attachmentS3Downloads"] = [
                {"s3URL": files.url_of(url.rpartition("/")[2])} for url in uploads
            ]
    return shown
