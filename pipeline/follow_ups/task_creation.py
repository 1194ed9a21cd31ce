"""One task is created at Scale for each follow-up, for ever, and canceled there when it is not wanted any more.

Claim and commit; call; record and commit: no transaction is open while Scale is asked.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from models import FollowUp
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id
from pipeline.db.state import delete_state
from pipeline.db.tables import TASKS
from pipeline.events import outbox
from pipeline.follow_ups import joins
from pipeline.follow_ups.pauses import CREATING, check_creation_allowed, throttle_creation
from pipeline.follow_ups.recording import RECALLED, missing_setting
from pipeline.follow_ups.request_files import RequestFileError, with_files
from pipeline.follow_ups.verification import SourceMismatch, verify
from pipeline.http.client import DownloadRefused
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job, RetryLater
from pipeline.receive.ordering import task_columns
from pipeline.receive.rows import link_follow_up, lock_task
from pipeline.service import Service
from scale.client import Client, Conflict, PermanentError, Throttled, Unauthorized
from scale.envelope import parse_task, storable

REFUSED_SECONDS = 60.0
THROTTLED_SECONDS = 30.0
MAX_REASON_LENGTH = 1_000


def create_task(service: Service, job: Job) -> None:
    """Create one task at Scale, or find that it exists. What can never be created ends the follow-up, with the reason."""
    with service.reader.begin() as connection:
        follow_up = _read(connection, job.subject)
        if follow_up is not None and follow_up["state"] == "planned":
            waited = check_creation_allowed(connection, service, follow_up["environment"])
    if follow_up is None or follow_up["state"] != "planned":
        with service.engine.begin() as connection:
            queue.finish(connection, job)
        return
    environment = follow_up["environment"]
    client = service.client(environment)
    assert client is not None  # leave_to_create has looked
    try:
        if service.settings.verify_before_create and follow_up["decided_by"] is None:
            verify(service, client, follow_up)
        request = {
            **with_files(service, job, follow_up),
            "callback_url": service.settings.callback_url,
            "unique_id": follow_up["unique_id"],
        }
        task = create_or_adopt(client, follow_up["task_type"], request)
    except Unauthorized as refused:
        throttle_creation(
            service, environment, f"Scale refuses the API key: {refused.message}", REFUSED_SECONDS
        )
    except Throttled as slow:
        throttle_creation(
            service, environment, "Scale asks to slow down", slow.retry_after or THROTTLED_SECONDS
        )
    except SourceMismatch as doubt:
        fail_or_hold(service, job, follow_up, "held", str(doubt))
    except (DownloadRefused, RequestFileError) as refused:
        fail_or_hold(service, job, follow_up, "failed", f"a file of its request can't be made: {refused}")
    except PermanentError as refused:
        fail_or_hold(
            service, job, follow_up, "failed", f"Scale refused it with {refused.status}: {refused.message}"
        )
    else:
        with service.engine.begin() as connection:
            record_created(connection, follow_up["unique_id"], environment, task)
            outbox.publish_follow_ups(connection, service.subscriptions, [follow_up["unique_id"]])
            if waited:
                delete_state(connection, f"{CREATING}:{environment}")
            queue.finish(connection, job)


def create_or_adopt(client: Client, task_type: str, request: dict[str, Any]) -> dict[str, Any]:
    """The task that has this request's unique_id: made now, or by an attempt whose answer was lost. Raises ScaleError."""
    try:
        return client.create_task(task_type, request)
    except Conflict as conflict:
        task_id = conflict.existing_task_id
        task = client.get_task(task_id) if task_id else client.task_by_unique_id(request["unique_id"])
        if task is None:
            raise
        for name, ours in (("type", task_type), ("callback_url", request["callback_url"])):
            if task.get(name) != ours:
                raise PermanentError(
                    f"{conflict.message} That task is not ours: its {name} is {task.get(name)!r}, not {ours!r}.",
                    conflict.status,
                ) from conflict
        return task


def record_created(connection: Connection, unique_id: str, environment: str, task: dict[str, Any]) -> None:
    """Join the follow-up to its task, with the state that the task has by now: its callback may have come first.

    One that was canceled while Scale was asked is canceled there too.
    """
    described, clock, _ = parse_task(storable(task))
    if not described.task_id:
        raise ValueError(f"Scale's answer to {unique_id} names no task_id")
    moment = clock or described.created_at
    told = {**task_columns(described), "status": described.status, "clock": moment, "described_clock": moment}
    told |= dict.fromkeys(("clock_delivery_id", "described_delivery_id"), new_id() if moment else None)
    named = {
        "task_id": described.task_id,
        "id": new_id(),
        "environment": environment,
        "follow_up_unique_id": unique_id,
    }
    statement = insert(connection, TASKS).values(**named, **told)
    statement = statement.on_conflict_do_update(
        index_elements=["task_id"], set_={"follow_up_unique_id": unique_id}
    )
    task_row = dict(connection.execute(statement.returning(TASKS)).mappings().one())
    if task_row["clock"] is None:  # it was named before, and not described
        connection.execute(update(TASKS).where(TASKS.c.task_id == described.task_id).values(told))
        task_row |= told
    state = connection.scalar(select(FollowUp.state).where(FollowUp.unique_id == unique_id).with_for_update())
    link_follow_up(connection, task_row)
    if state == "canceled":
        queue.enqueue(connection, kinds.CANCEL, [unique_id])


def fail_or_hold(service: Service, job: Job, follow_up: RowMapping, state: str, reason: str) -> None:
    """The follow-up creates no task, or none before a person has looked at it."""
    with service.engine.begin() as connection:
        ended = update(FollowUp).where(
            FollowUp.unique_id == follow_up["unique_id"], FollowUp.state == "planned"
        )
        connection.execute(ended.values(state=state, reason=reason[:MAX_REASON_LENGTH]))
        _publish_change(connection, service, follow_up)
        queue.finish(connection, job)


def cancel_task(service: Service, job: Job) -> None:
    """Cancel the pending task of a follow-up at Scale. One that is finished already stays as it is."""
    with service.reader.begin() as connection:
        follow_up = _read(connection, job.subject)
    if follow_up is None or follow_up["state"] != "created" or follow_up["task_id"] is None:
        with service.engine.begin() as connection:
            queue.finish(connection, job)
        return
    client = service.client(follow_up["environment"])
    if client is None:
        raise RetryLater(f"{missing_setting(service, follow_up['environment'])}", REFUSED_SECONDS)
    recalled = (follow_up["reason"] or "").startswith(RECALLED)
    try:
        client.cancel_task(follow_up["task_id"], clear_unique_id=recalled)
        outcome = {"state": "canceled"}
    except PermanentError as refused:
        recalled = False
        outcome = {"reason": f"Scale would not cancel it: {refused.message}"[:MAX_REASON_LENGTH]}
    with service.engine.begin() as connection:
        if recalled:
            outcome = {**outcome, **detach_task(connection, follow_up)}
        ours = update(FollowUp).where(FollowUp.unique_id == job.subject, FollowUp.state == "created")
        connection.execute(ours.values(**outcome))
        _publish_change(connection, service, follow_up)
        queue.finish(connection, job)


def detach_task(connection: Connection, follow_up: RowMapping) -> dict[str, Any]:
    """Part a follow-up from its canceled task, so that a new answer of the source can ask for it again."""
    task = lock_task(connection, follow_up["task_id"], follow_up["environment"])
    freed = {"follow_up_unique_id": None, "unique_id": None, "status": "canceled"}
    connection.execute(update(TASKS).where(TASKS.c.task_id == task["task_id"]).values(freed))
    queue.enqueue(
        connection, kinds.PLAN, [follow_up["source_task_id"]]
    )  # that may have been answered meanwhile
    return {"task_id": None, "reason": f"{RECALLED}; its task {task['task_id']} was canceled"}


def _publish_change(connection: Connection, service: Service, follow_up: RowMapping) -> None:
    """A follow-up has come to an end by itself: whoever waits for it looks again."""
    outbox.publish_follow_ups(connection, service.subscriptions, [follow_up["unique_id"]])
    joins.recheck_joins(connection, follow_up)
    outbox.enqueue_run_check(connection, service.subscriptions, follow_up["source_task_id"])


def _read(connection: Connection, unique_id: str) -> RowMapping | None:
    columns = FollowUp.__table__.c
    return connection.execute(select(*columns).where(columns.unique_id == unique_id)).mappings().one_or_none()
