"""HTTP sessions whose answers are complete, or aborted, within a bounded time.

A read time-out bounds one silence only: a server that sends a byte now and then never meets it.
"""

import contextlib
import socket
import threading
from typing import Any

import requests
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Session(requests.Session):
    """A session that sees no redirects: requests reads their bodies whole, also when it does not follow them."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _WatchedConnection:
    """Mix-in for a connection that is shut down `seconds` after it began to wait for an answer."""

    seconds: float
    sock: Any

    def getresponse(self) -> Any:
        watchdog = threading.Timer(self.seconds, _shut_down, (self.sock,))
        watchdog.daemon = True
        watchdog.start()
        try:
            response = super().getresponse()  # type: ignore[misc]
        except BaseException:
            watchdog.cancel()
            raise
        response.watchdog = watchdog
        return response


def _shut_down(sock: Any) -> None:
    with contextlib.suppress(OSError, TypeError):
        # Not SSLSocket.shutdown, which would take the TLS layer away from the thread that is reading through it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def abort_after(session: requests.Session, seconds: float) -> None:
    """Bound every answer of this session: its head and body are complete after `seconds`, or the connection is shut down.

    Works with the adapters that the session has now, whoever made them. After reading an answer, call
    `cancel_abort(response)`.
    """
    # urllib3 passes only options it knows to a connection, so the bound is an attribute of classes made for this session.
    plain = type("WatchedHTTPConnection", (_WatchedConnection, HTTPConnection), {"seconds": seconds})
    tls = type("WatchedHTTPSConnection", (_WatchedConnection, HTTPSConnection), {"seconds": seconds})
    pools = {
        "http": type("WatchedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("WatchedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
    }
    for adapter in session.adapters.values():
        adapter.poolmanager.pool_classes_by_scheme = pools  # type: ignore[attr-defined]


def cancel_abort(response: requests.Response) -> None:
    """Stop the watchdog of an answer that was read or given up."""
    watchdog = getattr(response.raw, "watchdog", None)
    if watchdog is not None:
        watchdog.cancel()
