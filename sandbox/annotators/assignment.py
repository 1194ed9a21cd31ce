"""One task as an annotator gets it: what was asked, a die of its own, and where files are read and kept.

Annotators know nothing of the sandbox's tables; all that they touch comes in here.
"""

import hashlib
import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

PutFile = Callable[[bytes, str], str]
"""Keeps a result file: (content, media type) → the address that the response names."""
ImageSize = Callable[[str], tuple[int, int] | None]
"""Width and height in pixels of the image at an address; None when it can't be had."""
ReadFile = Callable[[str], bytes | None]
"""Content of the file at an address (a hypothesis, an earlier result); None when it can't be had."""

ASSUMED_SIZE = (960, 540)


@dataclass(frozen=True)
class Assignment:
    """A task to be answered or an answer to be fixed.

    `die` starts from type, params, seed and `salt` alone, so the same task gets the same answer; `salt` is empty
    for an answer and a digest of the response for its fix.
    """

    type: str
    params: dict[str, Any]
    seed: int
    put_file: PutFile
    image_size: ImageSize
    read_file: ReadFile
    salt: str = ""
    die: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "die", random.Random(digest(self.type, self.params, self.seed, self.salt)))

    def unsalted(self) -> "Assignment":
        """The same task as it was first answered: what is generated from it is what the answer held."""
        return replace(self, salt="")

    def new_uuid(self) -> str:
        return str(uuid.UUID(int=self.die.getrandbits(128), version=4))

    def size(self, url: Any, assumed: tuple[int, int] = ASSUMED_SIZE) -> tuple[int, int, bool]:
        """Width, height in pixels, and whether they were read (True) or assumed (False)."""
        found = self.image_size(url) if isinstance(url, str) else None
        return (*found, True) if found and min(found) > 0 else (*assumed, False)

    def put_json(self, value: Any) -> str:
        return self.put_file(json.dumps(value, ensure_ascii=False).encode(), "application/json")

    def read(self, named: Any) -> Any:
        """What `{url}` names, a JSON file, or the value itself where it stands inline; None when it can't be had."""
        return self.read_json(named["url"]) if isinstance(named, dict) and "url" in named else named

    def read_json(self, url: Any) -> Any:
        """Content of a JSON file; None when it can't be had or is no JSON."""
        content = self.read_file(url) if isinstance(url, str) else None
        try:
            return None if content is None else json.loads(content)
        except (ValueError, RecursionError):
            return None


def digest(*values: Any) -> str:
    """sha256 over canonical JSON; values that JSON does not know count by their text."""
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def number(value: Any, default: float | None = None) -> float | None:
    """A finite number as given or as text ("30", as forms send it); otherwise the default."""
    try:
        parsed = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        return default
    return parsed if parsed is not None and abs(parsed) < 1e12 else default


def truth(value: Any) -> bool:
    """A switch that is on; forms send it as text."""
    return value is True or value == "true"


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def objects(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in sequence(value) if isinstance(entry, dict)]
