"""The messages that tell a worker to run a job, and a sender that does not wait for Redis's reply."""

from __future__ import annotations

import threading
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from string import Template
from typing import Any
from uuid import UUID, uuid4

from celery import Celery
from kombu.serialization import dumps as serialize
from kombu.utils.json import dumps

RUN_TASK = "weighbridge.run"
CELERY_QUEUE = "weighbridge"
EXPIRES_SECONDS = 60


def make_message(celery: Celery, job_id: str, message_id: str, expires: str) -> Any:
    """Return a message that tells a worker to run a job, in version 2 of Celery's protocol."""
    return celery.amqp.as_task_v2(message_id, RUN_TASK, (job_id,), {}, expires=expires)


def new_message_id() -> str:
    """Return a unique id for a message."""
    return str(uuid4())


def expiry() -> str:
    """Return when a message that is sent now expires, in ISO 8601."""
    return (datetime.now(UTC) + timedelta(seconds=EXPIRES_SECONDS)).isoformat()


class MessageSender:
    """Sends a message without waiting: another thread reads Redis's reply. At most one message awaits its reply.

    The message is serialized once, as kombu does it, and only its ids and its expiry are replaced, because the caller has a
    callback to answer.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._broker: Any = None
        """kombu's connection; None while it is closed."""
        self._connection: Any = None
        self._text = self._body = Template("")
        self._awaits_reply = threading.Lock()

    def open(self) -> None:
        """Connect, unless it is connected. Raises what kombu and redis-py raise."""
        if self._broker is not None:
            return
        broker = self._celery.connection_for_write()
        channel = broker.channel()
        message = make_message(self._celery, "$job", "$id", "$expires")
        content_type, encoding, body = serialize(message.body, "json")  # type: ignore[no-untyped-call]
        properties = {
            **message.properties,
            "body_encoding": "base64",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": CELERY_QUEUE},
            "delivery_tag": "$id",
        }
        text = channel.prepare_message("$body", None, content_type, encoding, message.headers, properties)
        self._text, self._body = Template(dumps(text)), Template(body)  # type: ignore[no-untyped-call]
        self._connection = channel.pool.get_connection()
        self._broker = broker

    def send(self, job_id: UUID) -> bool:
        """Send the message of a job and return True; the reply must be read. Return False if it is closed or awaits a reply."""
        if not self._awaits_reply.acquire(blocking=False):
            return False
        is_sent = self._broker is not None and self._send(job_id)
        if not is_sent:
            self._awaits_reply.release()
        return is_sent

    def _send(self, job_id: UUID) -> bool:
        body = b64encode(self._body.substitute(job=job_id).encode()).decode()
        text = self._text.substitute(job=job_id, id=new_message_id(), expires=expiry(), body=body)
        try:
            self._connection.send_command("LPUSH", CELERY_QUEUE, text, check_health=False)
        except Exception:
            self._close()
            return False
        return True

    def read_reply(self) -> int:
        """Wait for the reply and return the length of the queue. Closes the connection and raises RedisError if it fails."""
        try:
            length: int = self._connection.read_response()
        except Exception:
            self._close()
            raise
        finally:
            self._awaits_reply.release()
        return length

    def _close(self) -> None:
        broker, self._broker = self._broker, None
        with suppress(Exception):
            broker.release()
