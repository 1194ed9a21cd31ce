"""Task transitions: complete, fail, audit, recall, cancel, and the tasks that follow. Each change sends one callback."""

import logging
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from sandbox import annotators
from sandbox.annotators import AnnotatorContext
from sandbox.engine import callbacks, parameters
from sandbox.engine.faults import Faults
from sandbox.engine.sandbox import Sandbox
from sandbox.engine.tasks import find_task, match_fields, new_task, task_object, update_task
from sandbox.errors import ScaleError, invalid
from sandbox.settings import is_test_account
from sandbox.storage import clock
from sandbox.storage.store import Batch, Delivery, Task
from scale.task_types.request import TASK_FIELDS

AUDIT_RESULTS = ("accepted", "rejected", "fixed", "commented")
REVIEWER = "reviewer@sandbox.example"
REJECTION_COMMENT = "Rejected by the simulated reviewer: one annotation is missing."
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

log = logging.getLogger(__name__)


class Result(NamedTuple):
    """Hold the outcome of a task: its new status, its response, and further fields of the task object."""

    status: str
    response: Any
    fields: dict[str, Any] = {}


def completion_time(sandbox: Sandbox, task: Task, batch: Batch | None) -> int | None:
    """Return when the annotators complete a pending task, in milliseconds; None: not by themselves."""
    speed = sandbox.speed
    if speed == "manual" or (batch is not None and batch.status in ("staging", "paused", "cancelled")):
        return None
    if speed == "instant":
        return clock.now()
    seconds = random.Random(f"{sandbox.settings.seed}/{task.task_id}").uniform(*REALISTIC_SECONDS)
    return clock.now() + round(1000 * seconds / sandbox.settings.time_scale)


def annotate(sandbox: Sandbox, task: Task) -> Result:
    """Make the result of a task. May read attachments and store files, so call it outside of transactions."""
    for kind in sandbox.faults.inject("result", match_fields(task), task.number):
        return Result("error", annotators.make_error_response(task_object(task), kind))
    context = _annotator_context(sandbox, task)
    if (rule := sandbox.responses.take(match_fields(task))) is not None:
        response = rule.response
    else:
        response = annotators.make_response(task_object(task), context)
    fields = annotators.task_fields(task_object(task), context)
    # Only version 2 of the API shows the threads of conversations.
    return Result("completed", response, {name: fields[name] for name in fields if name != "threads"})


def _annotator_context(sandbox: Sandbox, task: Task) -> AnnotatorContext:
    """Build what annotators need. Test tasks are completed at once, so only files of the sandbox are read for them."""
    download = not is_test_account(task.account)
    return AnnotatorContext(
        seed=sandbox.settings.seed + task.attempt,
        put_file=sandbox.files.put,
        image_size=lambda url: sandbox.files.image_size(url, download),
        read_file=lambda url: sandbox.files.read(url, download),
        read_task=lambda task_id: _read_task(sandbox, task.account, task_id),
        confidences=sandbox.confidences,
    )


def _read_task(sandbox: Sandbox, account: str, task_id: str) -> dict[str, Any] | None:
    """Return the task object of another task of the account, or None."""
    with sandbox.store.read() as session:
        task = session.scalar(select(Task).where(Task.task_id == task_id, Task.account == account))
    return None if task is None else task_object(task)


def annotate_due_task(sandbox: Sandbox, number: int) -> None:
    """Complete a pending task whose time has come. A task that annotators fail on stays pending."""
    with sandbox.store.read() as session:
        task = session.get(Task, number)
    if task is None or task.status != "pending":
        return
    try:
        result = annotate(sandbox, task)
    except Exception:
        # It would fail again: leave the task for a person.
        log.exception("annotators failed", extra={"task_id": task.task_id, "task_type": task.type})
        with sandbox.store.write() as session:
            session.execute(update(Task).where(Task.number == number).values(complete_at=None))
        return
    with sandbox.store.write() as session:
        current = session.get(Task, number)
        if current is not None and current.task_id == task.task_id and current.complete_at is not None:
            finish(session, sandbox, current, result)


def review_time(sandbox: Sandbox, task: Task) -> int | None:
    """Return when the reviewer audits a completed task, in milliseconds; None: not at all."""
    if sandbox.rejection_share is None:
        return None
    if sandbox.speed != "realistic":
        return clock.now()
    seconds = _task_random(sandbox, task, "review").uniform(*REALISTIC_SECONDS)
    return clock.now() + round(1000 * seconds / sandbox.settings.time_scale)


def review_due_task(sandbox: Sandbox, number: int) -> None:
    """Accept or reject a completed task whose time for a review has come."""
    with sandbox.store.write() as session:
        task = session.get(Task, number)
        if task is None or task.review_at is None:
            return
        task.review_at = None
        if task.status != "completed" or task.review_status is not None or sandbox.rejection_share is None:
            return
        is_rejected = _task_random(sandbox, task, "rejection").random() < sandbox.rejection_share
        result, comments = ("rejected", REJECTION_COMMENT) if is_rejected else ("accepted", None)
        _record_audit(session, sandbox, task, result, comments, None, "customer")
    sandbox.work_available.set()


def _task_random(sandbox: Sandbox, task: Task, purpose: str) -> random.Random:
    """Return a generator that depends on the seed, the number and the attempt of the task."""
    return random.Random(f"{sandbox.settings.seed}/{purpose}/{task.number}/{task.attempt}")


def set_creation_time(task: Task) -> None:
    """Set a new task's dates. Call it in the transaction that inserts it, so that dates follow the numbers."""
    task.created_at = task.updated_at = clock.now()


def finish(session: Session, sandbox: Sandbox, task: Task, result: Result) -> Delivery | None:
    """Write the result of a task and everything that follows from it; return its callback."""
    update_task(task, response=result.response, **result.fields)
    task.status = result.status
    task.complete_at = None
    task.attempt += 1
    if result.status == "completed":
        task.completed_at = task.updated_at
        task.review_at = review_time(sandbox, task)
    elif task.details.get("clear_unique_id_on_error"):
        task.unique_id = None
    session.flush()
    delivery = callbacks.enqueue_callback(session, sandbox.settings, sandbox.faults, task, result.status)
    if result.status == "completed" and not _dependents(task).get("require_audit"):
        _create_dependents(session, sandbox, task)
    _finish_batch_if_done(session, task)
    return delivery


def complete(
    sandbox: Sandbox, account: str, task_id: str, response: Any = None, *, has_response: bool = False
) -> dict[str, Any]:
    """Complete a pending task now: with `response` if `has_response`, else as the annotators would."""
    with sandbox.store.read() as session:
        task = find_task(session, account, task_id)
    if task.status != "pending":
        raise ScaleError(400, f"The task is {task.status}; only a pending task can be completed.")
    result = Result("completed", response) if has_response else annotate(sandbox, task)
    return _transition(
        sandbox, account, task_id, ("pending",), lambda session, task: finish(session, sandbox, task, result)
    )


def fail(
    sandbox: Sandbox, account: str, task_id: str, kind: str = "attachments", response: Any = None
) -> dict[str, Any]:
    """End a pending task in error: with one of ERROR_KINDS, or with this response."""
    if kind not in ERROR_KINDS:
        raise ScaleError(400, f"The kind must be one of {', '.join(ERROR_KINDS)}")

    def end_in_error(session: Session, task: Task) -> None:
        error = annotators.make_error_response(task_object(task), kind) if response is None else response
        finish(session, sandbox, task, Result("error", error))

    return _transition(sandbox, account, task_id, ("pending",), end_in_error)


def audit(
    sandbox: Sandbox,
    account: str,
    task_id: str,
    result: str,
    comments: Any = None,
    response: Any = None,
    source: str = "customer",
) -> dict[str, Any]:
    """Review a completed task. `fixed` replaces its response by `response` or by a slightly changed one.

    The earlier response moves to `prior_responses`.
    """
    if result not in AUDIT_RESULTS:
        raise ScaleError(400, f"The result must be one of {', '.join(AUDIT_RESULTS)}")
    if comments is not None and not isinstance(comments, str):
        raise invalid('"comments" must be a string')
    if result == "fixed" and response is None:
        with sandbox.store.read() as session:
            task = find_task(session, account, task_id)
        response = annotators.fix_response(
            task_object(task), task.details.get("response"), _annotator_context(sandbox, task)
        )

    return _transition(
        sandbox,
        account,
        task_id,
        ("completed",),
        lambda session, task: _record_audit(session, sandbox, task, result, comments, response, source),
    )


def _record_audit(
    session: Session,
    sandbox: Sandbox,
    task: Task,
    result: str,
    comments: str | None,
    response: Any,
    source: str,
) -> None:
    """Write a review on a task, with everything that follows from it."""
    add_review(task, result, comments, response, source)
    callbacks.enqueue_callback(session, sandbox.settings, sandbox.faults, task, result)
    if result in ("accepted", "fixed") and _dependents(task).get("require_audit"):
        _create_dependents(session, sandbox, task)


def add_review(task: Task, result: str, comments: str | None, response: Any, source: str) -> None:
    """Write a review on a task."""
    entry = {
        "audited_by": REVIEWER,
        "audited_at": clock.format_timestamp(clock.now()),
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
        is_object = isinstance(response, dict)
        details["response"] = {**response, "is_customer_fix": True} if is_object else response
    task.review_status = result
    update_task(task, **details)


def recall(sandbox: Sandbox, account: str, task_id: str) -> dict[str, Any]:
    """Recall a completed task: it becomes pending and is completed again.

    That it loses its response, reviews and completed_at is a guess: Scale documents the event, not its body.
    """
    removed = ("response", "attempts", "audits", *REVIEW_FIELDS)

    def make_pending(session: Session, task: Task) -> None:
        update_task(task, **dict.fromkeys(removed))
        task.status, task.completed_at, task.review_status, task.review_at = "pending", None, None, None
        callbacks.enqueue_callback(session, sandbox.settings, sandbox.faults, task, "recalled")
        task.complete_at = completion_time(sandbox, task, batch_of(session, task))

    return _transition(sandbox, account, task_id, ("completed",), make_pending)


def resend(sandbox: Sandbox, account: str, task_id: str) -> dict[str, Any]:
    """Send the callback of a completed or errored task again, with the task's current state."""

    def send_again(session: Session, task: Task) -> None:
        callbacks.enqueue_callback(session, sandbox.settings, sandbox.faults, task, "resent")

    return _transition(sandbox, account, task_id, ("completed", "error"), send_again)


def cancel(sandbox: Sandbox, account: str, task_id: str, clear_unique_id: bool = False) -> dict[str, Any]:
    """Cancel a pending task, without a callback; a canceled task stays as it is."""

    def make_canceled(session: Session, task: Task) -> None:
        if task.status in ("completed", "error"):
            outcome = "completed" if task.status == "completed" else "ended in error"
            raise ScaleError(400, f"The task was already {outcome} and cannot be canceled.")
        if task.status == "pending" or (clear_unique_id and task.unique_id is not None):
            update_task(task)
            task.status, task.complete_at = "canceled", None
            if clear_unique_id:
                task.unique_id = None
            _finish_batch_if_done(session, task)

    return _transition(sandbox, account, task_id, (), make_canceled)


def finish_due_batch(sandbox: Sandbox, number: int) -> None:
    """Complete a batch whose last task is done, unless tasks were added in the meantime."""
    with sandbox.store.write() as session:
        batch = session.get(Batch, number)
        if batch is None or batch.finish_at is None:
            return
        batch.finish_at = None
        if batch.status == "in_progress" and not count_tasks(session, batch).pending:
            finish_batch(session, sandbox.faults, batch)
    sandbox.work_available.set()


def finish_batch(session: Session, faults: Faults, batch: Batch) -> None:
    """Complete a batch and send its callback."""
    batch.status, batch.completed_at, batch.finish_at = "completed", clock.now(), None
    callbacks.enqueue_batch_callback(session, faults, batch)


def batch_of(session: Session, task: Task) -> Batch | None:
    """Return the batch of a task, or None."""
    return session.scalar(select(Batch).where(Batch.account == task.account, Batch.name == task.batch))


class TaskCounts(NamedTuple):
    """Count the tasks of a batch, and the pending ones among them."""

    total: int
    pending: int


def count_tasks(session: Session, batch: Batch) -> TaskCounts:
    """Return how many tasks a batch has, and how many of them are pending."""
    total, pending = session.execute(
        select(func.count(), func.sum(Task.status == "pending")).where(
            Task.account == batch.account, Task.batch == batch.name
        )
    ).one()
    return TaskCounts(total, pending or 0)


def resume_work(session: Session, sandbox: Sandbox, batch: Batch) -> None:
    """Schedule the pending tasks of a batch that was staged or paused; complete it if there are none."""
    for task in session.scalars(
        select(Task).where(Task.account == batch.account, Task.batch == batch.name, Task.status == "pending")
    ):
        task.complete_at = completion_time(sandbox, task, batch)
    counts = count_tasks(session, batch)
    if batch.finalized and batch.status == "in_progress" and counts.total and not counts.pending:
        batch.finish_at = clock.now()


def stop_work(session: Session, batch: Batch, cancel: bool = False) -> None:
    """Stop the annotators' work on a batch: cancel its pending tasks, or leave them until the batch is resumed."""
    values: dict[str, Any] = {"complete_at": None, "updated_at": clock.now()}
    session.execute(
        update(Task)
        .where(Task.account == batch.account, Task.batch == batch.name, Task.status == "pending")
        .values(**values, **({"status": "canceled"} if cancel else {}))
    )


def reschedule(sandbox: Sandbox) -> None:
    """Apply the current speed to every pending task."""
    with sandbox.store.write() as session:
        for task in session.scalars(select(Task).where(Task.status == "pending")):
            task.complete_at = completion_time(sandbox, task, batch_of(session, task))
    sandbox.work_available.set()


def _transition(
    sandbox: Sandbox,
    account: str,
    task_id: str,
    allowed: tuple[str, ...],
    change: Callable[[Session, Task], Any],
) -> dict[str, Any]:
    """Change a task that has one of the `allowed` statuses (any if empty) and return the task object."""
    with sandbox.store.write() as session:
        task = find_task(session, account, task_id)
        if allowed and task.status not in allowed:
            raise ScaleError(400, f"The task is {task.status}; it must be {' or '.join(allowed)}.")
        change(session, task)
        shown = task_object(task)
    sandbox.work_available.set()
    return shown


def _finish_batch_if_done(session: Session, task: Task) -> None:
    batch = batch_of(session, task) if task.batch else None
    if batch is not None and batch.finalized and batch.status == "in_progress":
        session.flush()
        if not count_tasks(session, batch).pending:
            batch.finish_at = clock.now()


def _dependents(task: Task) -> dict[str, Any]:
    dependents = task.details["params"].get("dependents")
    return dependents if isinstance(dependents, dict) else {}


def _create_dependents(session: Session, sandbox: Sandbox, task: Task) -> None:
    """Create the tasks that the request named as `dependents`; Scale creates them without a further request.

    They inherit the attachments. Source: Scale's private docs, "dependents"; which parameters they inherit is a guess.
    """
    for definition in _dependents(task).get("defs") or []:
        params = task.details["params"]
        request = {
            **{name: params[name] for name in INHERITED_BY_DEPENDENTS if name in params},
            "lidar_task": task.task_id,
            "callback_url": task.details.get("callback_url"),
            **{name: value for name, value in definition.items() if name not in ("type", "unique_id")},
        }
        general = parameters.general_parameters(request)
        own = {name: value for name, value in request.items() if name not in TASK_FIELDS}
        checked = parameters.CheckedRequest(general, own)
        child = new_task(task.account, definition["type"], checked, request, None, None)
        child.project, child.batch = task.project, task.batch
        is_test = is_test_account(task.account)
        child.complete_at = clock.now() if is_test else completion_time(sandbox, child, None)
        session.add(child)
