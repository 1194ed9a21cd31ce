"""An image as formats get it: its name in the output, its size, and the annotations of every task that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.datasets.records import Task
from scale.annotations import Annotation


@dataclass(slots=True)
class Image:
    """One image. Sizes are pixels of the image as shown, with its EXIF orientation applied; None if unknown."""

    id: int
    """1, 2, … in the order of the output."""
    address: str
    file_name: str
    """Unique among the export's images, also without regard to case, and safe on every file system."""
    split: str
    width: int | None
    height: int | None
    media_type: str | None = None
    tasks: list[Task] = field(default_factory=list)
    annotations: list[tuple[Task, Annotation]] = field(default_factory=list)
    """In the order of the tasks, then of their files and positions. Only types that the format holds."""

    @property
    def stem(self) -> str:
        """Return the file name without its extension, for a file that goes with the image. It is unique, too."""
        return self.file_name.rpartition(".")[0] or self.file_name
