"""`POST /callbacks/scale`: the door. Authenticate, read within bounds, receive, answer, then ring."""

from __future__ import annotations

import hmac
import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import orjson
from flask import Blueprint, Response, current_app, request
from gunicorn.http.errors import ParseException
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from config import Settings
from pipeline.db.errors import safe_message
from pipeline.events.outbox import event_publisher
from pipeline.receive.receive import receive
from pipeline.service import Service
from workers.dispatcher import JobDispatcher

log = logging.getLogger(__name__)
blueprint = Blueprint("callbacks", __name__)

CHUNK = 64 * 1024
READ_SECONDS = 30.0
"""From the first byte of the body to the last."""
RETRY_AFTER = "15"
KEPT_HEADERS = (
    "User-Agent",
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "X-Request-Id",
    "X-Forwarded-For",
)

answered = Counter("weighbridge_callbacks", "Callbacks by answer", ["status"])
one_large_body = threading.Lock()


class BodyRefused(Exception):
    """The body is not taken: (HTTP status, why)."""


@blueprint.post("/callbacks/scale", strict_slashes=False)
def scale_callback() -> Response:
    service: Service = current_app.extensions["weighbridge"]
    dispatcher: JobDispatcher = current_app.extensions["dispatcher"]
    environment = authenticate(request.headers.get("scale-callback-auth"), service.settings)
    if environment is None:
        return refuse(401, "scale-callback-auth is missing or is none of the keys that this service knows")
    try:
        with read_body(service.settings) as body:
            receipt = receive(
                service.engine,
                body,
                environment,
                headers={name: value for name in KEPT_HEADERS if (value := request.headers.get(name))},
                has_workflow_for=service.has_workflow_for,
                inline_bytes=service.settings.inline_callback_bytes,
                tell=event_publisher(service),
            )
    except BodyRefused as refused:
        status, why = refused.args
        return refuse(status, why, {"Retry-After": RETRY_AFTER} if status == 503 else {})
    except Exception as fault:
        unforeseen = not isinstance(fault, SQLAlchemyError)
        log.error("a callback could not be kept: %s", safe_message(fault), exc_info=unforeseen)
        return refuse(503, "the delivery could not be written; send it again", {"Retry-After": RETRY_AFTER})
    dispatcher.dispatch(receipt.jobs)
    answered.labels(receipt.status).inc()
    return answer(200, {"delivery_id": str(receipt.delivery_id), "status": receipt.status})


def authenticate(key: str | None, settings: Settings) -> str | None:
    """ "live" or "test" by the key that was sent, None for any other. Every known key is compared, in constant time.

    The header is a static secret shared with Scale: it says who sends, not what. Source: docs, "Callbacks".
    """
    sent = (key or "").encode("latin-1", "replace")
    environment = None
    for name, keys in (
        ("live", settings.scale_live_callback_keys),
        ("test", settings.scale_test_callback_keys),
    ):
        for known in keys:
            if hmac.compare_digest(sent, known):
                environment = name
    return environment


@contextmanager
def read_body(settings: Settings) -> Iterator[bytes]:
    """The whole body, at most MAX_CALLBACK_BYTES, read in READ_SECONDS.

    One that is larger than INLINE_CALLBACK_BYTES waits on disk until it is the only such body in this process's memory.
    """
    with tempfile.SpooledTemporaryFile(max_size=settings.inline_callback_bytes + 1) as spool:
        size = receive_into(spool, settings.max_callback_bytes)
        large = size > settings.inline_callback_bytes
        if large and not one_large_body.acquire(timeout=READ_SECONDS):
            raise BodyRefused(503, "other large bodies are being kept; send it again")
        try:
            spool.seek(0)
            yield spool.read()
        finally:
            if large:
                one_large_body.release()


def receive_into(spool: IO[bytes], limit: int) -> int:
    """Read the request's body, declared or chunked, to its end; how many bytes it had. Raises BodyRefused."""
    declared = request.content_length
    if declared is not None and declared > limit:
        raise BodyRefused(413, f"the body has {declared} bytes; MAX_CALLBACK_BYTES allows {limit}")
    stream = request.environ["wsgi.input"]
    until, size = time.monotonic() + READ_SECONDS, 0
    while chunk := read_some(stream):
        size += len(chunk)
        if size > limit:
            raise BodyRefused(413, f"the body is larger than MAX_CALLBACK_BYTES, {limit}")
        if time.monotonic() > until:
            raise BodyRefused(408, f"the body took longer than {READ_SECONDS:.0f} s")
        spool.write(chunk)
    if declared is not None and size < declared:
        raise BodyRefused(400, f"the body ended after {size} of {declared} bytes")
    return size


def read_some(stream: IO[bytes]) -> bytes:
    """The next piece of the body, empty at its end."""
    try:
        return stream.read(CHUNK)
    except (OSError, ParseException) as broken:  # a client that left or stalled; chunks that are no chunks
        raise BodyRefused(400, f"the body could not be read to its end: {type(broken).__name__}") from broken


def refuse(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    """An answer without a delivery. The connection is closed: what is left of the body is nobody's to read."""
    answered.labels(str(status)).inc()
    log.warning("callback refused with %s: %s", status, why)
    response = answer(status, {"error": why})
    response.headers.update({"Connection": "close", **(headers or {})})
    return response


def answer(status: int, content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), status, content_type="application/json")
