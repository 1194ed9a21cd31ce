"""Try the broker as the service uses it: a Redis that only answers PING cannot carry messages."""

from __future__ import annotations

from queue import Empty
from uuid import uuid4

from celery import Celery

TIMEOUT_SECONDS = 1.0


def try_broker(celery: Celery) -> str | None:
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
        return "the message did not arrive"
    except Exception as error:
        return describe(error)
    return None


def describe(error: Exception) -> str:
    """Return a broker's error in words. The text of an unknown error may contain the URL, so only its type is given."""
    text = str(error)
    if text.startswith(("MOVED ", "ASK ", "CROSSSLOT")) or "CLUSTER" in text.upper():
        return "it is a Redis Cluster, which is not supported"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate cannot be verified; see REDIS_TLS_VERIFY"
    if text.startswith("NOPERM") or "no permissions" in text.lower():
        return "the user of REDIS_URL has no permission for these commands"
    if text.startswith(("READONLY", "MISCONF", "OOM", "NOAUTH", "LOADING")):
        return text.partition(" ")[0]
    return type(error).__name__
