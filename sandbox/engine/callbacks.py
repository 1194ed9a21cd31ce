"""Callbacks as Scale makes them: the envelope, its header, and one try to deliver it. When to try is the office's business."""

import contextlib
import http.client
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import orjson
from sqlalchemy.orm import Session

from sandbox.engine.faults import Faults
from sandbox.engine.tasks import matched_by, task_object
from sandbox.settings import SandboxSettings, is_test_key
from sandbox.storage import clock
from sandbox.storage.store import Batch, Delivery, Task

MAX_TRIES = 20
"""Tries in 24 hours. Source: docs, "Callbacks"."""

DAY_SECONDS = 24 * 3600
FIRST_WAIT_SECONDS = 5.0
# The schedule is not documented. Waits that grow by this factor from 5 s put the 20th try at the end of the 24 hours.
WAIT_GROWTH = 1.6312
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
SLICE = 64 * 1024
_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"  # all that may stand in an address, so that only what may not is encoded


class Try(NamedTuple):
    """What came of one try: the status, or the error that stood in its way."""

    status: int | None
    error: str | None

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def wait_before_try(number: int) -> float:
    """Seconds of Scale's between try `number` - 1 and try `number`; the first try is number 1."""
    return 0.0 if number <= 1 else FIRST_WAIT_SECONDS * WAIT_GROWTH ** (number - 2)


def envelope(task: Task) -> bytes:
    """The body for what a task is now. A task without a response (recalled) has none in its envelope either."""
    whole = task_object(task)
    body: dict[str, Any] = {"task": whole, "task_id": task.task_id}
    if "response" in whole:
        body["response"] = whole["response"]
    if task.status == "error":
        body["status"] = "error"
    return orjson.dumps(body)


def batch_envelope(batch: Batch) -> bytes:
    """The body for a finished batch. A guess: Scale documents that it comes, not what it says."""
    return orjson.dumps(
        {"batch": batch.name, "project": batch.project, "status": batch.status, "metadata": batch.metadata_}
    )


def announce(
    session: Session, settings: SandboxSettings, faults: Faults, task: Task, event: str
) -> Delivery | None:
    """Put a callback about a task on its way; None when nobody is to be called."""
    url = task.details.get("callback_url") or settings.callback_url
    if url is None:
        return None
    session.flush()
    return _put_on_its_way(session, faults, task.account, url, envelope(task), event, task=task)


def announce_batch(session: Session, faults: Faults, batch: Batch) -> Delivery | None:
    if not batch.callback:
        return None
    return _put_on_its_way(
        session, faults, batch.account, batch.callback, batch_envelope(batch), "batch", batch=batch
    )


def _put_on_its_way(
    session: Session,
    faults: Faults,
    account: str,
    url: str,
    body: bytes,
    event: str,
    task: Task | None = None,
    batch: Batch | None = None,
) -> Delivery:
    now = clock.now()
    delivery = Delivery(
        account=account,
        task_id=task.task_id if task else None,
        batch=batch.name if batch else task.batch if task else None,
        event=event,
        url=url,
        body=body,
        created_at=now,
        next_try_at=now,
        tries=[],
        held=False,
        state="pending",
    )
    subject = {
        **(matched_by(task) if task else {"account": account, "batch": delivery.batch}),
        "event": event,
    }
    number = task.number if task else batch.number if batch else 0
    hits = faults.inject("callback", subject, number, session)
    delivery.faults = [{"fault": name, **options} for name, options in hits.items()]
    if not url.lower().startswith(("http://", "https://")):
        # Scale mails the same JSON to an address that is an e-mail's. Source: docs, "Callbacks".
        delivery.state, delivery.next_try_at = "mailed", None
    elif "dropped" in hits:
        delivery.state, delivery.next_try_at = "dropped", None
        if task is not None:
            task.details = {**task.details, "callback_succeeded": False}
    elif "reordered" in hits or "delayed" in hits:
        delivery.held = "reordered" in hits
        delivery.next_try_at = now + round(
            1000 * max(hits[n]["seconds"] for n in ("reordered", "delayed") if n in hits)
        )
    session.add(delivery)
    return delivery


def send(delivery: Delivery, settings: SandboxSettings) -> list[Try]:
    """One try, with the faults that this delivery carries; a doubled one is two."""
    faults = {fault["fault"]: fault for fault in delivery.faults}
    made = len(delivery.tries)
    body = delivery.body
    if "volatile" in faults and any(before.get("succeeded") for before in delivery.tries):
        body = _with_other_volatile_fields(body)
    if "huge" in faults:
        body = _with_filler(body, faults["huge"]["bytes"])
    headers = {"Content-Type": "application/json", "User-Agent": "scale-sandbox"}
    if made < faults.get("wrong_key", {}).get("tries", 0):
        headers["scale-callback-auth"] = "not-the-key"
    elif made >= faults.get("no_key", {}).get("tries", 0):
        test = is_test_key(delivery.account)
        headers["scale-callback-auth"] = settings.test_callback_key if test else settings.live_callback_key
    manner = _Manner(
        reset=made < faults.get("reset_after_sending", {}).get("tries", 0),
        chunked="chunked" in faults,
        seconds=faults.get("slow_body", {}).get("seconds", 0.0),
    )
    if "duplicated" not in faults:
        return [post(delivery.url, headers, body, manner)]
    outcomes: list[Try] = []
    twins = [
        threading.Thread(target=lambda: outcomes.append(post(delivery.url, headers, body, manner)))
        for _ in range(2)
    ]
    for twin in twins:
        twin.start()
    for twin in twins:
        twin.join()
    return outcomes


class _Manner(NamedTuple):
    """How the bytes go out."""

    reset: bool = False
    chunked: bool = False
    seconds: float = 0.0


def post(url: str, headers: dict[str, str], body: bytes, manner: _Manner = _Manner()) -> Try:  # noqa: B008
    """POST to a callback's address. Redirects are not followed: they are no 2xx."""
    try:
        with _connection(url) as connection:
            address = urlsplit(url)
            target = quote(
                (address.path or "/") + (f"?{address.query}" if address.query else ""), safe=_AS_IT_IS
            )
            connection.putrequest("POST", target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if manner.chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            else:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            for part in _parts(body, manner):
                connection.send(b"%x\r\n%b\r\n" % (len(part), part) if manner.chunked else part)
            if manner.chunked:
                connection.send(b"0\r\n\r\n")
            if manner.reset:
                reset(connection.sock)
                return Try(None, "The connection was reset after sending.")
            answer = connection.getresponse()
            answer.read(SLICE)
            return Try(answer.status, None)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Try(None, f"{type(error).__name__}: {error}")


def reset(connection: socket.socket) -> None:
    """Make the coming close a reset instead of a polite end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def _connection(url: str) -> Iterator[http.client.HTTPConnection]:
    address = urlsplit(url)
    connection: http.client.HTTPConnection
    if address.scheme.lower() == "https":
        connection = http.client.HTTPSConnection(
            address.hostname or "",
            address.port,
            timeout=CONNECT_SECONDS,
            context=ssl.create_default_context(),
        )
    else:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=CONNECT_SECONDS)
    try:
        connection.connect()
        connection.sock.settimeout(ANSWER_SECONDS)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection
    finally:
        connection.close()


def _parts(body: bytes, manner: _Manner) -> Iterator[bytes]:
    """The body in slices; a slow one in 20, spread over its seconds."""
    size = max(1, -(-len(body) // 20)) if manner.seconds else SLICE
    for start in range(0, len(body), size):
        if manner.seconds and start:
            time.sleep(manner.seconds / 20)
        yield body[start : start + size]


def _with_other_volatile_fields(body: bytes) -> bytes:
    """The same result as Scale would render it later: dates and bookkeeping moved, the response did not."""
    changed = orjson.loads(body)
    if "task" in changed:
        changed["task"] |= {
            "updated_at": clock.iso(clock.now()),
            "callback_succeeded": True,
            "isProcessed": True,
        }
    return orjson.dumps(changed)


def _with_filler(body: bytes, size: int) -> bytes:
    changed = orjson.loads(body)
    changed.get("task", changed)["filler"] = "x" * size
    return orjson.dumps(changed)
