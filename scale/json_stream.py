"""Reads JSON files of any size as a stream of events, with a bound on what may be in memory at once.

Scale's "JSON binary" container pads a JSON header with spaces and NUL bytes, and may append typed arrays that the header
refers to as `{"$items": …}`. JSON text holds no NUL byte, so it ends at the first one.
"""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

READ_BYTES = 64 * 1024
PADDING = b"\x00 \t\r\n"

Events = Iterator[tuple[str, Any]]
_BINARY_REFERENCE = re.compile(rb'"\$[a-z]\w*"\s*:', re.IGNORECASE)
_OVERLAP = 64


class ValueTooLarge(Exception):
    """Raised when one value of the file is larger than its reader keeps in memory; args[0] is the bound in bytes."""


class JsonSource:
    """The bytes of a file as ijson reads them: without a byte order mark, and without the part after the JSON text."""

    def __init__(self, file: BinaryIO, max_value_bytes: float = float("inf")) -> None:
        self._file = file
        self._max_value_bytes = max_value_bytes
        self._bound = max_value_bytes
        self._tail = b""
        self.bytes = 0
        self.has_binary_part = False
        """Whether anything but padding follows the JSON text."""
        self.has_references = False
        """Whether a key of the JSON text has the form of a reference into the binary part."""
        self._ended = False

    def release(self) -> None:
        """Restart the bound: what was read so far is no longer in memory."""
        self._bound = self.bytes + self._max_value_bytes

    def unbounded(self) -> None:
        """Lift the bound until `release`: what follows does not stay in memory."""
        self._bound = float("inf")

    def read(self, size: int) -> bytes:
        """Return the next bytes of the JSON text. Raises ValueTooLarge."""
        if self.bytes > self._bound:
            raise ValueTooLarge(self._max_value_bytes)
        if self._ended or not (piece := self._file.read(size)):
            return b""
        if self.bytes == 0:
            piece = piece.removeprefix(b"\xef\xbb\xbf")
        self.bytes += len(piece)
        if (end := piece.find(b"\x00")) >= 0:
            self._ended = True
            self.has_binary_part = bool(piece[end:].strip(PADDING)) or self._holds_more()
            piece = piece[:end]
        if size and not self.has_references:
            self.has_references = _BINARY_REFERENCE.search(self._tail + piece) is not None
            self._tail = piece[-_OVERLAP:]
        return piece

    def _holds_more(self) -> bool:
        while piece := self._file.read(READ_BYTES):
            if piece.strip(PADDING):
                return True
        return False


def json_events(source: Any, *, multiple_values: bool = False) -> Events:
    """Return the events of the JSON text that `source.read` gives, as `ijson.basic_parse` names them."""
    events: Events = iter(
        ijson.basic_parse(source, use_float=True, buf_size=READ_BYTES, multiple_values=multiple_values)
    )
    return events


def build_value(event: str, value: Any, events: Events) -> Any:
    """Return the value that this event is or opens. ijson's own builder takes almost twice as long."""
    return value if value is not None or event == "null" else _build(event, events)


def _build(event: str, events: Events) -> Any:
    built: Any
    if event == "start_map":
        built = {}
        for event, key in events:
            if event == "end_map":
                break
            event, value = next(events)
            built[key] = value if value is not None or event == "null" else _build(event, events)
    else:
        built = []
        for event, value in events:
            if event == "end_array":
                break
            built.append(value if value is not None or event == "null" else _build(event, events))
    return built


def skip_value(event: str, events: Events) -> None:
    """Pass over the value that this event is or opens, without building it."""
    depth = 1 if event in ("start_map", "start_array") else 0
    while depth:
        event, _ = next(events)
        if event in ("start_map", "start_array"):
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1


def finish(events: Events) -> bool:
    """Read to the end of the file after its last value. Return whether binary data follows the JSON text.

    Raises ijson.JSONError where text follows it: a second value, or the rest of another file.
    """
    try:
        for _ in events:
            pass
    except ijson.JSONError as error:
        if not _stopped_at_binary(error):
            raise
        return True
    return False


def _stopped_at_binary(error: ijson.JSONError) -> bool:
    """Return whether the byte that ended the text cannot begin text. yajl shows an excerpt, and a caret below the byte after it."""
    lines = _message(error).split(b"\n")
    if len(lines) < 3 or (column := lines[2].find(b"^")) < 1:
        return False
    byte = lines[1][column - 1 : column]
    return byte != b"" and (byte < b" " or byte >= b"\x80")


def error_message(error: Exception) -> str:
    """Return what ijson reports, without the excerpt of the file that it shows below."""
    text = _message(error).decode(errors="replace").removeprefix("b'")
    return text.strip().partition("\n")[0].strip()[:200] or "it ends early"


def _message(error: Exception) -> bytes:
    message = error.args[0] if error.args else b""
    return message if isinstance(message, bytes) else str(message).encode()
