"""Publish job ids to Celery after the commit.

A lost message only delays a job until the next sweep, so publishing never raises and never blocks the caller. A circuit
breaker suspends it while the broker does not answer.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from celery import Celery

from config import Settings
from pipeline.operations.database_errors import Explanation
from workers import transports
from workers.broker_check import try_broker
from workers.broker_errors import explain
from workers.messages import CELERY_QUEUE, MessageSender, expiry, make_message, new_message_id

log = logging.getLogger(__name__)

DISPATCH_BATCH_SIZE = 16
"""Messages for jobs that are enqueued at once: a worker that has finished a job claims the next one itself."""
MAX_PENDING = 1000
"""Job ids that the dispatching thread takes up at once."""
MAX_QUEUE_LENGTH = 16
"""Messages that wait in Redis. A worker that receives one runs every due job, so that more would only wake workers in vain."""
FULL_PAUSE_SECONDS = 0.02
"""How long nothing is sent after MAX_QUEUE_LENGTH messages waited: asking for each job would cost as much as sending one."""
BREAKER_OPEN_SECONDS = 15.0
RETRY_ONCE = {"max_retries": 1, "interval_start": 0, "interval_max": 0}


def make_celery(settings: Settings, *, timeout: float) -> Celery:
    """Return the Celery app. `timeout` bounds each connect and each answer of the broker, in seconds.

    Messages are acknowledged early (with late acknowledgement the worker exits when Redis goes away), have no result and
    no eta, and expire: the row in the jobs table is the queue of record.
    """
    transports.register()
    celery = Celery("weighbridge", set_as_current=False)
    celery.conf.update(
        broker_url=broker_url(settings),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # READONLY, MISCONF, LOADING: the worker waits instead of exiting
        broker_transport_options={}
        if settings.embedded
        else {
            "socket_connect_timeout": timeout,
            "socket_timeout": timeout,
            "ack_emulation": False,  # a message that a dead worker held is not wanted back: its job is in the database
        },
        task_acks_late=False,
        task_ignore_result=True,
        task_default_queue=CELERY_QUEUE,
        task_serializer="json",
        worker_concurrency=settings.worker_concurrency,
        worker_consumer="workers.consumer:Consumer",
        # Its subscription shows that Redis is gone even when every message that may be prefetched waits for an
        # acknowledgement that failed. Without it such a worker would wait forever.
        worker_enable_remote_control=True,
        worker_prefetch_multiplier=4 if settings.embedded else 1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_soft_shutdown_timeout=10.0,
    )
    if (settings.redis_url or "").startswith("rediss://"):
        celery.conf.broker_use_ssl = {
            "ssl_cert_reqs": ssl.CERT_REQUIRED if settings.redis_tls_verify else ssl.CERT_NONE,
            "ssl_check_hostname": settings.redis_tls_verify,
        }
    return celery


def broker_url(settings: Settings) -> str:
    """Return the broker's URL in kombu's form. Without REDIS_URL the worker sends messages to itself in memory."""
    return (settings.redis_url or "embedded://localhost").replace("unix://", "redis+socket://", 1)


class JobDispatcher:
    """Publishes the ids of committed jobs. A thread of its own connects, reads replies, and sends what could not be sent at once."""

    def __init__(self, settings: Settings, celery: Celery | None = None) -> None:
        self.embedded = settings.embedded
        self.celery = celery or make_celery(settings, timeout=1.0)
        self._sender = MessageSender(self.celery)
        self._pending: SimpleQueue[tuple[UUID, bool]] = SimpleQueue()
        """Ids of jobs, and whether their message was sent and awaits its reply."""
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._circuit_open_until = 0.0
        self._last_fault: Explanation | None = None
        self._queue_length = MAX_QUEUE_LENGTH  # at most; see _has_room
        self._is_full = False
        self.consumer_fault: Explanation | None = None
        """Why the worker of this process waits for the broker; None while it receives messages."""

    def dispatch(self, job_ids: Iterable[UUID]) -> None:
        """Publish these jobs without waiting. Does nothing in an embedded service, whose sweep is quick enough."""
        if self.embedded or self.is_suspended:
            return
        for job_id in job_ids:
            is_sent = not self._is_full and self._sender.send(job_id)
            self._pending.put((job_id, is_sent))
        if self._thread is None or not self._thread.is_alive():
            with self._start_lock:
                if self._thread is None or not self._thread.is_alive():
                    self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as fault:  # the machine allows no more threads
            self._open_circuit(explain(fault))

    @property
    def is_suspended(self) -> bool:
        """Return whether the circuit breaker is open: the broker failed less than BREAKER_OPEN_SECONDS ago."""
        return time.monotonic() < self._circuit_open_until

    @property
    def is_unavailable(self) -> bool:
        """Return whether the broker failed when it was used last, or the worker waits for it."""
        return self._last_fault is not None or self.consumer_fault is not None

    def _open_circuit(self, fault: Explanation) -> None:
        self._circuit_open_until = time.monotonic() + BREAKER_OPEN_SECONDS
        self._last_fault = fault
        log.warning(
            "broker unavailable; dispatch suspended, the sweep takes over",
            extra={
                "seconds": BREAKER_OPEN_SECONDS,
                "setting": "REDIS_URL",
                "problem": fault.message,
                "fix": fault.fix,
            },
        )

    def _close_circuit(self) -> None:
        self._circuit_open_until, self._last_fault = 0.0, None

    def _run(self) -> None:
        while True:
            pending = [self._pending.get()]
            while len(pending) < MAX_PENDING and not self._pending.empty():
                pending.append(self._pending.get())
            job_ids = [job_id for job_id, is_sent in pending if not (is_sent and self._is_confirmed())]
            if job_ids and self.publish(job_ids[:DISPATCH_BATCH_SIZE]):
                self._open_sender()
            if self._is_full:
                time.sleep(FULL_PAUSE_SECONDS)

    def _is_confirmed(self) -> bool:
        """Wait for the reply to a message that was sent. Return False if it must be sent again."""
        try:
            self._queue_length = self._sender.read_reply()
        except Exception:
            return False
        self._is_full = self._queue_length >= MAX_QUEUE_LENGTH
        self._close_circuit()
        return True

    def _open_sender(self) -> None:
        try:
            self._sender.open()
        except Exception as fault:
            self._open_circuit(explain(fault))

    def publish(self, job_ids: Iterable[UUID]) -> bool:
        """Publish now, bounded by the broker's time-outs. Return False if the broker failed, which opens the circuit."""
        try:
            with self.celery.producer_pool.acquire(block=True, timeout=3) as producer:
                for job_id in job_ids:
                    if not self._has_room(producer):
                        break
                    self._send(producer, job_id)
                    self._queue_length += 1
        except Exception as fault:
            self._open_circuit(explain(fault))
            return False
        self._close_circuit()
        return True

    def _send(self, producer: Any, job_id: UUID) -> None:
        """Send one message. What `send_task` does besides, routes, signals and declarations, costs as much again."""
        message = make_message(self.celery, str(job_id), new_message_id(), expiry())
        producer.publish(
            message.body,
            exchange="",
            routing_key=CELERY_QUEUE,
            serializer="json",
            headers=message.headers,
            retry=True,
            retry_policy=RETRY_ONCE,
            **message.properties,
        )

    def _has_room(self, producer: Any) -> bool:
        """Return whether fewer than MAX_QUEUE_LENGTH messages wait. Asks the broker only if all that were sent may wait."""
        if self._queue_length >= MAX_QUEUE_LENGTH:
            size = producer.connection.ensure(
                producer, lambda: producer.channel._size(CELERY_QUEUE), **RETRY_ONCE
            )
            self._queue_length = size()
        self._is_full = self._queue_length >= MAX_QUEUE_LENGTH
        return not self._is_full

    def fault(self) -> Explanation | None:
        """Send a message to a queue of its own and receive it. Return why that fails, or None.

        A Redis that only answers PING (a cluster, a user without rights, a read-only replica) is found out. While the
        circuit is open nothing is tried, because callers hold threads that callbacks need.
        """
        if self.embedded:
            return None
        if self.is_suspended:
            return self._last_fault
        if (fault := try_broker(self.celery)) is not None:
            self._open_circuit(fault)
        else:
            self._close_circuit()
        return fault
