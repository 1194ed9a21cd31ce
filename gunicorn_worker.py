"""The web worker: a request waits here, without a thread, until it has arrived. The door that a callback comes in by.

gunicorn's gthread gives each accepted connection a thread and reads from it with no time limit, and it waits up to 2 s in
its event loop for a client to hang up. So 500 connections that send nothing, or a byte now and then, hold every thread,
and honest clients get no answer at all. Here the event loop itself collects what arrives; a thread sees whole requests.
"""

import errno
import re
import socket
import struct
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

WAIT_SECONDS = 20
"""How long a request may take to arrive, or its first ROOM_BYTES. Then 408."""

BODY_SECONDS = 30
"""How long a body larger than ROOM_BYTES may take after that, in one of the few threads for such bodies."""

ROOM_BYTES = 64 * 1024
"""How much of a request is held before it gets a thread. With every connection at its limit: 64 KiB × worker_connections."""

LINGER_SECONDS = 2
"""How long an answered client may take to hang up before it is cut off. Closing at once could cut off the answer."""

SEND_SECONDS = 20
"""How long a client may leave a part of an answer unread."""

FIRST = (b"POST /callbacks/", b"GET /livez", b"GET /readyz")
"""What never waits for a slow client: its answers are small."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[^\r]*\r\n(?:[^\r]+\r\n)*\r\n", re.IGNORECASE)
_LAST_CHUNK = re.compile(rb"\r\n0[^\r\n]*\r\n")
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def is_whole(arrived: bytearray) -> bool:
    """Whether one HTTP request is there. Only a guess: gunicorn parses it, and reads on if something is missing."""
    head_end = arrived.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    head = arrived[: head_end + 2]
    if _CHUNKED.search(head):
        return _LAST_CHUNK.search(arrived, head_end + 2) is not None
    length = _LENGTH.search(head)
    return not length or len(arrived) - head_end - 4 >= int(length[1])


class Connection(TConn):
    """One client, with what it has sent of its next request."""

    def __init__(self, room: "BufferingThreadWorker", client: socket.socket, address: Any, server: Any):
        super().__init__(room.cfg, client, address, server)
        self.room = room
        self.arrived = bytearray()
        self.whole = False
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))

    def close(self, graceful: bool = False) -> None:
        if graceful:
            self.room.see_off(self.sock)
        else:
            super().close()


class Unreader(SocketUnreader):
    """Reads what is still to come of a request, until BODY_SECONDS have passed: then TimeoutError, an OSError."""

    deadline = 0.0

    def chunk(self, size_hint: int | None = None) -> bytes:
        limit = self.sock.gettimeout()
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request did not arrive in time")
        self.sock.settimeout(left if limit is None else min(left, limit))
        try:
            return super().chunk(size_hint)
        finally:
            self.sock.settimeout(limit)


class BufferingThreadWorker(ThreadWorker):
    """gthread, with connections that wait in the event loop and leave through it."""

    def init_process(self) -> None:
        # A quarter of the threads takes what a client can hold up: requests that still arrive, and answers that may be
        # too large for the socket's buffer. The others are for whole callbacks alone.
        self.other_pool = ThreadPoolExecutor(max(1, self.cfg.threads // 4))
        self.leaving: deque[tuple[float, socket.socket]] = deque()
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max(1, self.cfg.threads - self.cfg.threads // 4))

    # Coming in

    def accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.nr_conns += 1
        self.let_wait(Connection(self, client, address, listener.getsockname()))

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        """A kept-alive client begins its next request."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self.let_wait(conn)

    def let_wait(self, conn: Connection) -> None:
        conn.timeout = time.monotonic() + (WAIT_SECONDS if self.alive else LINGER_SECONDS)
        if self.look(conn):
            self.admit(conn)
        else:
            self.pending_conns.append(conn)
            self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def on_pending_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        if self.look(conn):
            self.poller.unregister(client)
            self.pending_conns.remove(conn)
            self.admit(conn)

    def look(self, conn: Connection) -> bool:
        """Take what has come. True when the wait is over: enough is there, or nothing more will come."""
        try:
            came = conn.sock.recv(ROOM_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            came = b""
        conn.arrived += came
        return (
            not came
            or len(conn.arrived) >= ROOM_BYTES
            or is_whole(conn.arrived)
            # Whoever expects 100 Continue sends no body before a thread has looked at the head.
            or _EXPECT.search(conn.arrived) is not None
        )

    def admit(self, conn: Connection) -> None:
        """Give the request a thread."""
        if not conn.arrived:
            self.nr_conns -= 1
            conn.close()
            return
        conn.whole = is_whole(conn.arrived)
        first = conn.whole and conn.arrived.startswith(FIRST)
        answer = (self.tpool if first else self.other_pool).submit(self.handle, conn)
        answer.add_done_callback(partial(self.answered, conn))

    def answered(self, conn: Connection, answer: Future[bool]) -> None:
        self.method_queue.defer(self.finish_request, conn, answer)

    def handle(self, conn: Connection) -> bool:
        """Answer one request, in a thread. True keeps the connection."""
        conn.sock.setblocking(True)
        if not conn.initialized:
            conn.init()
            conn.parser.unreader = Unreader(conn.sock)
        conn.parser.unreader.deadline = time.monotonic() + BODY_SECONDS
        conn.parser.unreader.unread(bytes(conn.arrived))
        conn.arrived.clear()
        # What was sent before this answer was read (pipelining) is dropped with the connection: no client needs that.
        return super().handle(conn) and not conn.parser.unreader.take_buffered()

    def handle_request(self, req: Any, conn: Connection) -> Any:
        if not conn.whole:
            # The answer (a 401, a 413) may come before the rest of the body: no other request follows on this connection.
            req.force_close()
        try:
            return super().handle_request(req, conn)
        except BlockingIOError:
            raise ConnectionResetError(errno.ECONNRESET, "the client left the answer unread") from None

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        # gunicorn would wait 5 s for the rest of a body that nobody read.
        return keepalive and bool(conn.parser.finish_body(deadline=time.monotonic() + 0.05))

    # Going out

    def see_off(self, client: socket.socket) -> None:
        """Say that nothing more comes, then drop what the client still sends until it hangs up."""
        try:
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
        except OSError:
            client.close()
            return
        self.nr_conns += 1  # it is a connection until then
        self.leaving.append((time.monotonic() + LINGER_SECONDS, client))
        self.poller.register(client, EVENT_READ, self.on_leaving_socket_readable)

    def on_leaving_socket_readable(self, client: socket.socket) -> None:
        try:
            gone = not client.recv(ROOM_BYTES)
        except OSError:
            gone = True
        if gone:
            self.let_go(client)

    def let_go(self, client: socket.socket) -> None:
        self.poller.unregister(client)
        self.nr_conns -= 1
        client.close()

    def murder_pending(self) -> None:
        """Once a second or more often: end the waits that took too long."""
        now = time.monotonic()
        while self.pending_conns and self.pending_conns[0].timeout <= now:
            conn = self.pending_conns.popleft()
            self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            try:
                if conn.arrived:
                    conn.sock.send(_TIMED_OUT)
            except OSError:
                pass
            conn.close()
        while self.leaving and self.leaving[0][0] <= now:
            client = self.leaving.popleft()[1]
            if client.fileno() >= 0:
                self.let_go(client)

    def _cap_keepalive(self, deadline: float) -> None:
        # A stopping worker does not wait for the slow.
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)
