"""A gunicorn worker that buffers requests in its event loop, so that a thread never waits for an unknown client.

gunicorn's gthread gives each connection a thread and reads from it without a time limit: a few hundred clients that send
a byte now and then stop all receiving. Here the event loop collects the request (pattern: request buffering, as in nginx).
Only a complete request takes a thread. The one exception is a large callback whose key is right: its body is read by a
pool of its own. Answers that a client does not read at once are sent by the event loop too: a thread continues a long one when
the client has taken what is buffered.

Each byte that arrives is examined once, and every buffer, queue and wait has a bound. docs/threat-model.md lists the
attacks that this holds off; docs/decisions/010-request-buffering.md says why it is written by hand.
"""

import contextlib
import errno
import logging
import math
import mmap
import re
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache, partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData
from gunicorn.http.message import Request, _ip_in_allow_list
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

HEADER_TIMEOUT_SECONDS = 20
"""From the first byte of a request, or from the connection, to the end of its head. Then 408."""

BODY_TIMEOUT_SECONDS = 30
"""From the end of the head to the last byte of the body that is buffered or read. Then 408."""

POOL_TIMEOUT_SECONDS = 15
"""How long a complete request waits for a thread. Then 503."""

SEND_TIMEOUT_SECONDS = 60
"""How long a client may take to read what is buffered of an answer. Then the connection is reset."""

LINGER_TIMEOUT_SECONDS = 2
"""How long an answered client may take to hang up. Closing at once could cut off the answer (RFC 9112, section 9.6)."""

REST_RATIO = 2.0
"""While small callbacks arrive, the thread of a large one rests this many times as long as it worked, so that its sender
keeps the processors busy for a third of the time at most."""

EVICTION_SECONDS = 0.1
"""How long a connection has waited for its client before a full process closes it for a new one. Until then new ones wait."""

MAX_HEAD_BYTES = 32 * 1024
MAX_HEAD_LINES = 102
"""The request line, gunicorn's limit of 100 fields, and the empty line. More bytes or lines: 431."""

MAX_BODY_BYTES = 1024 * 1024
"""Largest body of a request that is not a callback. More: 413."""

MAX_CHUNKS = 512
"""How many chunks of a body the event loop looks at. More: 400, and the body of a callback is read by a thread."""

REQUEST_BUFFER_BYTES = 64 * 1024
"""Largest callback that is buffered whole. A larger one with a valid key is read by a thread."""

ANSWER_BUFFER_BYTES = 256 * 1024
"""How much of an answer may be unread before the application is asked for no more of it."""

ANSWER_TURN_BYTES = 4 * 1024 * 1024
"""How much of an answer a thread sends before others have their turn, however fast its client reads."""

REQUEST_BUDGET_BYTES = 32 * 1024 * 1024
RESPONSE_BUDGET_BYTES = 64 * 1024 * 1024
"""Bounds of all buffers of one process together. Beyond them the connection that waited longest is closed. Requests that
wait for a thread of `slow_pool` may hold half of the first one, so that they leave room for callbacks."""

SEND_BUFFER_BYTES = 128 * 1024
"""The kernel's buffer for one connection. By default it grows to 4 MiB for a client that does not read."""

PRIORITY_PREFIXES = (b"POST /callbacks/", b"GET /livez ", b"GET /readyz ")
"""Requests that no other request delays."""

CALLBACK_PREFIX = b"POST /callbacks/"
KEY_HEADER = b"scale-callback-auth"

RECEIVE_BYTES = 64 * 1024
PARSER_CHUNK_BYTES = 8 * 1024
"""gunicorn's parser of chunked bodies copies the rest of what it was given for each chunk: larger pieces cost more."""

SERVER_HEADER = "Weighbridge"
REPORT_SECONDS = 60

MAX_PROCESSES = 16
"""How many web processes may share their counts of connections."""

HOUSEKEEPING_SECONDS = 0.5
"""How often a busy worker looks at its waits and touches gunicorn's heartbeat file. An idle one does once a second."""

_HEX_DIGITS = b"0123456789abcdefABCDEF"
_PLAIN_CHUNK_SIZE = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{,6})\r\n")
_HEAD_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _error_response(status: int, title: str, detail: str, headers: str = "") -> bytes:
    """Return a complete answer with a problem document (RFC 9457), as the application sends them."""
    body = f'{{"title":"{title}","status":{status},"detail":"{detail}"}}'
    return (
        f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n{body}"
    ).encode()


REQUEST_TIMEOUT = _error_response(408, "Request Timeout", "The request did not arrive in time.")
CONTENT_TOO_LARGE = _error_response(
    413, "Content Too Large", f"The body is larger than {MAX_BODY_BYTES} bytes."
)
TOO_MANY_CHUNKS = _error_response(
    400,
    "Bad Request",
    f"The body has more than {MAX_CHUNKS} chunks. Send larger chunks, or a Content-Length.",
)
HEAD_TOO_LARGE = _error_response(
    431,
    "Request Header Fields Too Large",
    f"The request line and headers are larger than {MAX_HEAD_BYTES} bytes or have more than 100 fields.",
)
UNAVAILABLE = _error_response(
    503, "Service Unavailable", "All threads are busy; send the request again.", "Retry-After: 15\r\n"
)


# Requests


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the event loop must know of a request line and its headers. gunicorn parses and validates them later."""

    size: int
    is_callback: bool = False
    has_priority: bool = False
    key: str | None = None
    content_length: int = 0
    is_chunked: bool = False
    expects_continue: bool = False


def parse_head(head: bytes) -> RequestHead | None:
    """Parse a head that ends with an empty line. Return None if it has more than MAX_HEAD_LINES lines."""
    lines = head.split(b"\r\n", MAX_HEAD_LINES)
    if len(lines) > MAX_HEAD_LINES:
        return None
    keys: list[str] = []
    lengths: list[bytes] = []
    is_chunked, expects_continue = False, False
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == KEY_HEADER:
            keys.append(value.decode("latin-1"))
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            is_chunked = True
        elif name == b"expect":
            expects_continue = value.lower() == b"100-continue" and lines[0].endswith(b"HTTP/1.1")
    # gunicorn refuses a length that is no number, or a body with two lengths, before anything reads the body.
    is_readable = len(lengths) + is_chunked == 1 and all(
        length.isdigit() and len(length) < 19 for length in lengths
    )
    return RequestHead(
        size=len(head),
        is_callback=head.startswith(CALLBACK_PREFIX),
        has_priority=head.startswith(PRIORITY_PREFIXES),
        key=",".join(keys) if keys else None,
        content_length=int(lengths[0]) if lengths and is_readable else 0,
        is_chunked=is_chunked and is_readable,
        expects_continue=expects_continue,
    )


class ChunkScanner:
    """Finds the end of a chunked body in a growing buffer. Examines each byte once, and at most MAX_CHUNKS chunks."""

    def __init__(self, start: int) -> None:
        self.position = start
        """Where the next chunk-size line begins."""
        self.searched = start
        """No line end is before this position."""
        self.count = 0
        """How many chunks have begun, the last one included."""
        self.is_last = False

    def end(self, buffer: bytearray) -> int | None:
        """Return where the body ends, None while it is incomplete. Raises ValueError if it is malformed."""
        while not self.is_last and self.count <= MAX_CHUNKS:
            if line := _PLAIN_CHUNK_SIZE.match(buffer, self.position):
                self.position = self.searched = line.end() + int(line[1], 16) + 2
                self.count += 1
                continue
            line_end = self._find(buffer, b"\r\n")
            if line_end < 0:
                return None
            size = buffer[self.position : line_end].partition(b";")[0].rstrip(b" \t")
            if not size or size.strip(_HEX_DIGITS):  # int() takes signs, underscores and 0x
                raise ValueError("malformed chunk size")
            length = int(size, 16)
            self.is_last = length == 0
            # The trailer section ends with an empty line; the end of the size line may be the first half of it.
            self.position = self.searched = line_end if self.is_last else line_end + length + 4
            self.count += 1
        if not self.is_last:
            return None
        trailer_end = self._find(buffer, _HEAD_END)
        return None if trailer_end < 0 else trailer_end + len(_HEAD_END)

    def _find(self, buffer: bytearray, text: bytes) -> int:
        found = buffer.find(text, self.searched)
        if found < 0:
            self.searched = max(self.searched, len(buffer) - len(text) + 1)
        return found


class BufferedRequest:
    """One HTTP request as it arrives. Adding bytes costs time in proportion to the new bytes alone."""

    buffer_type: type[bytearray] = bytearray

    def __init__(self) -> None:
        self.buffer = self.buffer_type()
        self.head: RequestHead | None = None
        self.is_head_too_large = False
        self.end: int | None = None
        """Where the request ends in the buffer; None while it is incomplete."""
        self.is_malformed = False
        """The body is not chunked as HTTP says. gunicorn refuses it when the application reads it."""
        self._searched = 0
        self._chunks: ChunkScanner | None = None

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self.buffer += data
        if self.head is None:
            self._find_head()
        if self.head is not None and self.end is None:
            self._find_end(self.head)

    def _find_head(self) -> None:
        end = self.buffer.find(_HEAD_END, max(0, self._searched - 3), MAX_HEAD_BYTES)
        self._searched = len(self.buffer)
        if end >= 0:
            self.head = parse_head(bytes(self.buffer[: end + len(_HEAD_END)]))
        self.is_head_too_large = self.head is None and (end >= 0 or self._searched >= MAX_HEAD_BYTES)

    def _find_end(self, head: RequestHead) -> None:
        if not head.is_chunked:
            end = head.size + head.content_length
            self.end = end if len(self.buffer) >= end else None
            return
        self._chunks = self._chunks or ChunkScanner(head.size)
        try:
            self.end = self._chunks.end(self.buffer)
        except ValueError:
            self.is_malformed = True

    @property
    def has_too_many_chunks(self) -> bool:
        """Return whether the end of the body is not looked for any more."""
        return self._chunks is not None and self._chunks.count > MAX_CHUNKS

    @property
    def body_size(self) -> int:
        """Return the bytes of the body that arrived or were declared, whichever is more."""
        if self.head is None:
            return 0
        return max(self.head.content_length, len(self.buffer) - self.head.size)

    @property
    def is_complete_request(self) -> bool:
        """Return whether no more bytes are needed to answer."""
        return self.end is not None or self.is_malformed

    @property
    def is_exact(self) -> bool:
        """Return whether the buffer holds this request and nothing else, so that the next one may follow on its connection."""
        return self.end == len(self.buffer)


class RequestReader(Unreader):  # type: ignore[misc]  # gunicorn is not typed
    """Gives gunicorn's parser the buffered request, then what the socket still receives until `deadline`.

    A large body is received in pieces. While callbacks arrive, as `must_rest` says, it rests between two of them.
    """

    def __init__(
        self,
        sock: "ClientSocket",
        request: BufferedRequest,
        deadline: float,
        must_rest: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        assert request.head is not None
        self.sock, self.deadline, self.must_rest = sock, deadline, must_rest
        self.received_at = math.inf
        """When the last piece was received, and the application began to work on it."""
        self.buffered = memoryview(request.buffer)
        self.position, self.head_size = 0, request.head.size
        # Sent when the application reads the body: it may refuse the request by its head alone.
        self.continue_expected = request.head.expects_continue and not request.is_complete_request

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next bytes, empty at the end. Raises TimeoutError when the request is not complete in time."""
        if self.position >= len(self.buffered):
            return self._receive(size_hint)
        # The head comes in one piece, so that gunicorn's parser searches it once.
        size = (
            self.head_size
            if self.position == 0
            else max(PARSER_CHUNK_BYTES, min(size_hint or 0, RECEIVE_BYTES))
        )
        piece = self.buffered[self.position : self.position + size]
        self.position += len(piece)
        return bytes(piece)

    def _receive(self, size_hint: int | None) -> bytes:
        self.rest()
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the request did not arrive in time")
        self.sock.settimeout(seconds)
        try:
            if self.continue_expected:
                self.continue_expected = False
                self.sock.send(_CONTINUE)
            return self.sock.recv(max(PARSER_CHUNK_BYTES, min(size_hint or 0, RECEIVE_BYTES)))
        finally:
            self.sock.settimeout(0)
            self.received_at = time.monotonic()

    def rest(self) -> None:
        """Leave the processors to others for REST_RATIO times as long as the last piece took, within half of the body's time."""
        now = time.monotonic()
        seconds = min(REST_RATIO * (now - self.received_at), self.deadline - BODY_TIMEOUT_SECONDS / 2 - now)
        if seconds > 0 and self.must_rest():
            time.sleep(seconds)


class HeadParser(Request):  # type: ignore[misc]  # gunicorn is not typed
    """gunicorn's parser, which looks up once for each address whether it is a trusted proxy."""

    def _peer_is_trusted_proxy(self) -> bool:
        address = self.peer_addr
        return not isinstance(address, tuple) or _is_trusted_proxy(self.cfg, address[0])


@lru_cache(1024)
def _is_trusted_proxy(cfg: Any, address: str) -> bool:
    allowed: bool = _ip_in_allow_list(address, cfg.forwarded_allow_ips, cfg.forwarded_allow_networks())
    return allowed


# Connections


class ClientSocket(socket.socket):
    """A non-blocking socket that buffers what the client does not read at once."""

    __slots__ = ("holds_answer", "holds_headers", "outgoing")

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self.settimeout(0)
        self.outgoing = bytearray()
        self.holds_headers = False
        """Whether the next bytes are headers: they are sent with the first bytes of the body."""
        self.holds_answer = False
        """Whether the answer, a small one, waits for flush()."""

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send or buffer `data`, without waiting. Raises OSError if the client has gone."""
        self.outgoing += data
        if self.holds_headers or self.holds_answer:
            self.holds_headers = False
            return
        self.flush()

    def flush(self) -> None:
        """Send what the kernel takes without waiting. Raises OSError if the client has gone."""
        if self.outgoing:
            try:
                sent = self.send(self.outgoing)
            except BlockingIOError:
                return
            del self.outgoing[:sent]


class Answer:
    """An answer of the application. It is sent in turns, so that no thread waits for the client to read it."""

    def __init__(
        self, response: wsgi.Response, body: Iterable[bytes], environ: dict[str, Any], started: float
    ) -> None:
        self.response, self.body, self.environ, self.started = response, body, environ, started
        self.pieces = iter(body)

    def send_turn(self) -> bool:
        """Send until the client does not keep up, or the turn ends. Return whether the answer is complete. Raises OSError."""
        sock, start = self.response.sock, self.response.sent
        for piece in self.pieces:
            self.response.write(piece)
            if len(sock.outgoing) > ANSWER_BUFFER_BYTES or self.response.sent > start + ANSWER_TURN_BYTES:
                return False
        self.response.close()
        return True

    def close(self) -> None:
        """Close what the application reads the answer from."""
        if (close := getattr(self.body, "close", None)) is not None:
            close()


@dataclass(eq=False, slots=True)
class Connection:
    """One client with the request that it is sending."""

    sock: ClientSocket
    client: Any
    server: Any
    request: BufferedRequest = field(default_factory=BufferedRequest)
    is_authentic: bool | None = None
    """Whether the callback key is right; None until the head is complete."""
    waits_for_body: bool = False
    """Whether its thread may wait for the rest of the body."""
    slow_bytes: int = 0
    """What its request counts in the budget of requests for `slow_pool`."""
    answer: Answer | None = None
    """The answer, while it is not complete."""
    keep_alive: bool = False
    future: Future[bool] | None = None
    queue: "WaitingQueue | None" = None


class WaitingQueue:
    """Connections that wait for the same thing, the longest first. Every operation takes constant time."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.cutoff = math.inf
        """When the last wait ends, whatever its time-out."""
        self._since: OrderedDict[Connection, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def add(self, conn: Connection) -> None:
        """Move `conn` from its queue to the end of this one."""
        if conn.queue is not None:
            conn.queue.discard(conn)
        conn.queue = self
        self._since[conn] = time.monotonic()

    def discard(self, conn: Connection) -> None:
        """Remove `conn` if it is here."""
        if self._since.pop(conn, None) is not None:
            conn.queue = None

    def oldest(self) -> tuple[float, Connection | None]:
        """Return when the longest wait began and whose it is; (infinity, None) if nothing waits."""
        for conn, since in self._since.items():
            return since, conn
        return math.inf, None

    def expired(self, now: float) -> Iterator[Connection]:
        """Remove and yield the connections whose time is over."""
        while True:
            since, conn = self.oldest()
            if conn is None or (now < since + self.timeout and now < self.cutoff):
                return
            self.discard(conn)
            yield conn


def _since(wait: tuple[float, Connection | None]) -> float:
    return wait[0]


class SharedCounts:
    """What the web processes tell each other, in memory that they share: their connections, and that callbacks arrive.

    A process with more connections leaves new ones to the others. A kept-alive connection stays with its process: the one that
    wakes first would take all of them, and the others would idle.
    """

    FRESH_SECONDS = 2.0
    """How long a count is believed: an idle process reports each second, a frozen or dead one no more."""
    ARRIVAL_SECONDS = 0.5
    """How long after a small callback others are expected."""

    def __init__(self, processes: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 8 * processes)).cast("d")
        self._reported = memoryview(mmap.mmap(-1, 8 * processes)).cast("d")
        self._last_callback = memoryview(mmap.mmap(-1, 8)).cast("d")

    def report(self, place: int, connections: float, now: float) -> None:
        """Store the connections of a process; infinity if it accepts none now."""
        self._counts[place], self._reported[place] = connections, now

    def is_more_than_another(self, connections: int, now: float) -> bool:
        """Return whether another process that accepts has at least two connections fewer."""
        return any(
            count < connections - 1 and now < reported + self.FRESH_SECONDS
            for count, reported in zip(self._counts, self._reported, strict=True)
        )

    def report_callback(self, now: float) -> None:
        """Store that a small callback has arrived."""
        self._last_callback[0] = now

    def callbacks_arrive(self, now: float) -> bool:
        """Return whether a small callback has arrived in any process within ARRIVAL_SECONDS."""
        return now < self._last_callback[0] + self.ARRIVAL_SECONDS


class InvalidRequestFilter(logging.Filter):
    """Lets ten of gunicorn's lines about invalid requests through a minute, each cut to 300 characters."""

    def __init__(self) -> None:
        super().__init__()
        self.minute, self.count = 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written. Lines about invalid requests are cut, and beyond ten a minute dropped."""
        message = record.getMessage()
        if not message.startswith("Invalid request from"):
            return True
        minute = int(record.created // REPORT_SECONDS)
        self.count = self.count + 1 if minute == self.minute else 1
        self.minute = minute
        record.msg, record.args = message[:300], ()
        return self.count <= 10


# The worker


class BufferingThreadWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn is not typed
    """gunicorn's gthread with connections that wait, and end, in the event loop.

    Three pools, so that none delays another: `tpool` for callbacks and health checks, `body_pool` for the bodies of large
    callbacks with a valid key, `slow_pool` for everything else. Only threads of `body_pool` wait for a client's bytes.
    """

    is_authentic_key: Callable[[str | None], bool] = staticmethod(lambda key: True)
    """Tells the event loop whether a callback key is valid. The application checks it again."""

    counts = SharedCounts(MAX_PROCESSES)
    """Made before the processes are forked."""
    place: int | None = None
    """Where this process has its number in `counts`; None: it accepts whatever the others have."""

    # Set-up

    def init_process(self) -> None:
        """Build the thread pools and the queues of waiting connections, then run the worker."""
        third = max(1, self.cfg.threads // 3)
        self.slow_pool = ThreadPoolExecutor(third, "slow")
        self.body_pool = ThreadPoolExecutor(third, "body")
        self.fresh = WaitingQueue(HEADER_TIMEOUT_SECONDS)
        self.receiving = WaitingQueue(HEADER_TIMEOUT_SECONDS)
        self.buffering = WaitingQueue(BODY_TIMEOUT_SECONDS)
        self.queued = WaitingQueue(POOL_TIMEOUT_SECONDS)
        self.flushing = WaitingQueue(SEND_TIMEOUT_SECONDS)
        self.lingering = WaitingQueue(LINGER_TIMEOUT_SECONDS)
        self.keepalived_conns = WaitingQueue(self.cfg.keepalive)
        self.evictable = (
            self.fresh,
            self.receiving,
            self.buffering,
            self.flushing,
            self.lingering,
            self.keepalived_conns,
        )
        self.request_bytes = self.slow_bytes = self.response_bytes = 0
        self.rejections: Counter[str] = Counter()
        self.next_report = self.next_housekeeping = 0.0
        wsgi.SERVER = SERVER_HEADER
        self.log.error_log.addFilter(InvalidRequestFilter())
        for listener in self.sockets:  # inherited by the connections it accepts
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Return the pool for short requests: what the pools of slow requests and of bodies leave, at least one thread.

        Few are enough, because they wait for the database alone; more of them would fight for the interpreter lock.
        """
        return ThreadPoolExecutor(max(1, self.cfg.threads - 2 * (self.cfg.threads // 3)), "priority")

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise RuntimeError for options that this worker does not support: TLS and the PROXY protocol."""
        super().check_config(cfg, log)
        if cfg.is_ssl or cfg.proxy_protocol != "off":
            raise RuntimeError("BufferingThreadWorker supports neither TLS nor the PROXY protocol.")

    # The event loop

    def run(self) -> None:
        """Run the event loop until a signal stops the worker, then finish the requests that have arrived."""
        self.poller.register(self.method_queue.fileno(), EVENT_READ, self.method_queue.run_callbacks)
        while self.alive:
            accepts = self._accepts_now()
            self.set_accept_enabled(accepts)
            self._run_once(1.0 if accepts else 0.1)  # soon: the others may have taken enough
        self.set_accept_enabled(False)
        if self.place is not None:
            self.counts.report(self.place, math.inf, 0.0)
        self._drain()
        for pool in (self.tpool, self.body_pool, self.slow_pool):
            pool.shutdown(wait=False)
        self.poller.close()
        self.method_queue.close()
        for listener in self.sockets:
            listener.close()

    def _run_once(self, timeout: float) -> None:
        """Wait for events and handle them. Then, if it is time, show that the worker lives and end waits that took too long."""
        self.wait_for_and_dispatch_events(timeout)
        now = time.monotonic()
        if now >= self.next_housekeeping:
            self.next_housekeeping = now + HOUSEKEEPING_SECONDS
            self.notify()
            if not self.is_parent_alive():
                self.alive = False
            self._expire(now)

    def _drain(self) -> None:
        """Answer what has arrived, then stop. Slow clients get STOP_KEEPALIVE_LINGER seconds."""
        now = time.monotonic()
        for queue in self.evictable:
            queue.cutoff = now + STOP_KEEPALIVE_LINGER
        while self.nr_conns > 0 and time.monotonic() < now + self.cfg.graceful_timeout:
            self._run_once(0.1)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop at once: requests that no thread has begun are dropped."""
        for pool in (self.body_pool, self.slow_pool):
            pool.shutdown(wait=False)
        super().handle_quit(sig, frame)

    # Accepting

    def accept(self, listener: Any) -> None:
        """Accept one connection; at the limit, close the one that has waited longest for its client."""
        try:
            accepted, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            self._evict()
            return
        self.nr_conns += 1
        conn = Connection(ClientSocket(accepted), address, listener.getsockname())
        self.fresh.add(conn)
        self.await_request(conn)
        self.read_available(conn)  # most requests arrive with their connection
        if self.nr_conns > self.worker_connections:
            self._evict()

    def _accepts_now(self) -> bool:
        """Return whether to accept a connection: below the limit, and unless another process has fewer."""
        now = time.monotonic()
        has_room = self.nr_conns < self.worker_connections or self._has_evictable(now)
        if self.place is None:
            return has_room
        accepts = has_room and not self.counts.is_more_than_another(self.nr_conns, now)
        self.counts.report(self.place, self.nr_conns if accepts else math.inf, now)
        return accepts

    def _has_evictable(self, now: float) -> bool:
        return any(queue.oldest()[0] + EVICTION_SECONDS < now for queue in self.evictable)

    def _evict(self) -> None:
        """Close the connection that has waited longest for its client. One whose request has arrived is read instead."""
        while True:
            _, conn = min((queue.oldest() for queue in self.evictable), key=_since)
            if conn is None:
                return
            queue = conn.queue
            if queue in (self.fresh, self.keepalived_conns):
                self.read_available(conn)
            if conn.queue is queue:
                self.rejections["evicted"] += 1
                self._close(conn)
            if conn.queue is None:
                return

    # Receiving

    def await_request(self, conn: Connection) -> None:
        """Collect the next request of `conn` in the event loop."""
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_request_readable, conn))

    def _on_request_readable(self, conn: Connection, _: Any) -> None:
        if conn.sock.fileno() >= 0:  # another event of this round may have closed it
            self.read_available(conn)

    def read_available(self, conn: Connection) -> None:
        """Read what has arrived and act on it. Costs time in proportion to the new bytes."""
        try:
            data = conn.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(conn)
            return
        if not conn.request.buffer:
            self.receiving.add(conn)
        self.request_bytes += len(data)
        conn.request.feed(data)
        while self.request_bytes > REQUEST_BUDGET_BYTES and conn.request.buffer:
            _, slowest = min(self.receiving.oldest(), self.buffering.oldest(), key=_since)
            self._reject(slowest or conn, UNAVAILABLE, "buffers_full")
        if conn.request.buffer:
            self._advance(conn)

    def _advance(self, conn: Connection) -> None:
        """Decide what the request of `conn` needs next: more bytes, a thread, or a refusal."""
        request, head = conn.request, conn.request.head
        if request.is_head_too_large:
            self._reject(conn, HEAD_TOO_LARGE, "head_too_large")
        elif head is None:
            return
        elif head.is_callback:
            self._advance_callback(conn, head)
        elif request.body_size > MAX_BODY_BYTES:
            self._reject(conn, CONTENT_TOO_LARGE, "body_too_large")
        elif request.has_too_many_chunks:
            self._reject(conn, TOO_MANY_CHUNKS, "too_many_chunks")
        elif request.is_complete_request and head.has_priority:
            self.dispatch(conn, self.tpool)
        elif request.is_complete_request:
            self._dispatch_slow(conn)
        else:
            self._await_body(conn, head.expects_continue)

    def _advance_callback(self, conn: Connection, head: RequestHead) -> None:
        if conn.is_authentic is None:
            conn.is_authentic = self.is_authentic_key(head.key)
        if not conn.is_authentic:
            self.dispatch(conn, self.tpool)  # a wrong key is refused without its body
        elif conn.request.is_complete_request:
            self.counts.report_callback(time.monotonic())
            self.dispatch(conn, self.tpool)
        elif (
            head.expects_continue
            or conn.request.has_too_many_chunks
            or len(conn.request.buffer) >= REQUEST_BUFFER_BYTES
        ):
            conn.waits_for_body = True
            self.dispatch(conn, self.body_pool)
        else:
            self._await_body(conn, sends_continue=False)

    def _await_body(self, conn: Connection, sends_continue: bool) -> None:
        if conn.queue is not self.receiving:
            return
        self.buffering.add(conn)
        if sends_continue:
            with contextlib.suppress(OSError):  # a client that has gone is noticed at the next read
                conn.sock.sendall(_CONTINUE)

    # Answering

    def dispatch(self, conn: Connection, pool: ThreadPoolExecutor) -> None:
        """Give the request to a thread of `pool`."""
        self.poller.unregister(conn.sock)
        self._submit(conn, pool, self.handle)

    def _submit(self, conn: Connection, pool: ThreadPoolExecutor, task: Callable[[Connection], bool]) -> None:
        self.queued.add(conn)
        conn.future = pool.submit(task, conn)
        conn.future.add_done_callback(partial(self._defer_finish, conn))

    def _dispatch_slow(self, conn: Connection) -> None:
        conn.slow_bytes = len(conn.request.buffer)
        if self.slow_bytes + conn.slow_bytes > REQUEST_BUDGET_BYTES // 2:
            conn.slow_bytes = 0
            self._reject(conn, UNAVAILABLE, "buffers_full")
            return
        self.slow_bytes += conn.slow_bytes
        self.dispatch(conn, self.slow_pool)

    def _defer_finish(self, conn: Connection, future: Future[bool]) -> None:
        self.method_queue.defer(self.finish_request, conn, future)

    def handle(self, conn: Connection) -> bool:
        """Answer the request, in a thread. Return whether to go on with the connection."""
        parsed = None
        deadline = time.monotonic() + BODY_TIMEOUT_SECONDS if conn.waits_for_body else 0.0
        conn.sock.holds_headers, conn.sock.holds_answer = True, conn.waits_for_body
        try:
            reader = RequestReader(conn.sock, conn.request, deadline, self._callbacks_arrive)
            parsed = HeadParser(self.cfg, reader, conn.client)
            parsed._expected_100_continue = False  # gunicorn would send it before the application decides
            if not conn.request.is_exact:
                parsed.force_close()
            self.handle_request(parsed, conn)
            goes_on = self.send_turn(conn)
            reader.rest()
            conn.sock.flush()
            return goes_on
        except (NoMoreData, OSError) as error:
            self.log.debug("client disconnected", extra={"error": str(error)})
        except Exception as error:
            self.handle_error(parsed, conn.sock, conn.client, error)
        return False

    def handle_request(self, request: Request, conn: Connection) -> None:
        """Ask the application for its answer to a parsed request."""
        started = time.monotonic()
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        response, environ = wsgi.create(request, conn.sock, conn.client, conn.server, self.cfg)
        environ["wsgi.multithread"] = True
        if not (self.alive and self.cfg.keepalive):
            response.force_close()
        body = self.wsgi(environ, response.start_response)
        conn.answer = Answer(response, body, environ, started)

    def send_turn(self, conn: Connection) -> bool:
        """Send a part of the answer, in a thread. Return whether to go on with the connection. Raises OSError."""
        answer, has_ended = conn.answer, True
        assert answer is not None
        try:
            has_ended = answer.send_turn()
            return not has_ended or not answer.response.should_close()
        except OSError:  # the client has gone
            raise
        except Exception:
            if not answer.response.headers_sent:
                raise
            self.log.exception("answer failed")
            return False
        finally:
            if has_ended:
                conn.answer = None
                answer.close()
                seconds = timedelta(seconds=time.monotonic() - answer.started)
                self.log.access(answer.response, answer.response.req, answer.environ, seconds)

    def _callbacks_arrive(self) -> bool:
        return self.counts.callbacks_arrive(time.monotonic())

    def finish_request(self, conn: Connection, future: Future[bool]) -> None:
        """Go on with `conn` after its thread has ended, in the event loop."""
        if future.cancelled():
            return
        self.queued.discard(conn)
        self._release_request(conn)
        conn.keep_alive = future.exception() is None and future.result()
        self._finish_sending(conn)

    def _release_request(self, conn: Connection) -> None:
        self.request_bytes -= len(conn.request.buffer)
        self.slow_bytes -= conn.slow_bytes
        conn.request = BufferedRequest()
        conn.is_authentic, conn.waits_for_body, conn.slow_bytes, conn.future = None, False, 0, None

    # Sending

    def _finish_sending(self, conn: Connection) -> None:
        """Send what is left of the answer, then keep or close the connection."""
        try:
            conn.sock.flush()
        except OSError:
            self._close(conn)
            return
        if conn.sock.outgoing:
            self._flush_later(conn)
        elif conn.answer is not None:
            self._submit(conn, self.slow_pool, self.send_turn)
        elif conn.keep_alive:
            self.keepalived_conns.add(conn)
            self.await_request(conn)
        else:
            self.start_lingering_close(conn)

    def _flush_later(self, conn: Connection) -> None:
        self.response_bytes += len(conn.sock.outgoing)
        self.flushing.add(conn)
        self.poller.register(conn.sock, EVENT_WRITE, partial(self._on_writable, conn))
        while self.response_bytes > RESPONSE_BUDGET_BYTES and len(self.flushing) > 1:
            _, slowest = self.flushing.oldest()
            assert slowest is not None
            self.rejections["answer_unread"] += 1
            self._close(slowest)

    def _on_writable(self, conn: Connection, _: Any) -> None:
        if conn.sock.fileno() < 0:
            return
        before = len(conn.sock.outgoing)
        try:
            conn.sock.flush()
        except OSError:
            self._close(conn)
            return
        self.response_bytes -= before - len(conn.sock.outgoing)
        if not conn.sock.outgoing:
            self.flushing.discard(conn)
            self.poller.unregister(conn.sock)
            self._finish_sending(conn)

    # Closing

    def _reject(self, conn: Connection, response: bytes, reason: str) -> None:
        """Answer from the event loop and close. Does nothing more for the client than that."""
        self.rejections[reason] += 1
        with contextlib.suppress(KeyError):  # it waited for a thread
            self.poller.unregister(conn.sock)
        self._release_request(conn)
        conn.keep_alive = False
        conn.sock.outgoing += response
        self._finish_sending(conn)

    def start_lingering_close(self, conn: Connection) -> None:
        """Half-close the connection, then discard what the client still sends until it hangs up."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        self.lingering.add(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_lingering_readable, conn))

    def _on_lingering_readable(self, conn: Connection, _: Any) -> None:
        if conn.sock.fileno() < 0:
            return
        try:
            has_ended = not conn.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            has_ended = True
        if has_ended:
            self.end_lingering_close(conn)

    def end_lingering_close(self, conn: Connection) -> None:
        """Close a connection whose client has hung up, or did not do so in time."""
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        """Close a connection that no thread uses."""
        if conn.queue is self.flushing:
            self.response_bytes -= len(conn.sock.outgoing)
        if conn.queue is not None:
            conn.queue.discard(conn)
        with contextlib.suppress(KeyError, ValueError):
            self.poller.unregister(conn.sock)
        self._release_request(conn)
        self.nr_conns -= 1
        conn.sock.close()
        if conn.answer is not None:
            with contextlib.suppress(Exception):  # the application's: the event loop goes on
                conn.answer.close()
            conn.answer = None

    # Deadlines

    def _expire(self, now: float) -> None:
        """End the waits that took too long."""
        for queue in (self.receiving, self.buffering):
            for conn in queue.expired(now):
                self._reject(conn, REQUEST_TIMEOUT, "not_received_in_time")
        for conn in self.queued.expired(now):
            if conn.future is None or not conn.future.cancel():
                continue
            if conn.answer is None:
                self._reject(conn, UNAVAILABLE, "no_thread_in_time")
            else:  # a part of it was sent
                self.rejections["no_thread_in_time"] += 1
                self._close(conn)
        for conn in self.flushing.expired(now):
            self.rejections["answer_unread"] += 1
            self.response_bytes -= len(conn.sock.outgoing)
            self._close(conn)
        for queue in (self.fresh, self.keepalived_conns):
            for conn in queue.expired(now):
                self._close(conn)
        for conn in self.lingering.expired(now):
            self.end_lingering_close(conn)
        if self.rejections and now >= self.next_report:
            self.next_report = now + REPORT_SECONDS
            self.log.warning("connections rejected", extra=dict(self.rejections))
            self.rejections.clear()
