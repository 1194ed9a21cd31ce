"""Create one task at Scale for each follow-up, exactly once, and cancel it there when it is no longer wanted.

Claim and commit; call; record and commit: no transaction is open during a call.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import Connection, bindparam, select, update

from models import FollowUp
from pipeline.db.compiled import Record, fetch_one
from pipeline.db.dialect import insert
from pipeline.db.follow_up_states import CANCELED, CREATED, FAILED, HELD, PLANNED, transition
from pipeline.db.ids import new_id
from pipeline.db.tables import TASKS
from pipeline.events import outbox
from pipeline.events.subscriptions import Subscriptions
from pipeline.follow_ups import joins, pauses
from pipeline.follow_ups.fast_creation import record_usual_creation
from pipeline.follow_ups.recording import RECALLED, missing_setting
from pipeline.follow_ups.request_files import (
    FilesNotBuilt,
    MissingArtifact,
    RequestFileError,
    build_files,
    with_files,
)
from pipeline.follow_ups.verification import SourceMismatch, verify
from pipeline.http.client import DownloadRefused
from pipeline.jobs import kinds, queue, queues, scale_limits
from pipeline.jobs.queue import Job, RetryLater
from pipeline.jobs.rate_limits import wait_until
from pipeline.receive.ordering import task_columns
from pipeline.receive.rows import link_follow_up, lock_task
from pipeline.service import Service
from scale.client import Client, Conflict, PermanentError, ScaleError
from scale.envelope import parse_task, storable
from workflows.planning.reasons import Reason, ReasonCode

log = logging.getLogger(__name__)

MAX_REASON_LENGTH = 1_000


class Creation(NamedTuple):
    """A task at Scale that has the follow-up's unique_id."""

    task: dict[str, Any]
    note: str | None = None  # what is unusual about it


def create_task(service: Service, job: Job) -> None:
    """Create the follow-up's task at Scale, or adopt the one that exists. A refused request ends the follow-up.

    Files of its request are built first, in the queue of downloads: a slow host must not hold every worker.
    """
    follow_up = _as_planned(job) or _read(service, job.subject)
    if follow_up is None or follow_up["state"] != PLANNED:
        return _finish(service, job)
    if job.queue == queues.FETCH:
        return build_request_files(service, job, follow_up)
    environment = follow_up["environment"]
    was_throttled = pauses.check_stops(service, environment, follow_up)
    client = service.client(environment)
    assert client is not None  # checked by check_stops
    try:
        with scale_limits.respect_limits(service.engine, environment):
            if service.settings.verify_before_create and follow_up["decided_by"] is None:
                verify(service, client, follow_up)
            request = {
                **with_files(service, follow_up),
                "callback_url": service.settings.callback_url,
                "unique_id": follow_up["unique_id"],
            }
            creation = create_or_adopt(client, follow_up["task_type"], request)
    except SourceMismatch as error:
        fail_or_hold(service, job, follow_up, HELD, Reason(ReasonCode.VERIFY, str(error)))
    except FilesNotBuilt:
        _continue_in(service, job, queues.FETCH)
    except PermanentError as error:
        why = f"Scale refused it with {error.status}: {error.message}"
        fail_or_hold(service, job, follow_up, FAILED, Reason(ReasonCode.REFUSED, why))
    else:
        check_environment(service, client, environment, creation.task)
        service.accepting.add(environment)
        task_row = created_task_row(follow_up["unique_id"], environment, creation.task)
        is_usual = creation.note is None and not was_throttled
        if not (is_usual and record_usual_creation(service, job, task_row)):
            subscriptions = service.subscriptions
            with service.engine.begin() as connection:
                record_created(connection, task_row, creation.note)
                outbox.publish_follow_ups(connection, subscriptions, [follow_up["unique_id"]])
                if was_throttled:
                    scale_limits.clear_limits(connection, [environment])
                queue.finish(connection, job)
        source, created = follow_up["source_task_id"], creation.task["task_id"]
        log.info("task created", extra={**job.log_fields, "task_id": source, "created_task_id": created})


def build_request_files(service: Service, job: Job, follow_up: Record) -> None:
    """Build the files of a request; then its task is created. What cannot be built ends or holds the follow-up."""
    try:
        build_files(service, job, follow_up)
    except MissingArtifact as missing:
        reason = Reason(ReasonCode.INCOMPLETE, str(missing))
        fail_or_hold(service, job, follow_up, HELD, reason)
    except (DownloadRefused, RequestFileError) as error:
        reason = Reason(ReasonCode.FILE, f"a file of its request cannot be built: {error}")
        fail_or_hold(service, job, follow_up, FAILED, reason)
    else:
        _continue_in(service, job, follow_up["environment"])


def _continue_in(service: Service, job: Job, name: str) -> None:
    """Make the job due in another queue."""
    with service.engine.begin() as connection:
        queue.move(connection, job, name)


def create_or_adopt(client: Client, task_type: str, request: dict[str, Any]) -> Creation:
    """Create the task, or return the one that has the request's unique_id: a former attempt's, whose answer was lost.

    Raises ScaleError.
    """
    try:
        return Creation(client.create_task(task_type, request))
    except Conflict as conflict:
        task_id = conflict.existing_task_id
        task = client.get_task(task_id) if task_id else client.task_by_unique_id(request["unique_id"])
        if task is None:
            raise
        if task.get("type") != task_type:
            raise PermanentError(
                f"{conflict.message} That task is not ours: its type is {task.get('type')!r}, not {task_type!r}.",
                conflict.status,
            ) from conflict
        return Creation(task, _callback_note(task.get("callback_url"), request["callback_url"]))


def _callback_note(actual: Any, expected: str) -> str | None:
    """Return what to know about a task that was created while PUBLIC_URL was another one."""
    if actual == expected:
        return None
    return (
        f"the task calls back to {actual}, not to {expected}: it was created before PUBLIC_URL changed;"
        " `weighbridge reconcile` fetches its result"
    )


def check_environment(service: Service, client: Client, environment: str, task: dict[str, Any]) -> None:
    """Pause creation in the environment, and raise RetryLater, if Scale created the task in the other one.

    Scale's `is_test` tells which account an API key belongs to. The task is canceled as far as Scale allows.
    """
    is_test = task.get("is_test")
    if not isinstance(is_test, bool) or is_test == (environment == "test"):
        return
    with suppress(ScaleError):
        client.cancel_task(task["task_id"], clear_unique_id=True)
    _pause_for_wrong_key(service, environment, task["task_id"])


def _pause_for_wrong_key(service: Service, environment: str, task_id: str) -> NoReturn:
    setting, other = ("SCALE_TEST_API_KEY", "live") if environment == "test" else ("SCALE_API_KEY", "test")
    reason = (
        f"{setting} created the {other} task {task_id} for a {environment} result: it is a {other} key."
        f" Set a {environment} key and restart"
    )
    log.error(
        "api key of the wrong environment: creation paused",
        extra={"environment": environment, "setting": setting, "created_task_id": task_id},
    )
    with service.engine.begin() as connection:
        pauses.insert_creation_pauses(connection, "weighbridge", (environment,), reason)
    raise RetryLater(reason, pauses.PAUSED_RETRY_SECONDS)


def created_task_row(unique_id: str, environment: str, task: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a task as Scale's answer describes it."""
    described, clock, _ = parse_task(storable(task))
    if not described.task_id:
        raise ValueError(f"Scale's answer to {unique_id} has no task_id")
    moment = clock or described.created_at
    return {
        "task_id": described.task_id,
        "id": new_id(),
        "environment": environment,
        "follow_up_unique_id": unique_id,
        **task_columns(described),
        "status": described.status,
        "clock": moment,
        "described_clock": moment,
        **dict.fromkeys(("clock_delivery_id", "described_delivery_id"), new_id() if moment else None),
    }


IDENTITY = ("task_id", "id", "environment", "follow_up_unique_id")


def record_created(connection: Connection, task_row: dict[str, Any], note: str | None) -> None:
    """Link the follow-up to its task, in the state that the task has by now: its callback may have come first.

    A follow-up that was canceled during the call is canceled at Scale too.
    """
    unique_id = task_row["follow_up_unique_id"]
    inserted = connection.execute(_insert_task(connection.dialect.name), task_row)
    stored = dict(inserted.mappings().one())
    if stored["clock"] is None:  # a callback named the task without describing it
        columns = {name: value for name, value in task_row.items() if name not in IDENTITY}
        connection.execute(update(TASKS).where(TASKS.c.task_id == stored["task_id"]).values(columns))
        stored |= columns
    state = connection.scalar(_LOCK_STATE, {"this": unique_id})
    link_follow_up(connection, stored)
    if note:
        connection.execute(update(FollowUp).where(FollowUp.unique_id == unique_id).values(reason=note))
    if state == CANCELED:
        queue.enqueue(connection, kinds.CANCEL, [unique_id])


def fail_or_hold(service: Service, job: Job, follow_up: Record, state: str, reason: Reason) -> None:
    """End a follow-up that creates no task, or hold it until a person has looked at it."""
    subscriptions = service.subscriptions
    with service.engine.begin() as connection:
        shortened = reason._replace(text=reason.text[:MAX_REASON_LENGTH])
        transition(connection, [follow_up["unique_id"]], state, shortened, previous=(PLANNED,))
        _publish_change(connection, subscriptions, follow_up)
        queue.finish(connection, job)


def cancel_task(service: Service, job: Job) -> None:
    """Cancel the pending task of a follow-up at Scale. A finished one stays as it is."""
    follow_up = _read(service, job.subject)
    if follow_up is None or follow_up["state"] != CREATED or follow_up["task_id"] is None:
        return _finish(service, job)
    wait_until(follow_up["limited_until"], follow_up["limit_reason"])
    client = service.client(follow_up["environment"])
    if client is None:
        why = missing_setting(service, follow_up["environment"])
        raise RetryLater(str(why), scale_limits.UNAUTHORIZED_RETRY_SECONDS)
    recalled = follow_up["reason_code"] == ReasonCode.RECALLED
    refusal = None
    try:
        with scale_limits.respect_limits(service.engine, follow_up["environment"]):
            client.cancel_task(follow_up["task_id"], clear_unique_id=recalled)
    except PermanentError as error:
        refusal = f"Scale refuses to cancel it: {error.message}"[:MAX_REASON_LENGTH]
    subscriptions = service.subscriptions
    with service.engine.begin() as connection:
        if refusal is not None:
            transition(connection, [job.subject], CREATED, refusal, previous=(CREATED,))
        elif recalled:
            detach_task(connection, follow_up)
        else:
            transition(connection, [job.subject], CANCELED, previous=(CREATED,))
        _publish_change(connection, subscriptions, follow_up)
        queue.finish(connection, job)


def detach_task(connection: Connection, follow_up: Record) -> None:
    """Detach a follow-up from its canceled task, so that a new response of the source can plan it again."""
    task = lock_task(connection, follow_up["task_id"], follow_up["environment"])
    columns = {"follow_up_unique_id": None, "unique_id": None, "status": "canceled"}
    connection.execute(update(TASKS).where(TASKS.c.task_id == task["task_id"]).values(columns))
    queue.enqueue(connection, kinds.PLAN, [follow_up["source_task_id"]])  # it may have a new response by now
    reason = RECALLED._replace(text=f"{RECALLED.text}; its task {task['task_id']} was canceled")
    transition(connection, [follow_up["unique_id"]], CANCELED, reason, previous=(CREATED,), task_id=None)


def _publish_change(connection: Connection, subscriptions: Subscriptions, follow_up: Record) -> None:
    """Publish a follow-up that ended by itself, and enqueue the joins and the run that wait for it."""
    outbox.publish_follow_ups(connection, subscriptions, [follow_up["unique_id"]])
    joins.recheck_joins(connection, follow_up)
    outbox.enqueue_run_check(connection, subscriptions, follow_up["source_task_id"])


def _finish(service: Service, job: Job) -> None:
    with service.engine.begin() as connection:
        queue.finish(connection, job)


def _read(service: Service, unique_id: str) -> Record | None:
    """Return a follow-up, and what stops creation in its environment."""
    return fetch_one(service.reader, _READ, {"this": unique_id})


def _as_planned(job: Job) -> Record | None:
    """Return what `_read` would, if the job was leased to its planner: nothing stops the creation then."""
    if job.follow_up is None:
        return None
    return {**dict.fromkeys(_READ.exported_columns.keys()), **job.follow_up}


_READ = pauses.with_stops(
    select(FollowUp.__table__).where(FollowUp.unique_id == bindparam("this")), FollowUp.environment
)
_LOCK_STATE = select(FollowUp.state).where(FollowUp.unique_id == bindparam("this")).with_for_update()


@cache
def _insert_task(dialect: str) -> Any:
    """Build the statement once: to build it costs more than to run it."""
    statement = insert(dialect, TASKS)
    set_ = {"follow_up_unique_id": statement.excluded.follow_up_unique_id}
    return statement.on_conflict_do_update(index_elements=["task_id"], set_=set_).returning(TASKS)
