"""Celery's consumer, which connects only to a broker that works and says in one line why it waits.

Celery itself repeats a line, or a traceback, every few milliseconds while a Redis refuses its commands.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer

from pipeline.operations.database_errors import Explanation
from workers.broker_check import try_broker
from workers.broker_errors import explain

if TYPE_CHECKING:
    from workers.dispatcher import JobDispatcher

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""Pause between two attempts to use the broker, and before a connection that was lost is opened again."""
REPEAT_SECONDS = 300.0
"""How often the same reason is logged."""
CELERY_LINES = ("consumer: Cannot connect", "consumer: Connection to broker lost")


class Consumer(CeleryConsumer):
    """Waits until messages can be sent and received, and tells the dispatcher while they cannot."""

    dispatcher: JobDispatcher

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lost: Explanation | None = None
        self._logged: tuple[Explanation, float] | None = None

    def connect(self) -> Any:
        """Return a connection, once the broker works."""
        if not self.dispatcher.embedded:
            self._wait_for_broker()
        return super().connect()

    def on_connection_error_before_connected(self, exc: BaseException) -> None:
        """Remember why a connection could not be opened; connect() logs it and waits."""
        self._lost = explain(exc)

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Close the lost connection, and remember why it was lost."""
        self._lost = explain(exc)
        super().on_connection_error_after_connected(exc)

    def _wait_for_broker(self) -> None:
        fault, self._lost = self._lost, None
        while fault := fault or try_broker(self.app):
            self.dispatcher.consumer_fault = fault
            self._log(fault)
            self._pause()
            fault = None
        if self.dispatcher.consumer_fault is not None:
            log.warning("the broker works again; waiting for its messages")
        self.dispatcher.consumer_fault = None

    def _log(self, fault: Explanation) -> None:
        now = time.monotonic()
        if self._logged and self._logged[0] == fault and now < self._logged[1] + REPEAT_SECONDS:
            return
        self._logged = fault, now
        log.error(
            "REDIS_URL cannot be used; the main process runs the jobs until it can",
            extra={"problem": fault.message, "fix": fault.fix},
        )

    def _pause(self) -> None:
        end = time.monotonic() + RETRY_SECONDS
        while time.monotonic() < end:
            state.maybe_shutdown()
            time.sleep(0.1)


def is_ours_to_say(record: logging.LogRecord) -> bool:
    """Return whether a line of Celery's consumer is logged: those about the connection are not, see Consumer."""
    return not record.getMessage().startswith(CELERY_LINES)
