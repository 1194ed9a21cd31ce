"""The office: one thread that sees what is due, and others that do it - answers, finished batches, callbacks and retries."""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session, undefer

from sandbox.engine import callbacks, lifecycle
from sandbox.engine.sandbox import Sandbox
from sandbox.storage import clock
from sandbox.storage.store import Batch, Delivery, Task

ANNOTATORS = 2
MESSENGERS = 16
LOOKAHEAD = 200
LONGEST_NAP_SECONDS = 5.0

log = logging.getLogger(__name__)


class Scheduler:
    """Works while it is open. All of its work is in the tables, so a restart goes on where the last one stopped."""

    def __init__(self, world: Sandbox) -> None:
        self._world = world
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._in_hand: set[Any] = set()
        self._lock = threading.Lock()
        self._annotators = _crew("annotator", ANNOTATORS)
        self._messengers = _crew("messenger", MESSENGERS)
        self._thread = threading.Thread(target=self._work, name="office", daemon=True)

    def open(self) -> None:
        self._world.wake = self._wake.set  # type: ignore[method-assign]
        self._world.deliver_now = self.deliver_now  # type: ignore[method-assign]
        self._thread.start()

    def close(self, grace_seconds: float = 2.0) -> None:
        """Begin nothing new, and wait for what is in hand, but not for long: what is cut off is done again later."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        end = time.monotonic() + grace_seconds
        while self._in_hand and time.monotonic() < end:
            time.sleep(0.01)

    def deliver_now(self, number: int) -> None:
        """One try for one callback, in the thread that asks; it is back when the receiver has answered."""
        self._deliver(number)
        self._wake.set()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            try:
                nap = self._look_around()
            except Exception:
                log.exception("The sandbox's office stumbled")
                nap = 1.0
            self._wake.wait(nap)

    def _look_around(self) -> float:
        """Hand out what is due; seconds until something else will be."""
        now = clock.now()
        with self._world.store.read() as session:
            answers = session.execute(_first(Task.answer_at, Task.number)).all()
            finishes = session.execute(_first(Batch.finish_at, Batch.number)).all()
            tries = session.execute(_first(Delivery.next_try_at, Delivery.number, Delivery.task_id)).all()
        for at, number in finishes:
            if at <= now:
                self._finish(number)
        for at, number in answers:
            if at <= now:
                self._hand_out(self._annotators, ("task", number), lambda number=number: self._answer(number))
        for at, number, task_id in tries:
            # One callback of a task at a time: those that follow each other arrive in that order unless a fault says so.
            key = ("callback of", task_id) if task_id else ("delivery", number)
            if at <= now:
                self._hand_out(self._messengers, key, lambda number=number: self._deliver(number))
        later = [row[0] for row in (*answers, *finishes, *tries) if row[0] > now]
        return min([LONGEST_NAP_SECONDS, *((at - now) / 1000 for at in later)])

    def _hand_out(self, crew: SimpleQueue[Callable[[], None]], key: Any, work: Callable[[], None]) -> None:
        if not self._take(key):
            return

        def do() -> None:
            try:
                if self._closing.is_set():
                    return
                work()
            except Exception:
                log.exception("The sandbox failed at %s", key)
                time.sleep(1.0)
            finally:
                self._put_down(key)

        crew.put(do)

    def _take(self, key: Any) -> bool:
        with self._lock:
            if key in self._in_hand:
                return False
            self._in_hand.add(key)
            return True

    def _put_down(self, key: Any) -> None:
        with self._lock:
            self._in_hand.discard(key)
        self._wake.set()

    def _answer(self, number: int) -> None:
        with self._world.store.read() as session:
            task = session.get(Task, number)
        if task is None or task.status != "pending":
            return
        try:
            done = lifecycle.answer(self._world, task)
        except Exception:
            # It would fail again: the task waits for a person, and the log says why.
            log.exception("No annotator could answer the %s task %s", task.type, task.task_id)
            with self._world.store.write() as session:
                session.execute(update(Task).where(Task.number == number).values(answer_at=None))
            return
        with self._world.store.write() as session:
            fresh = session.get(Task, number)
            if fresh is not None and fresh.task_id == task.task_id and fresh.answer_at is not None:
                lifecycle.settle(session, self._world, fresh, done)

    def _finish(self, number: int) -> None:
        with self._world.store.write() as session:
            batch = session.get(Batch, number)
            if batch is not None and batch.finish_at is not None:
                batch.finish_at = None
                if batch.status == "in_progress" and not lifecycle.open_tasks(session, batch)[1]:
                    lifecycle.finish_batch(session, self._world.faults, batch)
        self._wake.set()

    def _deliver(self, number: int) -> None:
        with self._world.store.read() as session:
            delivery = session.get(Delivery, number, options=[undefer(Delivery.body)])
        if delivery is None or delivery.state != "pending" or delivery.next_try_at is None:
            return
        outcomes = callbacks.send(delivery, self._world.settings)
        with self._world.store.write() as session:
            sent = session.get(Delivery, number)
            # After a reset the number may be another callback's.
            if sent is not None and (sent.task_id, sent.created_at) == (
                delivery.task_id,
                delivery.created_at,
            ):
                self._record(session, sent, outcomes)

    def _record(self, session: Session, delivery: Delivery, outcomes: list[callbacks.Try]) -> None:
        """What the tries came to: delivered, another try later, or given up."""
        now = clock.now()
        made = [
            {"at": clock.iso(now), **outcome._asdict(), "succeeded": outcome.succeeded}
            for outcome in outcomes
        ]
        delivery.tries = [*delivery.tries, *made]
        again = next((fault for fault in delivery.faults if fault.get("repeats", 0) > 0), None)
        if any(outcome.succeeded for outcome in outcomes):
            if again is not None:
                delivery.faults = [
                    {**fault, "repeats": fault["repeats"] - 1} if fault is again else fault
                    for fault in delivery.faults
                ]
                delivery.next_try_at = now + round(1000 * again["seconds"])
            else:
                delivery.state, delivery.next_try_at = "succeeded", None
        elif len(delivery.tries) >= callbacks.MAX_TRIES:
            delivery.state, delivery.next_try_at = "failed", None
        else:
            wait = callbacks.wait_before_try(len(delivery.tries) + 1) / self._world.settings.time_scale
            delivery.next_try_at = now + round(1000 * wait)
        if delivery.state != "pending" and delivery.task_id is not None:
            task = session.scalar(select(Task).where(Task.task_id == delivery.task_id))
            if task is not None:
                # Bookkeeping of the delivery, not a change of the task: updated_at stays.
                task.details = {**task.details, "callback_succeeded": delivery.state == "succeeded"}
        # Whoever was to be overtaken has been.
        session.execute(
            update(Delivery)
            .where(Delivery.held, Delivery.number < delivery.number, Delivery.account == delivery.account)
            .values(held=False, next_try_at=now)
            .execution_options(synchronize_session=False)
        )


def _first(due: Any, number: Any, *columns: Any) -> Any:
    """The rows that are due first, and when; what is due at once in the order in which it came about."""
    return select(due, number, *columns).where(due.is_not(None)).order_by(due, number).limit(LOOKAHEAD)


def _crew(name: str, size: int) -> SimpleQueue[Callable[[], None]]:
    """Threads that do what is put into their queue. They end with the process, whatever they have in hand."""
    work: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def labor() -> None:
        while True:
            work.get()()

    for number in range(size):
        threading.Thread(target=labor, name=f"{name}-{number}", daemon=True).start()
    return work
