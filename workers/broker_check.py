"""Try the broker as the service uses it: a Redis that only answers PING cannot carry messages."""

from __future__ import annotations

from queue import Empty
from uuid import uuid4

from celery import Celery

from pipeline.operations.database_errors import Explanation
from workers.broker_errors import NO_MESSAGE, explain

TIMEOUT_SECONDS = 1.0


def try_broker(celery: Celery) -> Explanation | None:
    """Publish a message to a queue of its own and take it. Return what failed, None if it worked."""
    name = f"weighbridge-probe-{uuid4().hex}"
    try:
        with celery.connection_for_write(connect_timeout=TIMEOUT_SECONDS) as connection:
            # Without this kombu would try to connect forever.
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=1)
            queue = connection.SimpleQueue(name)
            try:
                queue.put({"probe": True}, expiration=TIMEOUT_SECONDS)
                queue.get(timeout=TIMEOUT_SECONDS).ack()
            finally:
                queue.queue.delete()
                queue.close()
    except Empty:
        return NO_MESSAGE
    except Exception as error:
        return explain(error)
    return None
