"""HTTP sessions whose answers are complete, or aborted, within a bounded time, and the one rule for proxies.

A read time-out bounds one silence only: a server that sends a byte now and then never meets it.

Every request uses the proxies of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), but a request to this
machine itself never does.
"""

import contextlib
import ipaddress
import socket
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from scale.alarms import Alarms

WATCHDOGS = Alarms("watchdogs of requests")


class Session(requests.Session):
    """A session that sees no redirects: requests reads their bodies whole, also when it does not follow them."""

    def __init__(self) -> None:
        super().__init__()
        self._environment: dict[tuple[Any, ...], dict[str, Any]] = {}
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter())

    def merge_environment_settings(  # type: ignore[no-untyped-def]
        self, url, proxies, stream, verify, cert
    ) -> Any:
        """Add the settings of the environment at the first request to a host: the CA bundle, and `proxies_for` the URL."""
        key = (*urlsplit(url)[:2], stream, verify, cert)
        if key not in self._environment:  # reading it costs as much as the rest of a request
            settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
            self._environment[key] = {**settings, "proxies": proxies_for(url)}
        return {**self._environment[key]}

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: redirects are followed by the caller, who checks each address."""
        return None


class _Adapter(HTTPAdapter):
    """An adapter whose connections through a proxy are of the same classes as its direct ones."""

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """Return the manager of the connections through `proxy`."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager


def proxies_for(url: str) -> dict[str, str]:
    """Return the proxies of the environment for a request to `url`, by scheme; none for a loopback address."""
    host = urlsplit(url).hostname or ""
    return {} if is_loopback(host) else dict(get_environ_proxies(url))


def uses_proxy(url: str) -> bool:
    """Return whether a request to `url` goes through a proxy."""
    return select_proxy(url, proxies_for(url)) is not None


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


class _WatchedConnection:
    """Mix-in for a connection that is shut down `seconds` after it began to wait for an answer."""

    seconds: float
    sock: Any

    def getresponse(self) -> Any:
        watchdog = WATCHDOGS.call_later(self.seconds, partial(_shut_down, self.sock))
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

    Works with the adapters that the session has now, whichever code made them. After reading an answer, call
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
