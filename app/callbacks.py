"""`POST /callbacks/scale`: authenticate, read within limits, receive, answer, then dispatch the jobs."""

from __future__ import annotations

import hmac
import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from flask import Blueprint, Response, request
from gunicorn.http.errors import ParseException
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from app.extensions import dispatcher, key_failures, service
from app.failure_limiter import record_failure
from app.responses import json_response
from config import Settings
from pipeline.db.errors import safe_message
from pipeline.follow_ups.activation import record_in_background
from pipeline.metrics import CALLBACK_SECONDS
from pipeline.receive.receive import receive

log = logging.getLogger(__name__)
blueprint = Blueprint("callbacks", __name__)

CHUNK_BYTES = 64 * 1024
BODY_TIMEOUT_SECONDS = 30.0
"""From the first byte of the body to the last."""
RETRY_AFTER = "15"
STORED_HEADERS = {
    "User-Agent": "HTTP_USER_AGENT",
    "Content-Type": "CONTENT_TYPE",
    "Content-Length": "CONTENT_LENGTH",
    "Content-Encoding": "HTTP_CONTENT_ENCODING",
    "X-Request-Id": "HTTP_X_REQUEST_ID",
    "X-Forwarded-For": "HTTP_X_FORWARDED_FOR",
}
"""Names of headers, and of the variables of WSGI that hold them."""

responses = Counter("weighbridge_callbacks", "Callbacks by status", ["status"])
large_body_lock = threading.Lock()


class BodyRejected(Exception):
    """Raised when the body cannot be accepted: (HTTP status, message)."""


@blueprint.post("/callbacks/scale", strict_slashes=False)
def scale_callback() -> Response:
    """Receive one callback. 200 means that its bytes are stored."""
    started = time.perf_counter()
    response = receive_callback()
    CALLBACK_SECONDS.labels(str(response.status_code)).observe(time.perf_counter() - started)
    return response


def receive_callback() -> Response:
    """Authenticate, read, store and answer the callback of this request, then dispatch its jobs."""
    settings, environ = service().settings, request.environ
    environment = authenticate(environ.get("HTTP_SCALE_CALLBACK_AUTH"), settings)
    if environment is None:
        return reject_key()
    try:
        with read_body(settings) as body:
            receipt = receive(
                service(),
                body,
                environment,
                headers={
                    name: value
                    for name, variable in STORED_HEADERS.items()
                    if (value := environ.get(variable))
                },
            )
    except BodyRejected as error:
        status, message = error.args
        return reject(status, message, {"Retry-After": RETRY_AFTER} if status == 503 else {})
    except Exception as error:
        is_unexpected = not isinstance(error, SQLAlchemyError)
        log.error("could not store callback", extra={"error": safe_message(error)}, exc_info=is_unexpected)
        return reject(503, "The callback could not be stored; send it again.", {"Retry-After": RETRY_AFTER})
    dispatcher().dispatch(receipt.jobs)
    record_in_background(service())
    responses.labels(receipt.status).inc()
    return json_response(200, {"delivery_id": str(receipt.delivery_id), "status": receipt.status})


def authenticate(key: str | None, settings: Settings) -> str | None:
    """Return the environment of the key, "live" or "test", or None. Compares every known key in constant time.

    The header is a static secret shared with Scale; it does not sign the body. Source: docs, "Callbacks".
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
    """Read the whole body: at most MAX_CALLBACK_BYTES within BODY_TIMEOUT_SECONDS. Raises BodyRejected.

    A small one comes in one piece. A body larger than INLINE_CALLBACK_BYTES stays on disk until it is the only such body in
    this process's memory.
    """
    declared = request.content_length
    if declared is not None and declared <= min(CHUNK_BYTES, settings.max_callback_bytes):
        body = read_some(request.environ["wsgi.input"])
        check_complete(len(body), declared)
        yield body
        return
    with tempfile.SpooledTemporaryFile(max_size=settings.inline_callback_bytes + 1) as spool:
        size = receive_into(spool, settings.max_callback_bytes)
        large = size > settings.inline_callback_bytes
        if large and not large_body_lock.acquire(timeout=BODY_TIMEOUT_SECONDS):
            raise BodyRejected(503, "Other large bodies are being stored; send it again.")
        try:
            spool.seek(0)
            yield spool.read()
        finally:
            if large:
                large_body_lock.release()


def receive_into(spool: IO[bytes], limit: int) -> int:
    """Read the request's body, declared or chunked, to its end and return its size. Raises BodyRejected."""
    declared = request.content_length
    if declared is not None and declared > limit:
        raise BodyRejected(413, f"The body has {declared} bytes; MAX_CALLBACK_BYTES is {limit}.")
    stream = request.environ["wsgi.input"]
    until, size = time.monotonic() + BODY_TIMEOUT_SECONDS, 0
    while chunk := read_some(stream):
        size += len(chunk)
        if size > limit:
            raise BodyRejected(413, f"The body is larger than MAX_CALLBACK_BYTES, {limit}.")
        if time.monotonic() > until:
            raise BodyRejected(408, f"The body took longer than {BODY_TIMEOUT_SECONDS:.0f} s.")
        spool.write(chunk)
    check_complete(size, declared)
    return size


def check_complete(size: int, declared: int | None) -> None:
    """Raise BodyRejected if the body is shorter than its declared length."""
    if declared is not None and size < declared:
        raise BodyRejected(400, f"The body ended after {size} of {declared} bytes.")


def read_some(stream: IO[bytes]) -> bytes:
    """Return the next part of the body, empty at its end. Raises BodyRejected."""
    try:
        return stream.read(CHUNK_BYTES)
    except (OSError, ParseException) as error:  # the client left or stalled, or a chunk is malformed
        raise BodyRejected(400, f"The body could not be read: {type(error).__name__}.") from error


def reject_key() -> Response:
    """Reject a request without a valid key. No address is slowed down: Scale may share it, behind a proxy."""
    record_failure(key_failures(), "callback key")
    return error_response(401, "Missing or unknown scale-callback-auth.")


def reject(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Reject an authenticated request before storing it."""
    log.warning("callback rejected", extra={"status": status, "reason": message})
    return error_response(status, message, headers)


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return the response to a rejected request. It closes the connection, because the body is unread."""
    responses.labels(str(status)).inc()
    response = json_response(status, {"error": message})
    response.headers.update({"Connection": "close", **(headers or {})})
    return response
