"""Serve the sandbox as a process: one port, a thread for each connection, stopped by SIGTERM or SIGINT."""

import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from sandbox.settings import SandboxSettings
from sandbox.web.app import create_app

BACKLOG = 512
IDLE_TIMEOUT_SECONDS = 60


class PortUnavailable(Exception):
    """Raised when the port is in use, or not permitted to this user."""


class _RequestHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are written separately; otherwise the body waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    timeout = IDLE_TIMEOUT_SECONDS

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Close the connection, also when a fault dropped it: without an answer nothing else would."""
        self.close_connection = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the page shows the calls that matter."""


class _Server(ThreadedWSGIServer):
    daemon_threads = True
    request_queue_size = BACKLOG

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; the default's orderly shutdown would hide the reset that a fault asked for."""
        lingers = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[:4] != b"\0\0\0\0"
        self.close_request(request) if lingers else super().shutdown_request(request)


class _StopSignal:
    """Wait for SIGTERM, SIGINT or a call of `send()`.

    A signal handler that raised could interrupt any line, so each signal writes a byte into a pipe instead.
    """

    def __init__(self) -> None:
        """Install the signal handlers."""
        self._wakeup_r, self._wakeup_w = os.pipe()
        os.set_blocking(self._wakeup_w, False)
        signal.set_wakeup_fd(self._wakeup_w)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def send(self) -> None:
        """End `wait()`."""
        os.write(self._wakeup_w, b".")

    def wait(self) -> None:
        """Return after the first signal."""
        os.read(self._wakeup_r, 1)

    def send_when_stdin_closes(self) -> None:
        """End `wait()` when the parent process closes stdin or ends."""
        threading.Thread(target=self._watch_stdin, daemon=True).start()

    def _watch_stdin(self) -> None:
        sys.stdin.read()
        self.send()


def serve(
    settings: SandboxSettings,
    host: str,
    port: int,
    public_url: str | None = None,
    until_stdin_closes: bool = False,
) -> None:
    """Serve until stopped. Port 0 selects a free port; the first line on stdout names it.

    `public_url` is the URL under which other machines reach the sandbox, if it is not the one it listens on.
    Raises PortUnavailable and UnusableDatabase.
    """
    with _listen(host, port) as listener:
        url = public_url or _url_of(host, listener.getsockname()[1])
        stop = _StopSignal()
        app = create_app(replace(settings, url=url))
        server = _Server(host, listener.getsockname()[1], app, _RequestHandler, fd=listener.fileno())
        scheduler = app.extensions["scheduler"]
        scheduler.start()
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        if until_stdin_closes:
            stop.send_when_stdin_closes()
        print(f"Sandbox at {url} (API: {url}/v1, page: {url}/)", flush=True)
        stop.wait()
        server.shutdown()
        server.server_close()
        is_idle = scheduler.stop()
        app.extensions["sandbox"].store.close()
    if not is_idle:
        os._exit(0)  # the interpreter would wait for the threads of interrupted jobs


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), backlog=BACKLOG, family=family)
    except OSError as error:
        raise PortUnavailable(f"Cannot listen on port {port} of {host}: {error.strerror}.") from error


def _url_of(host: str, port: int) -> str:
    """Return the URL that this machine reaches a listener by."""
    if host in ("0.0.0.0", "::"):
        return f"http://127.0.0.1:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
