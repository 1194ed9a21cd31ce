"""The images of tasks: their sizes, read from the first bytes and stored once, and copies of them.

An image comes from the artifact store where we made it ourselves, else through the guarded client from ATTACHMENT_HOSTS.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from more_itertools import chunked
from PIL import Image
from sqlalchemy import Connection, select

from models import ImageSize
from pipeline.db.dialect import insert
from pipeline.db.ids import utcnow
from pipeline.follow_ups.signed_urls import parse_own_url
from pipeline.http.client import DownloadError, Unreachable
from pipeline.http.download import fetch
from pipeline.service import Service
from scale.images import open_image

HEAD_BYTES = 64 * 1024
"""The first look: the sizes of nearly all images are in it."""
MAX_HEAD_BYTES = 32 * 1024 * 1024
FETCH_SECONDS = 60.0
COPY_SECONDS = 600.0
ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
BATCH_SIZE = 500


class NoImage(Exception):
    """Raised when an image or its size cannot be read. args[0] is the reason, without the address."""


class HostDown(NoImage):
    """Raised when the image's host does not answer: its other images need not be tried now."""


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels of the image as shown. `orientation` is EXIF's, 1 to 8."""

    width: int
    height: int
    orientation: int
    media_type: str


class _Enough(Exception):
    """Raised within a download as soon as the size is known."""


class _Head:
    """A sink that stops the download when the size can be read from what came so far."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._next_look = HEAD_BYTES
        self.size: Size | None = None

    def write(self, piece: bytes, /) -> None:
        self._bytes += piece
        if len(self._bytes) >= self._next_look:
            self._next_look *= 2
            self.look()
            if self.size is not None or len(self._bytes) > MAX_HEAD_BYTES:
                raise _Enough

    def look(self, *, complete: bool = False) -> None:
        self.size = read_size(bytes(self._bytes), complete=complete)


def read_size(start: bytes, *, complete: bool) -> Size | None:
    """Return the size of the image that begins with these bytes; None where more of them are needed, or it is no image.

    complete: these are all bytes of the file.
    """
    if not complete and start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp_size(start)
    try:
        with open_image(io.BytesIO(start)) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
            width, height = image.size
            media_type = Image.MIME.get(image.format or "", "application/octet-stream")
    except Exception:  # whatever a decoder raises on half a file, more bytes may help
        return None
    return _as_shown(width, height, orientation, media_type)


def _as_shown(width: int, height: int, orientation: Any, media_type: str) -> Size:
    if type(orientation) is not int or not 1 <= orientation <= 8:
        orientation = 1
    if orientation in TURNED:
        width, height = height, width
    return Size(width, height, orientation, media_type)


def _webp_size(start: bytes) -> Size | None:
    """Return the size of a WebP, of which Pillow would read the whole. None if an EXIF chunk may follow at its end."""
    kind = start[12:16]
    if kind == b"VP8X" and len(start) >= 30 and not start[20] & 0x08:
        width = int.from_bytes(start[24:27], "little") + 1
        height = int.from_bytes(start[27:30], "little") + 1
    elif kind == b"VP8 " and len(start) >= 30:
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", start[26:30]))
    elif kind == b"VP8L" and len(start) >= 25:
        bits = int.from_bytes(start[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        return None
    return _as_shown(width, height, 1, "image/webp")


def measure(service: Service, address: str) -> Size:
    """Read the size of the image at `address` from its first bytes. Raises NoImage."""
    head = _Head()
    try:
        with contextlib.suppress(_Enough):
            _download(service, address, head, service.settings.max_artifact_bytes, FETCH_SECONDS)
            head.look(complete=True)
    except DownloadError as reason:
        raise _no_image(reason) from None
    if head.size is None:
        raise NoImage("it is not an image that can be read")
    return head.size


def copy(service: Service, address: str, target: Path, *, max_bytes: int | None = None) -> Size | None:
    """Write the image's bytes, as they are, to `target`. Return its size, None if it cannot be read. Raises NoImage.

    `max_bytes` is a limit below MAX_ARTIFACT_BYTES.
    """
    limit = min(max_bytes or service.settings.max_artifact_bytes, service.settings.max_artifact_bytes)
    try:
        with target.open("wb") as file:
            _download(service, address, file, limit, COPY_SECONDS)
    except DownloadError as reason:
        target.unlink(missing_ok=True)
        raise _no_image(reason) from None
    return size_of_file(target)


def size_of_file(target: Path) -> Size | None:
    """Return the size of an image file; None where it cannot be read."""
    try:
        with open_image(target) as image:
            media_type = Image.MIME.get(image.format or "", "application/octet-stream")
            return _as_shown(*image.size, image.getexif().get(ORIENTATION, 1), media_type)
    except Exception:
        return None


def _no_image(reason: DownloadError) -> NoImage:
    return HostDown(str(reason)) if isinstance(reason, Unreachable) else NoImage(str(reason))


def _download(service: Service, address: str, sink: Any, max_bytes: int, max_seconds: float) -> None:
    settings = service.settings
    kept = parse_own_url(settings, address)
    if kept is not None and service.store.exists(kept.sha256):
        with service.store.open(kept.sha256) as file:
            _pour(file, sink)
        return
    hosts = (*settings.attachment_hosts, *settings.artifact_hosts)
    fetch(address, hosts=hosts, max_bytes=max_bytes, max_seconds=max_seconds, sink=sink)


def _pour(file: BinaryIO, sink: Any) -> None:
    while piece := file.read(HEAD_BYTES):
        sink.write(piece)


def stored_sizes(connection: Connection, addresses: Sequence[str]) -> dict[str, Size]:
    """Return the stored sizes by address."""
    by_digest = {_digest(address): address for address in addresses}
    columns = (ImageSize.width, ImageSize.height, ImageSize.orientation, ImageSize.media_type)
    statement = select(ImageSize.address_sha256, *columns).where(ImageSize.address_sha256.in_(by_digest))
    return {by_digest[row[0]]: Size(*row[1:]) for row in connection.execute(statement)}


def store_sizes(connection: Connection, sizes: Mapping[str, Size]) -> None:
    """Store sizes by address, for every later export."""
    rows = [
        {
            "address_sha256": _digest(address),
            "width": size.width,
            "height": size.height,
            "orientation": size.orientation,
            "media_type": size.media_type,
            "measured_at": utcnow(),
        }
        for address, size in sorted(sizes.items())
    ]
    for batch in chunked(rows, BATCH_SIZE):
        statement = insert(connection, ImageSize).values(batch)
        connection.execute(statement.on_conflict_do_nothing(index_elements=["address_sha256"]))


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()


def batches(addresses: Iterable[Any]) -> Iterable[list[Any]]:
    """Yield lists of BATCH_SIZE."""
    batch: list[Any] = []
    for address in addresses:
        batch.append(address)
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch
