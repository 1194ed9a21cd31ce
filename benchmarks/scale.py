"""Stand-in for Scale that answers each creation after `delay` seconds and records its time."""

import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Scale:
    """`created` holds (seconds of the monotonic clock, the attachment) of each creation."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.created: list[tuple[float, str]] = []
        scale, numbers = self, itertools.count(1)

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet: two would meet the kernel's delayed acknowledgement

            def do_POST(self) -> None:
                body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                scale.created.append((time.monotonic(), body["attachment"]))
                time.sleep(scale.delay)
                task = {
                    "task_id": f"{next(numbers):024x}"[::-1],
                    "type": self.path.rpartition("/")[2],
                    "status": "pending",
                    "created_at": "2026-03-02T12:00:00.000Z",
                    "callback_url": body["callback_url"],
                    "unique_id": body.get("unique_id"),
                    "params": {"attachment": body["attachment"]},
                }
                content = json.dumps(task).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()
