"""Callbacks as Scale sends them: the envelope, the headers, and one attempt to send it. delivery.py decides about retries."""

import contextlib
import http.client
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import orjson
from sqlalchemy.orm import Session

from sandbox.engine.faults import Faults
from sandbox.engine.tasks import match_fields, task_object
from sandbox.settings import (
    LIVE_CALLBACK_KEY,
    TEST_CALLBACK_KEY,
    SandboxSettings,
    is_test_account,
)
from sandbox.storage import clock
from sandbox.storage.store import Batch, Delivery, Task

MAX_ATTEMPTS = 20
"""Attempts within 24 hours. Source: docs, "Callbacks"."""

FIRST_WAIT_SECONDS = 5.0
# The schedule is not documented. Waits that grow by this factor from 5 s put the 20th attempt at the end of the 24 hours.
WAIT_GROWTH = 1.6312
CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_TIMEOUT_SECONDS = 15.0
CHUNK_BYTES = 64 * 1024
SLOW_BODY_CHUNKS = 20
_SAFE_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"  # allowed in a URL, so only other characters are encoded


class Attempt(NamedTuple):
    """Hold the outcome of one attempt: the HTTP status, or the error that prevented an answer."""

    status: int | None
    error: str | None

    @property
    def succeeded(self) -> bool:
        """Return whether the receiver answered 2xx."""
        return self.status is not None and 200 <= self.status < 300


class SendOptions(NamedTuple):
    """Say how the body is written to the connection. `seconds` spreads it over that time."""

    reset: bool = False
    chunked: bool = False
    seconds: float = 0.0


_NORMAL = SendOptions()


def wait_before_attempt(number: int) -> float:
    """Return Scale's seconds between attempt `number` - 1 and attempt `number`; the first attempt is number 1."""
    return 0.0 if number <= 1 else FIRST_WAIT_SECONDS * WAIT_GROWTH ** (number - 2)


def envelope(task: Task) -> bytes:
    """Return the body of a callback about the task's current state. A task without a response has none in it."""
    shown = task_object(task)
    body: dict[str, Any] = {"task": shown, "task_id": task.task_id}
    if "response" in shown:
        body["response"] = shown["response"]
    if task.status == "error":
        body["status"] = "error"
    return orjson.dumps(body)


def batch_envelope(batch: Batch) -> bytes:
    """Return the body of a callback about a completed batch. A guess: Scale documents the callback, not its body."""
    return orjson.dumps(
        {"batch": batch.name, "project": batch.project, "status": batch.status, "metadata": batch.metadata_}
    )


def enqueue_callback(
    session: Session, settings: SandboxSettings, faults: Faults, task: Task, event: str
) -> Delivery | None:
    """Insert a callback about a task; return None if the task has no URL to call."""
    url = task.details.get("callback_url") or settings.callback_url
    if url is None:
        return None
    session.flush()
    delivery = _new_delivery(task.account, url, envelope(task), event, task.batch)
    delivery.task_id = task.task_id
    hits = faults.inject("callback", {**match_fields(task), "event": event}, task.number, session)
    _insert_callback(session, delivery, hits)
    if delivery.state == "dropped":
        task.details = {**task.details, "callback_succeeded": False}
    return delivery


def enqueue_batch_callback(session: Session, faults: Faults, batch: Batch) -> Delivery | None:
    """Insert a callback about a completed batch; return None if the batch has no URL to call."""
    if not batch.callback:
        return None
    delivery = _new_delivery(batch.account, batch.callback, batch_envelope(batch), "batch", batch.name)
    subject = {"account": batch.account, "batch": batch.name, "event": "batch"}
    _insert_callback(session, delivery, faults.inject("callback", subject, batch.number, session))
    return delivery


def _new_delivery(account: str, url: str, body: bytes, event: str, batch: str | None) -> Delivery:
    now = clock.now()
    return Delivery(
        account=account,
        batch=batch,
        event=event,
        url=url,
        body=body,
        created_at=now,
        next_attempt_at=now,
        attempts=[],
        held=False,
        state="pending",
    )


def _insert_callback(session: Session, delivery: Delivery, hits: dict[str, dict[str, Any]]) -> None:
    """Insert a callback with the faults that apply to it."""
    delivery.faults = [{"fault": name, **options} for name, options in hits.items()]
    delays = [hits[name]["seconds"] for name in ("reordered", "delayed") if name in hits]
    if not delivery.url.lower().startswith(("http://", "https://")):
        # Scale mails the same JSON if the callback_url is an e-mail address. Source: docs, "Callbacks".
        delivery.state, delivery.next_attempt_at = "mailed", None
    elif "dropped" in hits:
        delivery.state, delivery.next_attempt_at = "dropped", None
    elif delays:
        delivery.held = "reordered" in hits
        delivery.next_attempt_at = delivery.created_at + round(1000 * max(delays))
    session.add(delivery)


def send(delivery: Delivery, settings: SandboxSettings) -> list[Attempt]:
    """Make one attempt with the faults of this delivery; a duplicated callback makes two at the same time."""
    faults = {fault["fault"]: fault for fault in delivery.faults}
    attempts_made = len(delivery.attempts)
    headers = _headers(delivery, settings, faults)
    body = _body(delivery, faults)
    options = SendOptions(
        reset=attempts_made < faults.get("reset_after_sending", {}).get("attempts", 0),
        chunked="chunked" in faults,
        seconds=faults.get("slow_body", {}).get("seconds", 0.0),
    )
    copies = 2 if "duplicated" in faults else 1
    if copies == 1:
        return [post(delivery.url, headers, body, options)]
    with ThreadPoolExecutor(copies) as pool:
        return list(pool.map(lambda _: post(delivery.url, headers, body, options), range(copies)))


def _headers(
    delivery: Delivery, settings: SandboxSettings, faults: dict[str, dict[str, Any]]
) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "scale-sandbox"}
    attempts_made = len(delivery.attempts)
    if attempts_made < faults.get("wrong_key", {}).get("attempts", 0):
        headers["scale-callback-auth"] = "not-the-key"
    elif attempts_made >= faults.get("no_key", {}).get("attempts", 0):
        headers["scale-callback-auth"] = callback_key(
            settings, delivery.url, is_test_account(delivery.account)
        )
    return headers


def callback_key(settings: SandboxSettings, url: str, is_test: bool) -> str:
    """Return the key to send to a URL: the service's own goes to no URL but the service's."""
    if settings.service_url is not None and url == settings.service_url:
        return settings.test_callback_key if is_test else settings.live_callback_key
    return TEST_CALLBACK_KEY if is_test else LIVE_CALLBACK_KEY


def _body(delivery: Delivery, faults: dict[str, dict[str, Any]]) -> bytes:
    body = delivery.body
    if "volatile" in faults and any(attempt.get("succeeded") for attempt in delivery.attempts):
        body = _change_volatile_fields(body)
    if "huge" in faults:
        body = _add_filler(body, faults["huge"]["bytes"])
    return body


def post(url: str, headers: dict[str, str], body: bytes, options: SendOptions = _NORMAL) -> Attempt:
    """POST a body to a URL. Redirects are not followed, so they count as failures."""
    try:
        with _connect(url) as connection:
            _write_head(connection, url, headers, None if options.chunked else len(body))
            _write_body(connection, body, options)
            if options.reset:
                reset_on_close(connection.sock)
                return Attempt(None, "The connection was reset after sending.")
            response = connection.getresponse()
            response.read(CHUNK_BYTES)
            return Attempt(response.status, None)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Attempt(None, f"{type(error).__name__}: {error}")


def _write_head(
    connection: http.client.HTTPConnection, url: str, headers: dict[str, str], length: int | None
) -> None:
    """Write the request line and the headers; without a length the body is chunked."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.putrequest("POST", quote(target, safe=_SAFE_URL_CHARACTERS), skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if length is None:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(length))
    connection.endheaders()


def _write_body(connection: http.client.HTTPConnection, body: bytes, options: SendOptions) -> None:
    for chunk in _chunks(body, options.seconds):
        connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if options.chunked else chunk)
    if options.chunked:
        connection.send(b"0\r\n\r\n")


def _chunks(body: bytes, seconds: float) -> Iterator[bytes]:
    """Yield the body in chunks; a slow body in 20, spread over the given seconds."""
    size = max(1, -(-len(body) // SLOW_BODY_CHUNKS)) if seconds else CHUNK_BYTES
    for start in range(0, len(body), size):
        if seconds and start:
            time.sleep(seconds / SLOW_BODY_CHUNKS)
        yield body[start : start + size]


def reset_on_close(connection: socket.socket) -> None:
    """Make the close of a connection a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def _connect(url: str) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(url)
    host, timeout = parts.hostname or "", CONNECT_TIMEOUT_SECONDS
    connection: http.client.HTTPConnection
    if parts.scheme.lower() == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    try:
        connection.connect()
        connection.sock.settimeout(ANSWER_TIMEOUT_SECONDS)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection
    finally:
        connection.close()


def _change_volatile_fields(body: bytes) -> bytes:
    """Return the same result as Scale would send it later: other dates and bookkeeping, the same response."""
    changed = orjson.loads(body)
    if "task" in changed:
        changed["task"] |= {
            "updated_at": clock.format_timestamp(clock.now()),
            "callback_succeeded": True,
            "isProcessed": True,
        }
    return orjson.dumps(changed)


def _add_filler(body: bytes, size: int) -> bytes:
    changed = orjson.loads(body)
    changed.get("task", changed)["filler"] = "x" * size
    return orjson.dumps(changed)
