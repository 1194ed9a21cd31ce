"""A callback receiver on a loopback port: stores each callback and answers with configured statuses."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Arrived:
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    pieces: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class CallbackReceiver:
    """Answer with `statuses` one after another, then with 200."""

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.statuses: list[int] = []
        self.before_answer: Callable[[Arrived], None] = lambda arrived: None
        receiver = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body, pieces = _body(self)
                arrived = Arrived(
                    self.path, {name.lower(): value for name, value in self.headers.items()}, body, pieces
                )
                receiver.arrived.append(arrived)
                receiver.before_answer(arrived)
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/callback"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, count: int, seconds: float = 30.0) -> list[Arrived]:
        """Return the callbacks once there are that many."""
        end = time.monotonic() + seconds
        while len(self.arrived) < count:
            assert time.monotonic() < end, f"{len(self.arrived)} of {count} callbacks came within {seconds} s"
            time.sleep(0.01)
        return list(self.arrived)

    def about(self, task_id: str) -> list[Arrived]:
        return [arrived for arrived in self.arrived if arrived.json.get("task_id") == task_id]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """A reset in the middle of a request is one of the things that are tested."""


def _body(request: BaseHTTPRequestHandler) -> tuple[bytes, int]:
    """The body, and in how many pieces it came."""
    body, pieces = b"", 0
    if request.headers.get("Transfer-Encoding") != "chunked":
        length = int(request.headers.get("Content-Length", 0))
        while len(body) < length and (piece := request.rfile.read1(length - len(body))):
            body, pieces = body + piece, pieces + 1
        return body, pieces
    while size := int(request.rfile.readline(), 16):
        body, pieces = body + request.rfile.read(size), pieces + 1
        request.rfile.readline()
    request.rfile.readline()
    return body, pieces
