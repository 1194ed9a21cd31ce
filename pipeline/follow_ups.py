"""Follow-ups: recorded as rows before they are requests, then created at Scale, one task for each unique_id for ever.

Claim and commit; call; record and commit: no transaction is open while Scale is asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import Connection, RowMapping, select, update

from models import FollowUp, State
from pipeline import jobs
from pipeline.database import insert, new_id, now
from pipeline.jobs import Job, Wait
from pipeline.receive import TASKS, join_follow_up, lock_task
from pipeline.service import Service
from pipeline.state import forget, recall, remember
from pipeline.versions import describe
from scale.client import Client, Conflict, PermanentError, Throttled, Unauthorized
from scale.envelope import parse_task, storable
from workflows.plan import FollowUp as Wanted
from workflows.workflow import PER_DAY, Limits

if TYPE_CHECKING:
    from pipeline.planning import Seen

ROWS_AT_ONCE = 500
REFUSED_SECONDS = 60.0
THROTTLED_SECONDS = 30.0
STOPPED_SECONDS = 60.0
CREATING = "creating"
STOPPED = "creating:stopped"


def record(connection: Connection, service: Service, seen: Seen, wanted: Iterable[Wanted]) -> int:
    """Write the follow-ups that are new, and ask for those that may be created now; how many were new.

    The task that they follow is locked by the caller.
    """
    view = seen.view
    held = missing(service, view.environment)
    rows = [
        {
            "unique_id": follow_up.unique_id,
            "id": new_id(),
            "workflow": follow_up.workflow,
            "workflow_digest": follow_up.digest,
            "step": follow_up.step,
            "state": "held" if held and follow_up.state == "planned" else follow_up.state,
            "reason": held if held and follow_up.state == "planned" else follow_up.reason,
            "environment": view.environment,
            "source_task_id": view.task_id,
            "source_response_id": seen.response_id,
            "source_annotation": follow_up.source_annotation,
            "task_type": follow_up.task_type,
            "request": follow_up.request,
            "depth": view.depth + 1,
            "planned_at": now(),
        }
        for follow_up in wanted
    ]
    states = {str(row["unique_id"]): (str(row["workflow"]), row["state"]) for row in rows}
    planned: dict[str, list[str]] = {}
    new = 0
    for start in range(0, len(rows), ROWS_AT_ONCE):
        statement = insert(connection, FollowUp).values(rows[start : start + ROWS_AT_ONCE])
        statement = statement.on_conflict_do_nothing(index_elements=["unique_id"]).returning(
            FollowUp.unique_id
        )
        for unique_id in connection.scalars(statement):
            new += 1
            workflow, state = states[unique_id]
            if state == "planned":
                planned.setdefault(workflow, []).append(unique_id)
    for workflow, unique_ids in sorted(planned.items()):
        ask_within_limits(connection, service, workflow, unique_ids)
    return new


def ask_within_limits(connection: Connection, service: Service, workflow: str, unique_ids: list[str]) -> None:
    """Ask for as many as the workflow's limits grant; the others are held."""
    granted, reason = len(unique_ids), ""
    loaded = service.workflows.workflow(workflow)
    limits = loaded.limits if loaded else Limits()
    per_day, total = limits.per_day or PER_DAY, limits.total
    for key, limit, why in (
        (f"granted:{workflow}:{now():%Y-%m-%d}", per_day, f"limit of {per_day:,} tasks a day"),
        (f"granted:{workflow}", total, f"limit of {total} tasks in all"),
    ):
        if limit is not None and (allowed := grant(connection, key, granted, limit)) < granted:
            granted, reason = allowed, f"held by the workflow's {why}"
    jobs.ask(connection, jobs.CREATE, unique_ids[:granted])
    if reason:
        connection.execute(
            update(FollowUp)
            .where(FollowUp.unique_id.in_(unique_ids[granted:]))
            .values(state="held", reason=reason)
        )


def grant(connection: Connection, key: str, wished: int, limit: int) -> int:
    """Count up to `wished` more under `key`, never beyond `limit`; how many were granted.

    The counter's row stays locked until the transaction ends, so that two workers never grant the same place.
    """
    statement = insert(connection, State).values(key=key, value={}, changed_at=now())
    statement = statement.on_conflict_do_update(index_elements=["key"], set_={"changed_at": now()})
    counted = connection.scalars(statement.returning(State.count)).one()
    granted = max(0, min(wished, limit - counted))
    connection.execute(update(State).where(State.key == key).values(count=State.count + granted))
    return int(granted)


def missing(service: Service, environment: str) -> str | None:
    """Which setting keeps follow-ups of this environment from being created; None when all are there."""
    if service.client(environment) is None:
        return f"{'SCALE_TEST_API_KEY' if environment == 'test' else 'SCALE_API_KEY'} is not set"
    return None if service.settings.callback_url else "PUBLIC_URL is not set"


def release(connection: Connection, service: Service) -> int:
    """Ask for the follow-ups that were held because a setting was missing and is there now."""
    released = 0
    for environment in ("live", "test"):
        if missing(service, environment) is None:
            waiting = connection.scalars(
                update(FollowUp)
                .where(
                    FollowUp.state == "held",
                    FollowUp.environment == environment,
                    FollowUp.reason.in_(
                        ("SCALE_API_KEY is not set", "SCALE_TEST_API_KEY is not set", "PUBLIC_URL is not set")
                    ),
                )
                .values(state="planned", reason=None)
                .returning(FollowUp.unique_id)
            ).all()
            jobs.ask(connection, jobs.CREATE, waiting)
            released += len(waiting)
    return released


def create(service: Service, job: Job) -> None:
    """Create one task at Scale, or find that it exists. What Scale refuses for good ends the follow-up, in its words."""
    with service.reader.begin() as connection:
        follow_up = _read(connection, job.subject)
        if follow_up is not None and follow_up["state"] == "planned":
            leave_to_create(connection, service, follow_up["environment"])
    if follow_up is None or follow_up["state"] != "planned" or follow_up["task_id"] is not None:
        with service.engine.begin() as connection:
            jobs.finish(connection, job)
        return
    environment = follow_up["environment"]
    client = service.client(environment)
    assert client is not None  # leave_to_create has looked
    request = {
        **follow_up["request"],
        "callback_url": service.settings.callback_url,
        "unique_id": follow_up["unique_id"],
    }
    try:
        task = create_or_adopt(client, follow_up["task_type"], request)
    except Unauthorized as refused:
        hold_off(service, environment, f"Scale refuses the API key: {refused.message}", REFUSED_SECONDS)
    except Throttled as slow:
        hold_off(service, environment, "Scale asks to slow down", slow.retry_after or THROTTLED_SECONDS)
    except PermanentError as refused:
        with service.engine.begin() as connection:
            connection.execute(
                update(FollowUp)
                .where(FollowUp.unique_id == follow_up["unique_id"], FollowUp.state == "planned")
                .values(
                    state="failed", reason=f"Scale refused it with {refused.status}: {refused.message}"[:1000]
                )
            )
            jobs.finish(connection, job)
    else:
        with service.engine.begin() as connection:
            record_created(connection, follow_up["unique_id"], environment, task)
            forget(connection, f"{CREATING}:{environment}")
            jobs.finish(connection, job)


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
    """Join the follow-up to its task, with the state that the task has by now: its callback may have come first."""
    described, clock, _ = parse_task(storable(task))
    if not described.task_id:
        raise ValueError(f"Scale's answer to {unique_id} names no task_id")
    stored = lock_task(connection, described.task_id, environment)
    changes: dict[str, Any] = {"follow_up": unique_id}
    if stored["clock"] is None:
        moment = clock or described.created_at
        changes |= describe(described) | {
            "status": described.status,
            "clock": moment,
            "described_clock": moment,
        }
        changes["clock_delivery_id"] = changes["described_delivery_id"] = new_id() if moment else None
    connection.execute(update(TASKS).where(TASKS.c.task_id == described.task_id).values(changes))
    join_follow_up(connection, {**stored, **changes})


def cancel(service: Service, job: Job) -> None:
    """Cancel the pending task of a follow-up at Scale. One that is finished already stays as it is."""
    with service.reader.begin() as connection:
        follow_up = _read(connection, job.subject)
    if follow_up is not None and follow_up["state"] == "created" and follow_up["task_id"] is not None:
        client = service.client(follow_up["environment"])
        if client is None:
            raise Wait(f"{missing(service, follow_up['environment'])}", REFUSED_SECONDS)
        try:
            client.cancel_task(follow_up["task_id"])
            outcome = {"state": "canceled"}
        except PermanentError as refused:
            outcome = {"reason": f"Scale would not cancel it: {refused.message}"[:1000]}
        with service.engine.begin() as connection:
            connection.execute(
                update(FollowUp)
                .where(FollowUp.unique_id == job.subject, FollowUp.state == "created")
                .values(**outcome)
            )
            jobs.finish(connection, job)
        return
    with service.engine.begin() as connection:
        jobs.finish(connection, job)


def _read(connection: Connection, unique_id: str) -> RowMapping | None:
    columns = FollowUp.__table__.c
    return connection.execute(select(*columns).where(columns.unique_id == unique_id)).mappings().one_or_none()


# The pace of creating: one switch for people, and one pause for each of Scale's environments.


def leave_to_create(connection: Connection, service: Service, environment: str) -> None:
    """Raises Wait while no task may be created: stopped by a person, a setting is missing, or Scale asked to wait."""
    if recall(connection, STOPPED) is not None:
        raise Wait("creating is stopped; `flask creating start` starts it", STOPPED_SECONDS)
    if why := missing(service, environment):
        raise Wait(why, STOPPED_SECONDS)
    pause = recall(connection, f"{CREATING}:{environment}")
    if pause is not None and (left := (datetime.fromisoformat(pause["until"]) - now()).total_seconds()) > 0:
        raise Wait(pause["reason"], left * random.uniform(1.0, 1.2))


def hold_off(service: Service, environment: str, reason: str, seconds: float) -> NoReturn:
    """Every worker waits `seconds` before the next create call of this environment. Raises Wait."""
    until = (now() + timedelta(seconds=seconds)).isoformat()
    with service.engine.begin() as connection:
        remember(connection, f"{CREATING}:{environment}", {"reason": reason, "until": until})
    raise Wait(reason, seconds)
