"""A task as an annotator receives it: its request, its own random generator, and access to files.

Annotators do not know the sandbox's tables; everything they use is in here.
"""

import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.annotators.values import as_dict, digest

PutFile = Callable[[bytes, str], str]
"""Stores a result file: (content, media type) → the URL that the response names."""
ImageSize = Callable[[str], tuple[int, int] | None]
"""Width and height in pixels of the image at a URL; None if it cannot be read."""
ReadFile = Callable[[str], bytes | None]
"""Content of the file at a URL (a hypothesis, an earlier result); None if it cannot be read."""

ReadTask = Callable[[str], dict[str, Any] | None]
"""The task object of another task of the same account; None if there is none."""

ASSUMED_SIZE = (960, 540)


@dataclass(frozen=True, kw_only=True)
class AnnotatorContext:
    """Hold what annotators need besides the task: a seed, and ways to read and store files and to read other tasks.

    Without `image_size` and `read_file` no attachment can be read, and sizes are assumed. With `confidences`, blocks of
    documents have a confidence.
    """

    seed: int
    put_file: PutFile
    image_size: ImageSize = lambda url: None
    read_file: ReadFile = lambda url: None
    read_task: ReadTask = lambda task_id: None
    confidences: bool = False


@dataclass(frozen=True)
class Assignment:
    """Hold a task to be annotated, or a response to be fixed.

    `rng` is seeded by type, params, seed and `salt` alone, so the same task gets the same response. `salt` is empty for
    a first response and a digest of the response for its fix.
    """

    type: str
    params: dict[str, Any]
    context: AnnotatorContext
    salt: str = ""
    rng: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Seed the random generator."""
        seed = digest(self.type, self.params, self.context.seed, self.salt)
        object.__setattr__(self, "rng", random.Random(seed))

    @classmethod
    def of(cls, task: dict[str, Any], context: AnnotatorContext, salt: str = "") -> "Assignment":
        """Build the assignment of a task object."""
        return cls(str(task.get("type")), as_dict(task.get("params")), context, salt)

    def unsalted(self) -> "Assignment":
        """Return the assignment of the first response, from which that response can be generated again."""
        return replace(self, salt="")

    def new_uuid(self) -> str:
        """Return a random UUID of version 4."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def size(self, url: Any, assumed: tuple[int, int] = ASSUMED_SIZE) -> tuple[int, int, bool]:
        """Return width and height in pixels, and whether they were read (True) or assumed (False)."""
        found = self.context.image_size(url) if isinstance(url, str) else None
        return (*found, True) if found and min(found) > 0 else (*assumed, False)

    def put_file(self, content: bytes, media_type: str) -> str:
        """Store a result file and return its URL."""
        return self.context.put_file(content, media_type)

    def put_json(self, value: Any) -> str:
        """Store a value as a JSON file and return its URL."""
        return self.put_file(json.dumps(value, ensure_ascii=False).encode(), "application/json")

    def read_file(self, url: Any) -> bytes | None:
        """Return the content of a file, or None if it cannot be read."""
        return self.context.read_file(url) if isinstance(url, str) else None

    def read(self, value: Any) -> Any:
        """Return the content of the JSON file that `{url}` names (None if unreadable); any other value as it is."""
        return self.read_json(value["url"]) if isinstance(value, dict) and "url" in value else value

    def read_json(self, url: Any) -> Any:
        """Return the content of a JSON file, or None if it cannot be read or is not JSON."""
        content = self.read_file(url)
        try:
            return None if content is None else json.loads(content)
        except (ValueError, RecursionError):
            return None
