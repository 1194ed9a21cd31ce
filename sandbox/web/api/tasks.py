"""/v1/task and /v1/tasks."""

from typing import Any

from flask import Blueprint, g, request
from sqlalchemy import ColumnElement, Text, func, select
from sqlalchemy import cast as sql_cast

from sandbox.engine import lifecycle
from sandbox.engine.creation import create
from sandbox.engine.parameters import check_metadata, check_tags, check_unique_id
from sandbox.engine.tasks import change, find_task, limited_object, refuse_taken_unique_id, task_object
from sandbox.errors import invalid
from sandbox.storage.store import Task
from sandbox.web.api.calls import (
    account,
    current_sandbox,
    decode_token,
    encode_token,
    query,
    query_flag,
    query_limit,
    query_list,
    query_number,
    within,
)
from sandbox.web.bodies import read_object, read_texts

tasks = Blueprint("tasks", __name__, url_prefix="/v1")


@tasks.post("/task/<name:type_name>")
def create_task(type_name: str) -> dict[str, Any]:
    return create(
        current_sandbox(),
        account(),
        type_name,
        read_object(request),
        callback_first="callback_first" in g.faults,
    )


@tasks.get("/task/<name:task_id>")
def get_task(task_id: str) -> dict[str, Any]:
    with current_sandbox().store.read() as session:
        task = find_task(session, account(), task_id)
    return _shown(task)


@tasks.post("/task/<name:task_id>/cancel")
def cancel_task(task_id: str) -> dict[str, Any]:
    return lifecycle.cancel(current_sandbox(), account(), task_id, query_flag("clear_unique_id"))


@tasks.post("/task/<name:task_id>/unique_id")
def set_unique_id(task_id: str) -> dict[str, Any]:
    unique_id = check_unique_id(read_object(request).get("unique_id"))
    with current_sandbox().store.write() as session:
        task = find_task(session, account(), task_id)
        refuse_taken_unique_id(session, account(), unique_id, but=task_id)
        task.unique_id = unique_id
        change(task)
        return task_object(task)


@tasks.delete("/task/<name:task_id>/unique_id")
def clear_unique_id(task_id: str) -> dict[str, Any]:
    with current_sandbox().store.write() as session:
        task = find_task(session, account(), task_id)
        if task.unique_id is not None:
            task.unique_id = None
            change(task)
        return task_object(task)


@tasks.post("/task/<name:task_id>/setMetadata")
def set_metadata(task_id: str) -> dict[str, Any]:
    metadata = check_metadata(read_object(request))
    with current_sandbox().store.write() as session:
        task = find_task(session, account(), task_id)
        change(task, metadata=metadata)
        return task_object(task)


@tasks.post("/task/<name:task_id>/tags")
def set_tags(task_id: str) -> dict[str, Any]:
    return _change_tags(task_id, lambda _present, named: named)


@tasks.put("/task/<name:task_id>/tags")
def add_tags(task_id: str) -> dict[str, Any]:
    return _change_tags(task_id, lambda present, named: [*present, *named])


@tasks.delete("/task/<name:task_id>/tags")
def delete_tags(task_id: str) -> dict[str, Any]:
    return _change_tags(task_id, lambda present, named: [tag for tag in present if tag not in named])


@tasks.post("/task/<name:task_id>/audit")
def audit_task(task_id: str) -> dict[str, Any]:
    body = read_object(request)
    accepted = body.get("accepted")
    if isinstance(accepted, str) and accepted.lower() in ("true", "false"):
        accepted = accepted.lower() == "true"
    if not isinstance(accepted, bool):
        raise invalid('"accepted" must be a boolean')
    verdict = "accepted" if accepted else "rejected"
    return lifecycle.audit(current_sandbox(), account(), task_id, verdict, body.get("comments"))


@tasks.post("/task/<name:task_id>/send_callback")
def send_callback(task_id: str) -> dict[str, Any]:
    """Send the callback again. That Scale's path is this one is a guess."""
    return lifecycle.resend(current_sandbox(), account(), task_id)


@tasks.get("/tasks")
def list_tasks() -> dict[str, Any]:
    limit, offset = query_limit(), query_number("offset", 0, 0)
    mine = _filters()
    page = select(Task).where(*mine)
    skipped = offset
    if token := query("next_token"):
        # It says where to go on, whatever was skipped before the first page.
        page, skipped = page.where(Task.number < decode_token(token)), 0
    with current_sandbox().store.read() as session:
        total = session.scalar(select(func.count()).select_from(Task).where(*mine))
        # One more than asked for tells whether there is more.
        found = list(session.scalars(page.order_by(Task.number.desc()).offset(skipped).limit(limit + 1)))
    shown, has_more = found[:limit], len(found) > limit
    show = limited_object if query_flag("limited_response") else _shown
    answer = {"docs": [show(task) for task in shown], "total": total, "limit": limit, "offset": offset}
    answer["has_more"] = has_more
    if has_more:
        answer["next_token"] = encode_token(shown[-1].number)
    return answer


def _filters() -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = [
        Task.account == account(),
        *within(Task.created_at, "start_time", "end_time"),
        *within(Task.completed_at, "completed_after", "completed_before"),
        *within(Task.updated_at, "updated_after", "updated_before"),
    ]
    for name, column in (
        ("project", Task.project),
        ("batch", Task.batch),
        ("type", Task.type),
        ("status", Task.status),
    ):
        if (value := query(name)) is not None:
            filters.append(column == value)
    if reviews := query("customer_review_status"):
        filters.append(Task.review_status.in_(reviews.split(",")))
    if unique_ids := query_list("unique_id"):
        filters.append(Task.unique_id.in_(unique_ids))
    if tags := query_list("tags"):
        tag = func.json_each(sql_cast(Task.tags, Text)).table_valued("value")
        filters.append(select(1).select_from(tag).where(tag.c.value.in_(tags)).exists())
    return filters


def _change_tags(task_id: str, choose: Any) -> dict[str, Any]:
    named = read_texts(request)
    with current_sandbox().store.write() as session:
        task = find_task(session, account(), task_id)
        task.tags = check_tags(choose(task.tags, named))
        change(task)
        return task_object(task)


def _shown(task: Task) -> dict[str, Any]:
    """The task; with `include_attachment_url` also where an uploaded attachment can be read. Its name is a guess."""
    shown = task_object(task)
    if query_flag("include_attachment_url"):
        params = shown["params"]
        named = [params.get("attachment"), *(params.get("attachments") or [])]
        uploads = [
            address for address in named if isinstance(address, str) and address.startswith("scaledata://")
        ]
        if uploads:
            files = current_sandbox().files
            shown["attachmentS3Downloads"] = [
                {"s3URL": files.address_of(address.rpartition("/")[2])} for address in uploads
            ]
    return shown
