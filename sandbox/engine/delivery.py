"""Deliver callbacks: make one attempt and record its outcome and the time of the next one."""

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session, undefer

from sandbox.engine import callbacks
from sandbox.engine.sandbox import Sandbox
from sandbox.storage import clock
from sandbox.storage.store import Delivery, Task


def deliver(sandbox: Sandbox, number: int) -> None:
    """Make one attempt to deliver a pending callback. Returns when the receiver has answered."""
    with sandbox.store.read() as session:
        delivery = session.get(Delivery, number, options=[undefer(Delivery.body)])
    if delivery is None or delivery.state != "pending" or delivery.next_attempt_at is None:
        return
    outcomes = callbacks.send(delivery, sandbox.settings)
    with sandbox.store.write() as session:
        current = session.get(Delivery, number)
        # After a reset the number may belong to another callback.
        if current is not None and _is_same(current, delivery):
            _record_attempts(current, outcomes, sandbox.settings.time_scale)
            _record_success_on_task(session, current)
            _release_held(session, current)
    sandbox.work_available.set()


def _is_same(one: Delivery, other: Delivery) -> bool:
    return (one.task_id, one.created_at) == (other.task_id, other.created_at)


def _record_attempts(delivery: Delivery, outcomes: Sequence[callbacks.Attempt], time_scale: float) -> None:
    """Write the outcomes, and whether the callback succeeded, failed for good or is retried."""
    now = clock.now()
    delivery.attempts = [
        *delivery.attempts,
        *(
            {"at": clock.format_timestamp(now), **outcome._asdict(), "succeeded": outcome.succeeded}
            for outcome in outcomes
        ),
    ]
    if any(outcome.succeeded for outcome in outcomes):
        _repeat_or_succeed(delivery, now)
    elif len(delivery.attempts) >= callbacks.MAX_ATTEMPTS:
        delivery.state, delivery.next_attempt_at = "failed", None
    else:
        wait = callbacks.wait_before_attempt(len(delivery.attempts) + 1) / time_scale
        delivery.next_attempt_at = now + round(1000 * wait)


def _repeat_or_succeed(delivery: Delivery, now: int) -> None:
    """Schedule the repetition that a fault asks for, else mark the callback as succeeded."""
    repeated = next((fault for fault in delivery.faults if fault.get("repeats", 0) > 0), None)
    if repeated is None:
        delivery.state, delivery.next_attempt_at = "succeeded", None
        return
    delivery.faults = [
        {**fault, "repeats": fault["repeats"] - 1} if fault is repeated else fault
        for fault in delivery.faults
    ]
    delivery.next_attempt_at = now + round(1000 * repeated["seconds"])


def _record_success_on_task(session: Session, delivery: Delivery) -> None:
    """Set `callback_succeeded` of the task once the callback is finished. Its updated_at does not change."""
    if delivery.state == "pending" or delivery.task_id is None:
        return
    task = session.scalar(select(Task).where(Task.task_id == delivery.task_id))
    if task is not None:
        task.details = {**task.details, "callback_succeeded": delivery.state == "succeeded"}


def _release_held(session: Session, delivery: Delivery) -> None:
    """Release the earlier callbacks that the fault `reordered` held until a later one was sent."""
    session.execute(
        update(Delivery)
        .where(Delivery.held, Delivery.number < delivery.number, Delivery.account == delivery.account)
        .values(held=False, next_attempt_at=clock.now())
        .execution_options(synchronize_session=False)
    )
