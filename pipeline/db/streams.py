"""JSON values of any size as text in pieces, so that none is in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Engine, LargeBinary, func, select

from pipeline.db.dialect import utf8_bytes

PIECE_BYTES = 8 * 1024 * 1024
"""PostgreSQL unpacks a compressed value from its beginning for each piece."""
CHUNK_BYTES = 64 * 1024


class ValueGone(RuntimeError):
    """Raised when a value is deleted or changed while it is streamed."""


def stream_json(reader: Engine, column: Any, *conditions: Any) -> Iterator[bytes]:
    """Yield the JSON of a column in one row as UTF-8; `null` without a value. Each piece has a transaction of its own.

    Raises ValueGone.
    """
    value = utf8_bytes(column)
    with reader.begin() as connection:
        sizes = connection.scalars(select(func.length(value)).where(*conditions)).all()
    if not sizes:
        raise ValueGone("the value was deleted or changed before it was read")
    if (size := sizes[0]) is None:
        yield b"null"
        return
    position = 0
    while position < size:
        piece = func.substr(value, position + 1, PIECE_BYTES, type_=LargeBinary)
        with reader.begin() as connection:
            found = connection.scalar(select(piece).where(*conditions))
        if not found:
            raise ValueGone("the value was deleted or changed while it was read")
        position += len(found)
        yield found


def coalesced(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes with small pieces put together, because each is sent by itself."""
    chunk = bytearray()
    for piece in pieces:
        if chunk and len(chunk) + len(piece) > CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
        if len(piece) > CHUNK_BYTES:
            yield piece
        else:
            chunk += piece
    if chunk:
        yield bytes(chunk)
