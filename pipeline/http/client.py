"""One guarded request to a named host: the address is parsed and resolved once, checked, and pinned for the connection.

Result files, attachments of requests and outbound webhooks all go out through here. Through a proxy the connection cannot
be pinned, because the proxy resolves the name: what this machine can resolve is checked, and only https goes to a host that
is named without its port, so that a host at a private address would have to prove its name by a certificate.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import unquote

import requests
from AntiSSRF import AntiSSRFError, AntiSSRFPolicy, PolicyConfigOptions  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Url, parse_url

from scale.http import Session, abort_after, uses_proxy

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
DEFAULT_PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class DownloadError(Exception):
    """Raised when a request gets no answer or no file. The text names the host, never the URL: its query may be a secret."""


class DownloadRefused(DownloadError):
    """Raised when a retry would change nothing: the host is not named, its address is private, the file is too large."""


class Unavailable(DownloadError):
    """Raised when a retry may succeed: any status but 200, a time-out, a reset, a truncated file."""


class Unreachable(Unavailable):
    """Raised when the host does not answer, or too slowly, so that its other files can wait as well."""


class AllowedHost(NamedTuple):
    """One entry of a setting such as ARTIFACT_HOSTS: `host[:port][/prefix]`."""

    host: str
    """With the port, where the entry names one."""
    prefix: tuple[str, ...] = ()
    """The first segments of the path of every URL that is allowed."""

    @classmethod
    def parse(cls, entry: str) -> AllowedHost:
        """Parse `host`, `host:port` or either with a path prefix, as the settings name it."""
        host, _, prefix = entry.partition("/")
        return cls(host.lower(), tuple(filter(None, prefix.split("/"))))


def check_allowed(url: str, hosts: Collection[str]) -> tuple[Url, bool]:
    """Return the parsed URL and whether its host may have a private address.

    `hosts` names each host (https on port 443, at a public address) or host:port (also http, also a private address),
    optionally with a prefix of the path (`s3.us-west-1.amazonaws.com/bucket`). Raises DownloadRefused for any other URL.
    """
    target = _parse(url)
    return target, _may_be_private(target, hosts)


def _parse(url: str) -> Url:
    """Parse with urllib3, because the parser that connects must be the one that is checked."""
    try:
        target = parse_url(url)
    except (LocationParseError, ValueError) as error:
        raise DownloadRefused("the URL cannot be parsed") from error
    if target.scheme not in DEFAULT_PORTS:
        raise DownloadRefused(f"{str(target.scheme)[:20]} URLs are not fetched, only https")
    if not target.host or target.auth is not None:
        raise DownloadRefused("the URL has no host, or contains a password")
    return target._replace(fragment=None)


def _may_be_private(target: Url, hosts: Collection[str]) -> bool:
    """Return whether the host may have a private address and use plain http, because it is named with its port."""
    allowed = [AllowedHost.parse(entry) for entry in hosts]
    path = _segments(target.path or "")
    named = {entry.host for entry in allowed if not entry.prefix or _is_below(path, entry.prefix)}
    if host_port(target) in named:
        return True
    if target.host not in named:
        known = {entry.host for entry in allowed}
        if target.host in known or host_port(target) in known:
            raise DownloadRefused(
                f"the path at {host_port(target)} is not among those that are allowed there"
            )
        raise DownloadRefused(f"{host_port(target)} is not among the hosts that files may be fetched from")
    if target.scheme != "https" or target.port not in (None, 443):
        raise DownloadRefused(
            f"{target.scheme} on {host_port(target)} needs the host to be named with its port"
        )
    return False


def _segments(path: str) -> tuple[str, ...] | None:
    """Return the decoded segments of a path; None if a server could read it as another path."""
    decoded = unquote(path)
    while "%" in decoded and (again := unquote(decoded)) != decoded:
        decoded = again
    segments = tuple(decoded.replace("\\", "/").split("/")[1:])
    return None if {".", ".."} & set(segments) else segments


def _is_below(path: tuple[str, ...] | None, prefix: tuple[str, ...]) -> bool:
    return path is not None and len(path) > len(prefix) and path[: len(prefix)] == prefix


def host_port(target: Url) -> str:
    """Return `host:port`, with the scheme's own port where the URL has none."""
    return f"{target.host}:{target.port or DEFAULT_PORTS[str(target.scheme)]}"


def request(
    target: Url,
    private_allowed: bool,
    deadline: float,
    method: str = "GET",
    *,
    headers: Mapping[str, str] = {},
    body: bytes | None = None,
) -> requests.Response:
    """Send one request and return the response, its body unread. Redirects are not followed.

    `deadline` is a time of time.monotonic(). Raises DownloadRefused or Unreachable.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise Unreachable(f"{host_port(target)} did not answer in time")
    with Session() as session:
        session.auth = _unchanged  # a .netrc on this machine is not for these hosts
        if not private_allowed and uses_proxy(target.url):
            check_public(str(target.host))
        elif not private_allowed:
            policy = AntiSSRFPolicy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST)
            policy.add_xff_header = False
            session.mount("https://", policy.get_antissrf_session().get_adapter("https://"))
        abort_after(session, left)
        try:
            response = session.request(
                method,
                target.url,
                data=body,
                headers={**headers, "Accept-Encoding": "identity", "User-Agent": "weighbridge"},
                timeout=(min(CONNECT_TIMEOUT_SECONDS, left), min(READ_TIMEOUT_SECONDS, left)),
                stream=True,
                allow_redirects=False,
            )
        except AntiSSRFError as error:
            raise DownloadRefused(f"{target.host} has a private or reserved address") from error
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # The texts of these errors contain the whole URL.
            raise Unreachable(describe_failure(error, host_port(target), deadline)) from None
        if time.monotonic() >= deadline:  # a head that was cut off ends like a complete one
            response.close()
            raise Unreachable(f"{host_port(target)} did not answer in time")
        return response


def check_public(host: str) -> None:
    """Raise DownloadRefused if the host is, or resolves to, an address that is not public.

    A name that this machine cannot resolve is left to the proxy.
    """
    name = host.strip("[]")
    try:
        found = socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    if not all(is_public(str(address[0])) for *_, address in found):
        raise DownloadRefused(f"{host} has a private or reserved address")


def is_public(address: str) -> bool:
    """Return whether an IP address is a public one, also as an IPv4 address inside an IPv6 one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if parsed.teredo is not None:
            return False
        parsed = inner or parsed
    return parsed.is_global and not parsed.is_multicast


def _unchanged(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared


def describe_failure(error: Exception, host: str, deadline: float) -> str:
    """Return what failed, without the URL."""
    if isinstance(error, (requests.Timeout, TimeoutError)) or time.monotonic() > deadline:
        return f"{host} did not answer in time"
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return f"the connection to {host} failed ({type(cause).__name__})"
