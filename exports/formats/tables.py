"""Three tables (tasks, annotations, answers) as Parquet and as CSV. They hold every annotation."""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

from exports.export import Export, dumps
from exports.format import GEOMETRIES, Format
from pipeline.datasets.records import Task
from scale.annotations import Annotation

BATCH_SIZE = 20_000
"""Rows that wait for one write."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that starts so is a formula to a spreadsheet."""

TASKS = {
    "task_id": "string", "type": "string", "status": "string", "project": "string", "batch": "string",
    "environment": "string", "split": "string", "response_number": "int64", "metadata": "string",
    "attachment": "string",
}  # fmt: skip
ANNOTATIONS = {
    "task_id": "string", "response_number": "int64", "file": "int64", "position": "int64", "uuid": "string",
    "type": "string", "label": "string", "frame": "int64", "split": "string", "left": "float64", "top": "float64",
    "width": "float64", "height": "float64", "attributes": "string", "geometry": "string",
}  # fmt: skip
ANSWERS = {"task_id": "string", "response_number": "int64", "split": "string", "values": "string"}


class Table(Protocol):
    """A file that rows are appended to."""

    def add(self, row: tuple[Any, ...]) -> None:
        """Append one row, whose values are in the order of the columns."""

    def close(self) -> None:
        """Write what is buffered and close the file."""


MakeTable = Callable[[Export, str, dict[str, str]], Table]


class Box(NamedTuple):
    """Columns of an annotation that has these four numbers; of others they are empty."""

    left: float | None
    top: float | None
    width: float | None
    height: float | None


NO_BOX = Box(None, None, None, None)


def write(export: Export, make: MakeTable) -> None:
    """Write the tables tasks, annotations and answers. `make` opens one of them: Parquet or CSV."""
    with ExitStack() as closing:
        tables = []
        for name, columns in (("tasks", TASKS), ("annotations", ANNOTATIONS), ("answers", ANSWERS)):
            tables.append(make(export, name, columns))
            closing.callback(tables[-1].close)
        tasks, annotations, answers = tables
        for task in export.tasks(answers=True):
            tasks.add(_task_row(task))
            for row in _annotation_rows(task):
                annotations.add(row)
            if task.answer is not None:
                answers.add((task.task_id, task.response_number, task.split, _text(task.answer)))
            export.report.wrote(task, *task.annotations)


def _task_row(task: Task) -> tuple[Any, ...]:
    attachment = task.params.get("attachment")
    return (
        task.task_id, task.type, task.status, task.project, task.batch, task.environment, task.split,
        task.response_number, _text(task.metadata), attachment if isinstance(attachment, str) else None,
    )  # fmt: skip


def _annotation_rows(task: Task) -> Iterator[tuple[Any, ...]]:
    task_id, number, split = task.task_id, task.response_number, task.split
    for annotation, file in zip(task.annotations, task.files, strict=True):
        position, type_, label, uuid, frame, attributes, geometry, _ = annotation
        yield (
            task_id, number, file, position, uuid, type_, label, frame, split, *_box(annotation),
            None if attributes is None else _text(attributes), _text(geometry),
        )  # fmt: skip


def _box(annotation: Annotation) -> Box:
    geometry = annotation.geometry
    if annotation.warning is not None or "width" not in geometry or "left" not in geometry:
        return NO_BOX
    try:
        return Box(
            float(geometry["left"]),
            float(geometry["top"]),
            float(geometry["width"]),
            float(geometry["height"]),
        )
    except (KeyError, TypeError, ValueError):
        return NO_BOX


def _text(value: Any) -> str:
    return dumps(value).decode()


class ParquetTable:
    """Typed columns, zstd. Rows are kept by column until a batch is full."""

    def __init__(self, export: Export, name: str, columns: dict[str, str]) -> None:
        import pyarrow
        from pyarrow import parquet

        self._arrow = pyarrow
        types = {"string": pyarrow.string(), "int64": pyarrow.int64(), "float64": pyarrow.float64()}
        self._schema = pyarrow.schema([(column, types[type_]) for column, type_ in columns.items()])
        self._writer = parquet.ParquetWriter(export.path(f"{name}.parquet"), self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []

    def add(self, row: tuple[Any, ...]) -> None:
        """Buffer one row; write a row group every BATCH_SIZE rows."""
        self._rows.append(row)
        if len(self._rows) >= BATCH_SIZE:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [
            self._arrow.array(values, type=field.type)
            for values, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_batch(self._arrow.record_batch(arrays, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        """Write the buffered rows and the footer of the file."""
        if self._rows:
            self._flush()
        self._writer.close()


class CsvTable:
    """UTF-8, a header, commas, CRLF. A cell that a spreadsheet would take for a formula starts with an apostrophe."""

    def __init__(self, export: Export, name: str, columns: dict[str, str]) -> None:
        self._numbers = [type_ != "string" for type_ in columns.values()]
        self._file = io.TextIOWrapper(export.path(f"{name}.csv").open("wb"), "utf-8", newline="")
        self._writer = csv_module.writer(self._file)
        self._writer.writerow(columns)

    def add(self, row: tuple[Any, ...]) -> None:
        """Write one row. Text that a spreadsheet would take for a formula is escaped."""
        self._writer.writerow(
            value if is_number or value is None else neutral(value)
            for value, is_number in zip(row, self._numbers, strict=True)
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def neutral(text: str) -> str:
    """Return the text so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


_HOLDS = {**dict.fromkeys(GEOMETRIES, ""), "raw": ""}

PARQUET = Format(
    "parquet",
    "tasks, annotations and answers as typed columns",
    _HOLDS,
    lambda export: write(export, ParquetTable),
    packages=("pyarrow",),
)
CSV = Format(
    "csv",
    "tasks, annotations and answers as text, safe to open in a spreadsheet",
    _HOLDS,
    lambda export: write(export, CsvTable),
)
