"""The dispatcher: Celery messages that carry a job's id. A lost one costs time, never work, so ringing never raises, never
waits, and stops for a while when the broker does not answer."""

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
from kombu.transport import TRANSPORT_ALIASES, memory

from config import Settings

log = logging.getLogger(__name__)

RUN_TASK = "weighbridge.run"
CELERY_QUEUE = "weighbridge"
DISPATCH_BATCH_SIZE = 16
"""Of many jobs asked for at once only so many are rung for: a worker that has finished one looks for the next itself."""
MAX_QUEUE_LENGTH = 500
"""Messages that wait in Redis: more of them than anybody hears would only fill it while no worker runs."""
BREAKER_OPEN_SECONDS = 15.0
RETRY_ONCE = {"max_retries": 1, "interval_start": 0, "interval_max": 0}
EXPIRES_SECONDS = 60
POLL_INTERVAL_SECONDS = 0.02
"""How often the embedded worker looks into its own memory; kombu's default of a second would be felt at every step."""
DRAIN_TIMEOUT_SECONDS = 0.2


def make_celery(settings: Settings, *, timeout: float) -> Celery:
    """The Celery app; `timeout` bounds each connect and each answer of the broker, in seconds.

    Messages are acknowledged early (with late acknowledgement the worker exits when Redis goes away), carry no result and
    no eta, and expire: the row in the jobs table is what counts.
    """
    celery = Celery("weighbridge", set_as_current=False)
    celery.conf.update(
        broker_url=broker_url(settings),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"polling_interval": POLL_INTERVAL_SECONDS}
        if settings.embedded
        else {"socket_connect_timeout": timeout, "socket_timeout": timeout},
        task_acks_late=False,
        task_ignore_result=True,
        task_publish_retry_policy=RETRY_ONCE,
        task_default_queue=CELERY_QUEUE,
        task_serializer="json",
        worker_concurrency=settings.worker_concurrency,
        worker_prefetch_multiplier=4 if settings.embedded else 1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_soft_shutdown_timeout=10.0,
    )
    if (settings.redis_url or "").startswith("rediss://"):
        # Hosted Redis has a certificate that it signed itself.
        celery.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_NONE}
    return celery


def broker_url(settings: Settings) -> str:
    """The address as kombu wants it; without REDIS_URL the worker talks to itself in memory."""
    return (settings.redis_url or "embedded://localhost").replace("unix://", "redis+socket://", 1)


class Embedded(memory.Transport):
    """kombu's own memory. Celery waits two times 2 s for a message before it stops; here it looks up sooner."""

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        super().drain_events(connection, timeout=DRAIN_TIMEOUT_SECONDS)


TRANSPORT_ALIASES["embedded"] = f"{__name__}:Embedded"


class JobDispatcher:
    """Rings from a thread of its own, for jobs that were committed."""

    def __init__(self, settings: Settings, celery: Celery | None = None) -> None:
        self.embedded = settings.embedded
        self.celery = celery or make_celery(settings, timeout=1.0)
        self._pending: SimpleQueue[UUID] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._circuit_open_until = 0.0

    def dispatch(self, job_ids: Iterable[UUID]) -> None:
        """Ring for these jobs soon. Embedded there is nobody to ring: the sweep is quick."""
        if self.embedded or time.monotonic() < self._circuit_open_until:
            return
        for job_id in job_ids:
            self._pending.put(job_id)
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as full:  # the machine allows no more threads
            self._open_circuit(full)

    def _open_circuit(self, fault: Exception) -> None:
        self._circuit_open_until = time.monotonic() + BREAKER_OPEN_SECONDS
        log.warning(
            "the dispatcher is silent for %.0f s; the sweep rings instead: %s", BREAKER_OPEN_SECONDS, fault
        )

    def _run(self) -> None:
        while True:
            job_ids = [self._pending.get()]
            while len(job_ids) < 1000 and not self._pending.empty():
                job_ids.append(self._pending.get())
            self.publish(job_ids[:DISPATCH_BATCH_SIZE])

    def publish(self, job_ids: Iterable[UUID]) -> None:
        """Send the messages now; bounded, and silent for a while after a failure."""
        try:
            with self.celery.producer_pool.acquire(block=True, timeout=3) as producer:
                count = producer.connection.ensure(
                    producer, lambda: producer.channel._size(CELERY_QUEUE), **RETRY_ONCE
                )
                if count() >= MAX_QUEUE_LENGTH:
                    return
                for job_id in job_ids:
                    self.celery.send_task(
                        RUN_TASK, (str(job_id),), producer=producer, expires=EXPIRES_SECONDS
                    )
        except Exception as fault:
            self._open_circuit(fault)

    def reachable(self) -> bool:
        """Whether the broker answers, now or when it was asked last; True when there is none."""
        if self.embedded:
            return True
        if time.monotonic() < self._circuit_open_until:
            return False
        try:
            with self.celery.connection_for_write(connect_timeout=1) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=1)
                client: Any = connection.default_channel.client
                return bool(client.ping())
        except Exception as fault:
            self._open_circuit(fault)
            return False
