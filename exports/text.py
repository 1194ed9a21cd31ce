"""Numbers and XML as text, the same bytes on every machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr

from exports.export import dumps

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
DECIMALS = 6


def number(value: float) -> str:
    """Return a number in decimals, at most DECIMALS of them, without an exponent and without zeros at its end."""
    if isinstance(value, int):
        return str(value)
    text = f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def xml_text(value: object) -> str:
    """Return a value as XML text. A character that XML 1.0 cannot hold becomes U+FFFD."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _NOT_IN_XML.sub("\ufffd", value if isinstance(value, str) else str(value))


def attribute_text(value: Any) -> str:
    """Return the value of an attribute as text: a string as it is, any other value as JSON."""
    return value if isinstance(value, str) else dumps(value).decode()


class XmlWriter:
    """Write elements to a file, indented by two spaces. The caller closes what it opened."""

    def __init__(self, file: BinaryIO, depth: int = 0) -> None:
        self._file = file
        self._depth = depth

    def declaration(self) -> None:
        """Write the XML declaration."""
        self._file.write(b'<?xml version="1.0" encoding="utf-8"?>\n')

    def open(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Write a start tag."""
        self._line(f"<{name}{_attributes(attributes)}>")
        self._depth += 1

    def close(self, name: str) -> None:
        """Write an end tag."""
        self._depth -= 1
        self._line(f"</{name}>")

    def empty(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Write an element without content."""
        self._line(f"<{name}{_attributes(attributes)}/>")

    def leaf(self, name: str, value: object, attributes: Mapping[str, Any] | None = None) -> None:
        """Write an element that holds text."""
        text = escape(xml_text(value), {"\r": "&#13;"})
        self._line(f"<{name}{_attributes(attributes)}>{text}</{name}>")

    def _line(self, text: str) -> None:
        self._file.write(b"  " * self._depth + text.encode() + b"\n")


def _attributes(attributes: Mapping[str, Any] | None) -> str:
    return "".join(f" {name}={quoteattr(xml_text(value))}" for name, value in (attributes or {}).items())
