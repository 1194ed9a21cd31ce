"""Clients without a key that try to stop the web process, for tests and benchmarks."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

from gunicorn_worker import MAX_HEAD_BYTES
from tests.service import KEYS

POST = b"POST /callbacks/scale HTTP/1.1\r\nHost: w\r\n"
KEY = b"scale-callback-auth: " + KEYS["SCALE_LIVE_CALLBACK_KEYS"].encode() + b"\r\n"
API = b"POST /api/v1/tasks HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n"
CLOSE = b"Connection: close\r\n"
LOGIN = b"POST /console/sign-in HTTP/1.1\r\nHost: w\r\nContent-Type: application/x-www-form-urlencoded\r\n"
EXPECT_LINES = (b"expect: 100-continue\r\na: b\r\n" * 2400)[:65_000]

# What each attacker sends at once, and what it adds twice a second. All are unknown to the service.
ATTACKS = {
    "expect lines without an end": (POST + EXPECT_LINES, b"a"),
    "expect lines just under the limit": (POST + EXPECT_LINES[: MAX_HEAD_BYTES - 2000], b"a"),
    "nine long headers without an end": (POST + (b"X: " + b"x" * 8096 + b"\r\n") * 9, b""),
    "three long headers without an end": (POST + (b"X: " + b"x" * 8096 + b"\r\n") * 3, b"x"),
    "a large body with a wrong key": (
        POST + b"scale-callback-auth: wrong\r\nContent-Length: 60000000\r\n\r\n" + b"x" * 70_000,
        b"x" * 1000,
    ),
    "a large body of the API without an end": (
        API + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000,
        b"x",
    ),
    "a large form without an end": (LOGIN + b"Content-Length: 1000000\r\n\r\n" + b"x=" * 50_000, b"x"),
    "a larger body of the API": (API + b"Content-Length: 90000000\r\n\r\n" + b"x" * 70_000, b"x" * 1000),
    "chunks of one byte": (
        API + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000,
        b"1\r\nx\r\n",
    ),
    "a form in chunks of one byte": (
        LOGIN + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n",
        b"",
    ),
    "a form of many fields": (LOGIN + CLOSE + b"Content-Length: 150000\r\n\r\n" + b"a=&" * 50_000, b""),
    "many cookies": (
        b"GET /console/ HTTP/1.1\r\nHost: w\r\n"
        + CLOSE
        + (b"Cookie: " + b"a;" * 4000 + b"\r\n") * 3
        + b"\r\n",
        b"",
    ),
    "requests for /readyz": (b"GET /readyz HTTP/1.1\r\nHost: w\r\n" + CLOSE + b"\r\n", b""),
    "requests for /metrics": (b"GET /metrics HTTP/1.1\r\nHost: w\r\n" + CLOSE + b"\r\n", b""),
    "an expectation without a body": (API + b"Expect: 100-continue\r\nContent-Length: 90000\r\n\r\n", b""),
    "an answer that is not read": (
        b"GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: w\r\n\r\n",
        b"",
    ),
}


def connect(port: int) -> socket.socket:
    """Connect a client that reads little at a time."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    return client


@contextlib.contextmanager
def attackers(port: int, count: int, first: bytes, then: bytes) -> Iterator[None]:
    """`count` clients that send `first`, add `then` twice a second, and come again when they are cut off."""
    stop, ready = threading.Event(), threading.Event()

    def attack() -> None:
        clients: dict[int, socket.socket] = {}
        while not stop.is_set():
            for number in range(count):
                try:
                    if number not in clients:
                        clients[number] = connect(port)
                        clients[number].setblocking(False)
                        clients[number].send(first)
                    elif _was_closed(clients[number]):
                        clients.pop(number).close()
                    else:
                        clients[number].send(then)
                except BlockingIOError:
                    pass
                except OSError:
                    clients.pop(number, socket.socket()).close()
            ready.set()
            stop.wait(0.5)
        for client in clients.values():
            client.close()

    thread = threading.Thread(target=attack, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _was_closed(client: socket.socket) -> bool:
    """Whether the server has hung up, also while its answer is unread."""
    hung_up = select.poll()
    hung_up.register(client, select.POLLRDHUP)
    return bool(hung_up.poll(0))
