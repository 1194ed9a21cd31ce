"""Downloads one file that a result or a task points to, from named hosts only, in bounded memory, size and time.

A callback's response may hold addresses; the artifact jobs fetch them through here, as do pictures and crops.
"""

import hashlib
import time
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin

import requests
from AntiSSRF import AntiSSRFError, AntiSSRFPolicy, PolicyConfigOptions  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Url, parse_url

from scale.client import Session, abort_after, cancel_abort

MAX_REDIRECTS = 5
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
CHUNK_BYTES = 256 * 1024
DEFAULT_PORTS = {"http": 80, "https": 443}


class DownloadError(Exception):
    """The file was not fetched. The text names the host and why, never the address: its query may be a secret."""


class DownloadRefused(DownloadError):
    """Trying again by itself would change nothing: not a named host, a private address, too large."""


class Unavailable(DownloadError):
    """It may be there later: any status but 200, a time-out, a reset, a file cut short."""


class Unreachable(Unavailable):
    """The host does not answer, or too slowly: its other files need not be asked for now."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was written to the sink: `size` in bytes, `media_type` as the server named it, without parameters."""

    sha256: str
    size: int
    media_type: str | None


class Sink(Protocol):
    def write(self, piece: bytes, /) -> object: ...


def fetch(url: str, *, hosts: Collection[str], max_bytes: int, max_seconds: float, sink: Sink) -> Fetched:
    """Write the file at `url` to `sink`, decoded, piece by piece; on an error the sink may hold a part of it.

    `hosts` names each host (https on port 443, at a public address) or host:port (also http, also a private address).
    Redirects lead to such hosts only. `max_bytes` bounds what is received and what it unpacks to.
    Raises Refused or Unavailable; what `sink.write` raises goes through.
    """
    deadline = time.monotonic() + max_seconds
    digest = hashlib.sha256()
    size = 0
    with _open(url, hosts, deadline) as response:
        host = _host_port(parse_url(response.url))
        try:
            media_type = (
                response.headers.get("Content-Type", "").partition(";")[0].strip().lower()[:200] or None
            )
            for piece in _decoded_chunks(response, host, max_bytes, deadline):
                size += len(piece)
                if size > max_bytes:
                    raise DownloadRefused(f"the file at {host} is larger than {max_bytes:,} bytes")
                digest.update(piece)
                sink.write(piece)
        finally:
            cancel_abort(response)
    return Fetched(digest.hexdigest(), size, media_type)


def _open(url: str, hosts: Collection[str], deadline: float) -> requests.Response:
    """The answer with status 200, its body not yet read, after as many redirects as are allowed."""
    for _ in range(MAX_REDIRECTS + 1):
        target, private_allowed = check_allowed(url, hosts)
        host = _host_port(target)
        response = request(target, private_allowed, deadline)
        location = response.headers.get("Location")
        if response.status_code == 200:
            return response
        cancel_abort(response)
        response.close()
        if response.status_code not in (301, 302, 303, 307, 308) or not location:
            raise Unavailable(f"{host} answered {response.status_code}")
        url = urljoin(target.url, location)
    raise DownloadRefused(f"more than {MAX_REDIRECTS} redirects, the last one from {host}")


def check_allowed(url: str, hosts: Collection[str]) -> tuple[Url, bool]:
    """The address as it will be asked, and whether it may be a private one. Raises Refused unless `hosts` names it."""
    target = _parse(url)
    return target, _private_allowed(target, hosts)


def _parse(url: str) -> Url:
    """The address as urllib3 will use it: parsers differ on odd addresses, so the one that connects decides."""
    try:
        target = parse_url(url)
    except (LocationParseError, ValueError) as error:
        raise DownloadRefused("the address can't be read") from error
    if target.scheme not in DEFAULT_PORTS:
        raise DownloadRefused(f"{str(target.scheme)[:20]} addresses are not fetched, only https")
    if not target.host or target.auth is not None:
        raise DownloadRefused("the address names no host, or a password")
    return target._replace(fragment=None)


def _private_allowed(target: Url, hosts: Collection[str]) -> bool:
    """Whether the host may have a private address and plain http: named with its port. Refused if not named at all."""
    named = {host.lower() for host in hosts}
    if _host_port(target) in named:
        return True
    if target.host not in named:
        raise DownloadRefused(f"{_host_port(target)} is not among the hosts that files may be fetched from")
    if target.scheme != "https" or target.port not in (None, 443):
        raise DownloadRefused(
            f"{target.scheme} on {_host_port(target)} needs the host to be named with its port"
        )
    return False


def _host_port(target: Url) -> str:
    """host:port, the port always said."""
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
    """One request to an address that was resolved once, checked and pinned; its answer's body is not yet read.

    `deadline` is one of time.monotonic(). Raises Refused or Unavailable.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise Unreachable(f"{_host_port(target)} did not answer in time")
    with Session() as session:
        session.auth = _unchanged  # a .netrc on this machine is not for these hosts
        if not private_allowed:
            policy = AntiSSRFPolicy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST)
            policy.add_xff_header = False
            session.mount("https://", policy.get_antissrf_session().get_adapter("https://"))
        abort_after(session, left)
        try:
            return session.request(
                method,
                target.url,
                data=body,
                headers={**headers, "Accept-Encoding": "identity", "User-Agent": "weighbridge"},
                timeout=(min(CONNECT_SECONDS, left), min(SILENCE_SECONDS, left)),
                stream=True,
                allow_redirects=False,
            )
        except AntiSSRFError as error:
            raise DownloadRefused(f"{target.host} has a private or reserved address") from error
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise Unreachable(
                _why(error, _host_port(target), deadline)
            ) from None  # their texts hold the whole address


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _decoded_chunks(
    response: requests.Response, host: str, max_bytes: int, deadline: float
) -> Iterator[bytes]:
    """The body, decoded. Its own bytes are counted here, so that neither form of it passes the bound."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise DownloadRefused(f"the file at {host} is larger than {max_bytes:,} bytes")
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise DownloadRefused(f"{host} sent the file in an encoding that is not read here: {encoding[:40]}")
    received = _received_chunks(response, host, max_bytes, deadline)
    if encoding in ("", "identity"):
        yield from received
    else:
        yield from _decompressed(received, host)


def _received_chunks(
    response: requests.Response, host: str, max_bytes: int, deadline: float
) -> Iterator[bytes]:
    size = 0
    pieces = response.raw.stream(CHUNK_BYTES, decode_content=False)
    while True:
        try:
            piece = next(pieces, None)
        except (HTTPError, OSError, ValueError) as error:
            raise Unreachable(_why(error, host, deadline)) from None
        if time.monotonic() > deadline:  # a body without a length ends the same way when it is cut
            raise Unreachable(f"{host} did not send the file in time")
        if piece is None:
            return
        size += len(piece)
        if size > max_bytes:
            raise DownloadRefused(f"the file at {host} is larger than {max_bytes:,} bytes")
        yield piece


def _decompressed(received: Iterator[bytes], host: str) -> Iterator[bytes]:
    """gzip or zlib, never more than one piece at a time, however small a part of the body it comes from."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        for piece in received:
            while piece:
                if inflate.eof:  # gzip files may follow each other
                    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
                yield inflate.decompress(piece, CHUNK_BYTES)
                piece = inflate.unconsumed_tail or inflate.unused_data
        yield inflate.flush()
    except zlib.error as error:
        raise Unavailable(f"the file from {host} can't be unpacked: {error}") from error
    if not inflate.eof:
        raise Unavailable(f"the file from {host} ends before its packed form does")


def _why(error: Exception, host: str, deadline: float) -> str:
    if isinstance(error, (requests.Timeout, TimeoutError)) or time.monotonic() > deadline:
        return f"{host} did not answer in time"
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return f"the connection to {host} failed ({type(cause).__name__})"
