"""The messages that tell a worker of a job, and a connection that sends one without waiting for Redis's answer."""

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
    """Return the message that a worker shall run a job, in Celery's second protocol."""
    return celery.amqp.as_task_v2(message_id, RUN_TASK, (job_id,), {}, expires=expires)


def new_message_id() -> str:
    """Return an id that no other message has."""
    return str(uuid4())


def expiry() -> str:
    """Return when a message that is sent now is worth nothing any more, in ISO 8601."""
    return (datetime.now(UTC) + timedelta(seconds=EXPIRES_SECONDS)).isoformat()


class MessageLine:
    """Sends a message from any thread, while another one waits for Redis's answer. One message is under way at a time.

    The sender has a callback to answer. So the message is written once, as kombu writes it, and sent with other ids.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._broker: Any = None
        """kombu's connection; None while the line is closed."""
        self._connection: Any = None
        self._text = self._body = Template("")
        self._in_use = threading.Lock()

    def open(self) -> None:
        """Connect, unless the line is open. Raises what kombu and redis-py raise."""
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
        """Send the message of a job. Return False if the line is closed or in use, else answer() must be called."""
        if not self._in_use.acquire(blocking=False):
            return False
        is_sent = self._broker is not None and self._send(job_id)
        if not is_sent:
            self._in_use.release()
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

    def answer(self) -> int:
        """Wait for the answer. Return how many messages the queue has. Raises RedisError, and then the line is closed."""
        try:
            length: int = self._connection.read_response()
        except Exception:
            self._close()
            raise
        finally:
            self._in_use.release()
        return length

    def _close(self) -> None:
        broker, self._broker = self._broker, None
        with suppress(Exception):
            broker.release()
