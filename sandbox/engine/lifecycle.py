"""What people do at Scale and at its customers: answer, audit, fix, recall, fail, chain. Each change is one callback."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from sandbox import annotators
from sandbox.engine import callbacks, parameters
from sandbox.engine.faults import Faults
from sandbox.engine.sandbox import Sandbox
from sandbox.engine.tasks import change, find_task, matched_by, new_task, task_object
from sandbox.errors import ScaleError, invalid
from sandbox.settings import is_test_key
from sandbox.storage import clock
from sandbox.storage.store import Batch, Delivery, Task
from scale.task_types.request import TASK_FIELDS

AUDIT_RESULTS = ("accepted", "rejected", "fixed", "commented")
REVIEWER = "reviewer@sandbox.example"
REVIEW_FIELDS = (
    "customer_reviewed_by",
    "customer_audited_at",
    "customer_audit_time_secs",
    "customer_review_comments",
)
ERROR_KINDS = ("attachments", "frames", "message")
REALISTIC_SECONDS = (3.0, 30.0)
INHERITED_BY_DEPENDENTS = (
    "attachment",
    "attachments",
    "attachment_type",
    "labels",
    "objects_to_annotate",
    "geometries",
)


def due(world: Sandbox, task: Task, batch: Batch | None) -> int | None:
    """When the annotators will have answered a pending task, in milliseconds; None: not by themselves."""
    speed = world.speed
    if speed == "manual" or (batch is not None and batch.status in ("staging", "paused", "cancelled")):
        return None
    if speed == "instant":
        return clock.now()
    seconds = random.Random(f"{world.settings.seed}/{task.task_id}").uniform(*REALISTIC_SECONDS)
    return clock.now() + round(1000 * seconds / world.settings.time_scale)


class Answer(NamedTuple):
    """What the annotators made of a task: its new status, its response, and what the task itself says besides."""

    status: str
    response: Any
    fields: dict[str, Any] = {}


def answer(world: Sandbox, task: Task) -> Answer:
    """The annotators' work on a task. May read attachments and keeps files: stay out of transactions."""
    for kind in world.faults.inject("result", matched_by(task), task.number):
        return Answer("error", annotators.error(task_object(task), kind))
    desk = _desk(world, task)
    response = annotators.answer(task_object(task), **desk)
    del desk["read_file"]
    fields = annotators.task_fields(task_object(task), **desk)
    # The threads of conversations are version 2's.
    return Answer("completed", response, {name: fields[name] for name in fields if name != "threads"})


def _desk(world: Sandbox, task: Task) -> dict[str, Any]:
    """What annotators work with. Those of test tasks see no attachment but the sandbox's own files: they are done at once."""
    outside = not is_test_key(task.account)
    return {
        "seed": world.settings.seed + task.rounds,
        "put_file": world.files.put,
        "image_size": lambda url: world.files.image_size(url, outside),
        "read_file": lambda url: world.files.read(url, outside),
    }


def stamp(task: Task) -> None:
    """Give a new task its dates. Inside the transaction that adds it, so that they follow the numbers."""
    task.created_at = task.updated_at = clock.now()


def settle(session: Session, world: Sandbox, task: Task, answer: Answer) -> Delivery | None:
    """Write an answer on a task, with everything that follows from it."""
    status = answer.status
    change(task, response=answer.response, **answer.fields)
    task.status = status
    task.answer_at = None
    task.rounds += 1
    if status == "completed":
        task.completed_at = task.updated_at
    elif task.details.get("clear_unique_id_on_error"):
        task.unique_id = None
    session.flush()
    delivery = callbacks.announce(session, world.settings, world.faults, task, status)
    if status == "completed" and not _dependents(task).get("require_audit"):
        _create_dependents(session, world, task)
    _finish_batch_soon(session, task)
    return delivery


def complete(
    world: Sandbox, account: str, task_id: str, response: Any = None, given: bool = False
) -> dict[str, Any]:
    """Answer a pending task now: with the response `given`, or as the annotators would."""
    with world.store.read() as session:
        task = find_task(session, account, task_id)
    if task.status != "pending":
        raise ScaleError(400, f"The task is {task.status}, only a pending task can be completed.")
    done = Answer("completed", response) if given else answer(world, task)
    return _do(
        world,
        account,
        task_id,
        ("pending",),
        lambda session, task: settle(session, world, task, done),
    )


def fail(
    world: Sandbox, account: str, task_id: str, kind: str = "attachments", response: Any = None
) -> dict[str, Any]:
    """End a pending task in error: with one of Scale's kinds (attachments, frames, message), or with this response."""
    if kind not in ERROR_KINDS:
        raise ScaleError(400, f"The kind must be one of {', '.join(ERROR_KINDS)}")

    def break_off(session: Session, task: Task) -> None:
        said = annotators.error(task_object(task), kind) if response is None else response
        settle(session, world, task, Answer("error", said))

    return _do(world, account, task_id, ("pending",), break_off)


def audit(
    world: Sandbox,
    account: str,
    task_id: str,
    result: str,
    comments: Any = None,
    response: Any = None,
    source: str = "customer",
) -> dict[str, Any]:
    """Review a completed task. `fixed` changes the response: to `response`, or slightly, as a reviewer would.

    The earlier response moves to `prior_responses`.
    """
    if result not in AUDIT_RESULTS:
        raise ScaleError(400, f"The result must be one of {', '.join(AUDIT_RESULTS)}")
    if comments is not None and not isinstance(comments, str):
        raise invalid('"comments" must be a string')
    if result == "fixed" and response is None:
        with world.store.read() as session:
            task = find_task(session, account, task_id)
        response = annotators.fix(task_object(task), task.details.get("response"), **_desk(world, task))

    def sign(session: Session, task: Task) -> None:
        review(task, result, comments, response, source)
        callbacks.announce(session, world.settings, world.faults, task, result)
        if result in ("accepted", "fixed") and _dependents(task).get("require_audit"):
            _create_dependents(session, world, task)

    return _do(world, account, task_id, ("completed",), sign)


def review(task: Task, result: str, comments: str | None, response: Any, source: str) -> None:
    """Write a review on a task."""
    entry = {
        "audited_by": REVIEWER,
        "audited_at": clock.iso(clock.now()),
        "audit_time_secs": 0,
        "audit_result": result,
        "audit_source": source,
    }
    details: dict[str, Any] = {
        "audits": [*task.details.get("audits", []), entry],
        "customer_reviewed_by": REVIEWER,
        "customer_audited_at": entry["audited_at"],
        "customer_audit_time_secs": 0,
    }
    if comments:
        details["customer_review_comments"] = [*task.details.get("customer_review_comments", []), comments]
    if result == "fixed":
        details["prior_responses"] = [*task.details.get("prior_responses", []), task.details.get("response")]
        details["response"] = (
            {**response, "is_customer_fix": True} if isinstance(response, dict) else response
        )
    task.review_status = result
    change(task, **details)


def recall(world: Sandbox, account: str, task_id: str) -> dict[str, Any]:
    """Take a completed task back for more work: it is pending again, and answered anew.

    That the response, its reviews and completed_at are gone by that is a guess; Scale documents the event, not its body.
    """
    gone = ("response", "attempts", "audits", *REVIEW_FIELDS)

    def take_back(session: Session, task: Task) -> None:
        change(task, **dict.fromkeys(gone))
        task.status, task.completed_at, task.review_status = "pending", None, None
        callbacks.announce(session, world.settings, world.faults, task, "recalled")
        task.answer_at = due(world, task, batch_of(session, task))

    return _do(world, account, task_id, ("completed",), take_back)


def resend(world: Sandbox, account: str, task_id: str) -> dict[str, Any]:
    """Send the callback of a completed or errored task again, as it is now."""

    def again(session: Session, task: Task) -> None:
        callbacks.announce(session, world.settings, world.faults, task, "resent")

    return _do(world, account, task_id, ("completed", "error"), again)


def cancel(world: Sandbox, account: str, task_id: str, clear_unique_id: bool = False) -> dict[str, Any]:
    """Cancel a pending task; one that is canceled already stays as it is. No callback comes of it."""

    def stop(session: Session, task: Task) -> None:
        if task.status in ("completed", "error"):
            done = "completed" if task.status == "completed" else "ended in error"
            raise ScaleError(400, f"The task was already {done} and cannot be canceled.")
        if task.status == "pending" or (clear_unique_id and task.unique_id is not None):
            change(task)
            task.status, task.answer_at = "canceled", None
            if clear_unique_id:
                task.unique_id = None
            _finish_batch_soon(session, task)

    return _do(world, account, task_id, (), stop)


def finish_batch(session: Session, faults: Faults, batch: Batch) -> None:
    """The last task of a batch is done."""
    batch.status, batch.completed_at, batch.finish_at = "completed", clock.now(), None
    callbacks.announce_batch(session, faults, batch)


def batch_of(session: Session, task: Task) -> Batch | None:
    return session.scalar(select(Batch).where(Batch.account == task.account, Batch.name == task.batch))


def open_tasks(session: Session, batch: Batch) -> tuple[int, int]:
    """How many tasks a batch has, and how many of them are pending."""
    mine = select(func.count(), func.sum(Task.status == "pending")).where(
        Task.account == batch.account, Task.batch == batch.name
    )
    total, pending = session.execute(mine).one()
    return total, pending or 0


def resume_work(session: Session, world: Sandbox, batch: Batch) -> None:
    """Give the annotators the pending tasks of a batch that was staged or paused, and finish it if there are none."""
    for task in session.scalars(
        select(Task).where(Task.account == batch.account, Task.batch == batch.name, Task.status == "pending")
    ):
        task.answer_at = due(world, task, batch)
    total, pending = open_tasks(session, batch)
    if batch.finalized and batch.status == "in_progress" and total and not pending:
        batch.finish_at = clock.now()


def stop_work(session: Session, batch: Batch, cancel: bool = False) -> None:
    """Take the pending tasks of a batch away from the annotators; canceled for good, or until it is resumed."""
    values = {"answer_at": None, "updated_at": clock.now(), **({"status": "canceled"} if cancel else {})}
    session.execute(
        update(Task)
        .where(Task.account == batch.account, Task.batch == batch.name, Task.status == "pending")
        .values(**values)
    )


def reschedule(world: Sandbox) -> None:
    """Let every pending task keep to the speed that the people work at now."""
    with world.store.write() as session:
        for task in session.scalars(select(Task).where(Task.status == "pending")):
            task.answer_at = due(world, task, batch_of(session, task))
    world.wake()


def _do(
    world: Sandbox,
    account: str,
    task_id: str,
    states: tuple[str, ...],
    deed: Callable[[Session, Task], Any],
) -> dict[str, Any]:
    """Do something to a task that is in one of these states (any, if none is named), and show the task."""
    with world.store.write() as session:
        task = find_task(session, account, task_id)
        if states and task.status not in states:
            raise ScaleError(
                400, f"The task is {task.status}; that is for tasks that are {' or '.join(states)}."
            )
        deed(session, task)
        shown = task_object(task)
    world.wake()
    return shown


def _finish_batch_soon(session: Session, task: Task) -> None:
    batch = batch_of(session, task) if task.batch else None
    if batch is not None and batch.finalized and batch.status == "in_progress":
        session.flush()
        if not open_tasks(session, batch)[1]:
            batch.finish_at = clock.now()


def _dependents(task: Task) -> dict[str, Any]:
    dependents = task.details["params"].get("dependents")
    return dependents if isinstance(dependents, dict) else {}


def _create_dependents(session: Session, world: Sandbox, task: Task) -> None:
    """The tasks that Scale makes by itself of a finished one: their customer never created them.

    They inherit the attachments. Source: Scale's private docs, "dependents"; the parameters they carry are a guess.
    """
    for definition in _dependents(task).get("defs") or []:
        params = task.details["params"]
        request = {
            **{name: params[name] for name in INHERITED_BY_DEPENDENTS if name in params},
            "lidar_task": task.task_id,
            "callback_url": task.details.get("callback_url"),
            **{name: value for name, value in definition.items() if name not in ("type", "unique_id")},
        }
        general = parameters.general_of(request)
        own = {name: value for name, value in request.items() if name not in TASK_FIELDS}
        child = new_task(
            task.account, definition["type"], parameters.Checked(general, own), request, None, None
        )
        child.project, child.batch = task.project, task.batch
        child.answer_at = clock.now() if is_test_key(task.account) else due(world, child, None)
        session.add(child)
