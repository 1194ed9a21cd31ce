"""Download one file that a result or a task refers to, from named hosts only, in bounded memory, size and time."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from pipeline.http.client import (
    DownloadRefused,
    Unavailable,
    Unreachable,
    check_allowed,
    describe_failure,
    host_port,
    request,
)
from scale.http import cancel_abort

MAX_REDIRECTS = 5
MIN_BYTES_PER_SECOND = 1024
RATE_WINDOW_SECONDS = 30.0
"""A host that sends less than MIN_BYTES_PER_SECOND over so long is given up: it would keep a worker busy for nothing."""
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was written to the sink: `size` in bytes, `media_type` as the server named it, without parameters."""

    sha256: str
    size: int
    media_type: str | None


class Sink(Protocol):
    """Takes the file's bytes in order."""

    def write(self, chunk: bytes, /) -> object:
        """Take the next bytes."""


def fetch(url: str, *, hosts: Collection[str], max_bytes: int, max_seconds: float, sink: Sink) -> Fetched:
    """Write the file at `url` to `sink`, decoded, chunk by chunk; after an error the sink may hold a part of it.

    `hosts` is explained at `check_allowed`; redirects lead to such hosts only. `max_bytes` bounds the bytes received and
    the bytes they unpack to. Raises DownloadRefused or Unavailable, and whatever `sink.write` raises.
    """
    deadline = time.monotonic() + max_seconds
    digest = hashlib.sha256()
    size = 0
    with _open(url, hosts, deadline) as response:
        host = host_port(parse_url(response.url))
        try:
            media_type = (
                response.headers.get("Content-Type", "").partition(";")[0].strip().lower()[:200] or None
            )
            for chunk in _decoded_chunks(response, host, max_bytes, deadline):
                size += len(chunk)
                if size > max_bytes:
                    raise DownloadRefused(f"the file at {host} is larger than {max_bytes:,} bytes")
                digest.update(chunk)
                sink.write(chunk)
        finally:
            cancel_abort(response)
    return Fetched(digest.hexdigest(), size, media_type)


def _open(url: str, hosts: Collection[str], deadline: float) -> requests.Response:
    """Return the response with status 200, its body unread, after at most MAX_REDIRECTS redirects."""
    for _ in range(MAX_REDIRECTS + 1):
        target, private_allowed = check_allowed(url, hosts)
        host = host_port(target)
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


def _decoded_chunks(
    response: requests.Response, host: str, max_bytes: int, deadline: float
) -> Iterator[bytes]:
    """Yield the decoded body. The received bytes are counted as well, so that neither form exceeds the limit."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise DownloadRefused(f"the file at {host} is larger than {max_bytes:,} bytes")
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise DownloadRefused(f"{host} sent the file in an unsupported encoding: {encoding[:40]}")
    received = _received_chunks(response, host, max_bytes, deadline)
    if encoding in ("", "identity"):
        yield from received
    else:
        yield from _decompressed(received, host)


def _received_chunks(
    response: requests.Response, host: str, max_bytes: int, deadline: float
) -> Iterator[bytes]:
    size = in_window = 0
    window_ends = time.monotonic() + RATE_WINDOW_SECONDS
    while True:
        try:
            # Not stream(): it waits for a whole chunk, however slowly its bytes arrive.
            chunk = response.raw.read1(CHUNK_BYTES, decode_content=False)
        except (HTTPError, OSError, ValueError) as error:
            raise Unreachable(describe_failure(error, host, deadline)) from None
        moment = time.monotonic()
        if moment > deadline:  # a body without a length ends the same way when it is cut
            raise Unreachable(f"{host} did not send the file in time")
        if not chunk:
            return
        size += len(chunk)
        in_window += len(chunk)
        if moment > window_ends:
            if in_window < MIN_BYTES_PER_SECOND * RATE_WINDOW_SECONDS:
                raise Unreachable(f"{host} sends less than {MIN_BYTES_PER_SECOND:,} bytes a second")
            in_window, window_ends = 0, moment + RATE_WINDOW_SECONDS
        if size > max_bytes:
            raise DownloadRefused(f"the file at {host} is larger than {max_bytes:,} bytes")
        yield chunk


def _decompressed(received: Iterator[bytes], host: str) -> Iterator[bytes]:
    """Decompress gzip or zlib, at most CHUNK_BYTES at a time, however small the compressed part is."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        for chunk in received:
            while chunk:
                if inflate.eof:  # a gzip file may have several members
                    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
                yield inflate.decompress(chunk, CHUNK_BYTES)
                chunk = inflate.unconsumed_tail or inflate.unused_data
        yield inflate.flush()
    except zlib.error as error:
        raise Unavailable(f"the file from {host} cannot be decompressed: {error}") from error
    if not inflate.eof:
        raise Unavailable(f"the compressed file from {host} is truncated")
