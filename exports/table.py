"""The table of formats: which geometry each holds, and how. Printed by `weighbridge export --formats` and shown in the docs."""

from __future__ import annotations

from exports.format import GEOMETRIES, Format
from exports.formats import FORMATS

PLAIN = "yes"
"""The cell of a geometry that is written as it is."""


def rows() -> list[dict[str, str | None]]:
    """Return one row a format: `format`, a cell for each geometry (None where it is left out), `files`."""
    return [_row(format_) for format_ in FORMATS]


def _row(format_: Format) -> dict[str, str | None]:
    cells = {name: (format_.holds[name] or PLAIN) if name in format_.holds else None for name in GEOMETRIES}
    return {"format": format_.name, **cells, "files": format_.summary}


def markdown() -> str:
    """Return the table for docs/exports.md."""
    columns = ("format", *GEOMETRIES)
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows():
        cells = [f"`{row['format']}`", *(_cell(row[name]) for name in GEOMETRIES)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(text: str | None) -> str:
    return "" if text is None else text.replace("|", "\\|")
