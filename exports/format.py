"""What a format is: a name, what it holds, and the function that writes it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exports.export import Export

GEOMETRIES = (
    "box", "rotated box", "polygon", "line", "point", "ellipse", "cuboid", "mask", "cuboid3d", "segment3d", "span",
    "event",
)  # fmt: skip
"""The columns of the table of formats. A rotated box is an annotation of type box."""


class MissingPackage(Exception):
    """Raised when a format needs a package that is not installed. args[0] says which, and how to install it."""


@dataclass(frozen=True)
class Format:
    """One export format. `write` reads from the Export that it gets, and writes files through it."""

    name: str
    """The word on the command line: [a-z0-9-]+."""
    summary: str
    """One line: which files, for which tools."""
    holds: Mapping[str, str]
    """Geometry → how it is written; "" where it is written as it is. A geometry that is not named is left out."""
    write: Callable[[Export], None]
    packages: tuple[str, ...] = ()
    """Packages beyond requirements.txt, by their names on the package index; they are in requirements-exports.txt."""
    needs_classes: bool = False
    """Annotations without a label, and labels that are not among the classes, cannot be written."""
    needs_images: bool = False
    """Images are indexed: `Export.images` and `Export.images_of` work."""
    needs_sizes: bool = False
    """Images whose width and height are not known are left out, with their annotations."""
    needs_copies: bool = False
    """With --images copy, an image that could not be fetched is left out, with its annotations."""

    def check_packages(self) -> None:
        """Raise MissingPackage unless everything that the format imports is installed."""
        missing = [name for name in self.packages if importlib.util.find_spec(name.replace("-", "_")) is None]
        if missing:
            raise MissingPackage(
                f"The format {self.name} needs {' and '.join(missing)}, which this installation does not have."
                " Install them with: pip install -r requirements-exports.txt"
            )
