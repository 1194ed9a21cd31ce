"""The sandbox as a process of its own: one port, many threads, gone soon after SIGTERM or SIGINT."""

import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from sandbox.settings import SandboxSettings
from sandbox.web.app import create_sandbox


class _Requests(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are written apart; without this the second waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    timeout = 60

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Also when a fault dropped it: without an answer nothing else would end the connection."""
        self.close_connection = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """No line a call: what counts is on the page and in the log of what failed."""


class _Server(ThreadedWSGIServer):
    daemon_threads = True
    request_queue_size = 512

    def shutdown_request(self, request: Any) -> None:
        # The polite end that is sent here by default would hide the reset that a fault asked for.
        lingers = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[:4] != b"\0\0\0\0"
        self.close_request(request) if lingers else super().shutdown_request(request)


class PortTaken(Exception):
    """Something else listens there already."""


def serve(
    settings: SandboxSettings,
    host: str,
    port: int,
    public_address: str | None = None,
    until_stdin_closes: bool = False,
) -> None:
    """Serve until told to stop. Port 0 takes a free one; the first line on stdout says which.

    `public_address` is where others reach the sandbox if that is not where it listens.
    """
    try:
        listener = socket.create_server((host, port), backlog=512, family=_family(host))
    except OSError as error:
        raise PortTaken(f"Port {port} on {host} can't be had: {error.strerror}.") from error
    with listener:
        port = listener.getsockname()[1]
        shown_host = f"[{host}]" if ":" in host else host
        address = (
            public_address or f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else shown_host}:{port}"
        )
        # A handler that raised would do so anywhere. A signal leaves a byte instead, which the end of this function awaits.
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        app = create_sandbox(replace(settings, address=address))
        server = _Server(host, port, app, _Requests, fd=listener.fileno())
        office = app.extensions["sandbox_office"]
        office.open()
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        if until_stdin_closes:
            threading.Thread(target=_tell_when_stdin_closes, args=(tell,), daemon=True).start()
        print(f"Sandbox at {address} (API: {address}/v1, page: {address}/)", flush=True)
        os.read(told, 1)
        server.shutdown()
        server.server_close()
        office.close()
        app.extensions["sandbox"].store.close()


def _tell_when_stdin_closes(tell: int) -> None:
    sys.stdin.read()
    os.write(tell, b".")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
