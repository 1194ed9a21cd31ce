"""File names that every file system takes, made of names that a customer chose."""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256
from urllib.parse import unquote, urlsplit

MAX_BYTES = 180
"""Of a name without its extension: file systems take 255 bytes, and an extension and a digest may follow."""
MAX_EXTENSION_BYTES = 16

_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200b-\u200f\u202a-\u202e]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def safe(text: str, otherwise: str = "unnamed") -> str:
    """Return `text` as one path segment: no separators, no characters or names that Windows reserves, no dot or space at an end.

    At most MAX_BYTES bytes, NFC. Different texts may give the same segment: `unique_key` finds that out.
    """
    made = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip(" .")
    made = cut(made, MAX_BYTES).rstrip(" .")
    if _DEVICES.fullmatch(made):
        made = f"_{made}"
    return made or otherwise


def unique_key(name: str) -> str:
    """Return a key that is equal for names that some file system takes for one file: it ignores case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())


def cut(text: str, size: int) -> str:
    """Return the longest start of `text` that has at most `size` bytes in UTF-8."""
    return text if len(text) * 4 <= size else text.encode()[:size].decode(errors="ignore")


def of_address(address: str) -> tuple[str, str]:
    """Return (stem, extension with its dot or "") of the last part of an address's path, decoded and safe."""
    if address.startswith("data:"):
        return "image", ""
    try:
        path = urlsplit(address).path
    except ValueError:
        path = address
    name = unquote(path.rstrip("/").rpartition("/")[2])
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem or not re.fullmatch(rf"[A-Za-z0-9]{{1,{MAX_EXTENSION_BYTES}}}", extension):
        return safe(name, "image"), ""
    return safe(stem, "image"), f".{extension}"


def with_digest(stem: str, address: str) -> str:
    """Return the stem with a digest of what it stands for: unique where the stem alone is not."""
    return f"{stem}-{sha256(address.encode(errors='surrogatepass')).hexdigest()[:12]}"


class Names:
    """Safe and unique segments, for a number of names that fits in memory: labels, tasks."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    def name(self, text: str, otherwise: str = "unnamed") -> str:
        """Return the segment of `text`: the same one at each call."""
        if (given := self._given.get(text)) is not None:
            return given
        made = safe(text, otherwise)
        if unique_key(made) in self._taken:
            made = with_digest(made, text)
        self._taken.add(unique_key(made))
        self._given[text] = made
        return made
