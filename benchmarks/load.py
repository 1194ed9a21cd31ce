"""Load generator: connections in another process that post distinct callbacks one after another."""

import itertools
import math
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bodies import Body

KEY = "bench_callback_key"


@dataclass(frozen=True)
class Sent:
    """Result of a load: answers with 200, other answers, the seconds from the first request to the last answer, and those
    of the slowest hundredth at least.
    """

    accepted: int
    refused: int
    seconds: float
    p99: float


class Connection:
    """One keep-alive HTTP/1.1 connection that posts callbacks."""

    def __init__(self, port: int, timeout: float = 60) -> None:
        self.port, self.timeout = port, timeout
        self.sock: socket.socket | None = None

    def post(self, body: bytes) -> int:
        """Return the status of the answer. Reconnect to servers that close after each answer."""
        head = (
            f"POST /callbacks/scale HTTP/1.1\r\nHost: 127.0.0.1\r\nscale-callback-auth: {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        if self.sock is None:
            self.sock = socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(head + body)
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            if not (piece := self.sock.recv(65536)):
                raise ConnectionError("the server hung up")
            answer += piece
        headers = answer[:end].lower()
        length = int(headers.partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(answer) < end + 4 + length:
            answer += self.sock.recv(65536)
        if b"connection: close" in headers:
            self.sock.close()
            self.sock = None
        return int(answer[9:12])


def _send(
    port: int, body: Body, seconds: float, connections: int, first_id: int, report: Callable[[Sent], None]
) -> None:
    numbers = itertools.count(first_id)
    taken: list[float] = []
    refused: list[int] = []
    lock = threading.Lock()
    start = time.monotonic()

    def one_connection() -> None:
        connection, mine = Connection(port), []
        while time.monotonic() - start < seconds:
            begun = time.perf_counter()
            status = connection.post(body.with_id(next(numbers)))
            mine.append(time.perf_counter() - begun)
            if status != 200:
                refused.append(status)
        with lock:
            taken.extend(mine)

    threads = [threading.Thread(target=one_connection) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p99 = sorted(taken)[math.ceil(len(taken) * 0.99) - 1]
    report(Sent(len(taken) - len(refused), len(refused), time.monotonic() - start, p99))


def send(port: int, body: Body, *, seconds: float, first_id: int, connections: int = 16) -> Sent:
    """Post distinct callbacks for `seconds` over `connections`, from another process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(port, body, seconds, connections, first_id, sender.send))
    process.start()
    sender.close()
    sent: Sent = receiver.recv()
    process.join()
    return sent
