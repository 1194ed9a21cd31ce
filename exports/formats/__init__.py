"""The formats: one file each, registered in FORMATS. A new format is one file and one entry here."""

from __future__ import annotations

from exports.format import Format
from exports.formats.coco import COCO
from exports.formats.scale import SCALE
from exports.formats.tables import CSV, PARQUET

FORMATS: tuple[Format, ...] = (
    SCALE,
    COCO,
    PARQUET,
    CSV,
)


def find_format(name: str) -> Format | None:
    """The format of this name."""
    return next((format_ for format_ in FORMATS if format_.name == name), None)
