"""Scale's own task objects, one a line, as they were received: nothing is lost, and `weighbridge import` reads them back."""

from __future__ import annotations

import json

import orjson

from exports.export import Export
from exports.format import GEOMETRIES, Format


def write(export: Export) -> None:
    """Write tasks.jsonl: one task a line, in the form in which Scale sent it."""
    with export.open("tasks.jsonl") as file:
        for task in export.tasks(sources=True):
            file.write(_line(task.source) + b"\n")
            export.report.wrote(task, *task.annotations)


def _line(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


SCALE = Format(
    "scale",
    "tasks.jsonl: Scale's task objects with their responses; `weighbridge import` reads it back",
    {**dict.fromkeys(GEOMETRIES, ""), "raw": ""},
    write,
)
