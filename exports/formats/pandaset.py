"""PandaSet: lidar cuboids by frame, as Parquet and as JSON. Source: pandaset-devkit, "annotations/cuboids"."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from exports.export import Export, dumps
from exports.format import Format
from exports.names import Names
from exports.text import attribute_text
from scale.annotations import Annotation

NO_FRAME = "it is on no frame"
COLUMNS = (
    ("uuid", "string"),
    ("label", "string"),
    ("yaw", "float64"),
    ("stationary", "bool"),
    ("camera_used", "int64"),
    ("position.x", "float64"),
    ("position.y", "float64"),
    ("position.z", "float64"),
    ("dimensions.x", "float64"),
    ("dimensions.y", "float64"),
    ("dimensions.z", "float64"),
    ("cuboids.sibling_id", "string"),
    ("cuboids.sensor_id", "int64"),
)
"""Names and types of the columns that every file has, before those of the attributes."""


def write(export: Export) -> None:
    """Write <task_id>/annotations/cuboids/<frame>.parquet and .json for every frame that has cuboids."""
    names = Names()
    for task in export.tasks():
        by_frame: dict[int, list[Annotation]] = defaultdict(list)
        for annotation in task.annotations:
            if annotation.frame is None:
                export.report.leave_out(NO_FRAME, task, [annotation])
            else:
                by_frame[annotation.frame].append(annotation)
        attributes = sorted({name for one in task.annotations for name in one.attributes or ()})
        for frame, cuboids in sorted(by_frame.items()):
            rows = [_row(annotation, attributes) for annotation in cuboids]
            _write_frame(
                export, f"{names.name(task.task_id)}/annotations/cuboids/{frame:02d}", rows, attributes
            )
            export.report.wrote(task, *cuboids)


def _row(annotation: Annotation, attributes: list[str]) -> dict[str, Any]:
    geometry, values = annotation.geometry, annotation.attributes or {}
    row: dict[str, Any] = {
        "uuid": annotation.uuid,
        "label": annotation.label,
        "yaw": _float(geometry.get("yaw")),
        "stationary": geometry.get("stationary") if isinstance(geometry.get("stationary"), bool) else None,
        "camera_used": _integer(geometry.get("camera_used")),
        "cuboids.sibling_id": _text(geometry.get("sibling_id")),
        "cuboids.sensor_id": _integer(geometry.get("sensor_id")),
    }
    for name in ("position", "dimensions"):
        row |= {f"{name}.{axis}": float(geometry[name][axis]) for axis in "xyz"}
    for name in attributes:
        row[f"attributes.{name}"] = None if values.get(name) is None else attribute_text(values[name])
    return row


def _float(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None


def _integer(value: Any) -> int | None:
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _text(value: Any) -> str | None:
    return None if value is None else attribute_text(value)


def _write_frame(export: Export, stem: str, rows: list[dict[str, Any]], attributes: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"string": pa.string(), "float64": pa.float64(), "bool": pa.bool_(), "int64": pa.int64()}
    fields = [(name, kinds[kind]) for name, kind in COLUMNS]
    schema = pa.schema([*fields, *((f"attributes.{name}", pa.string()) for name in attributes)])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), export.path(f"{stem}.parquet"))
    with export.open(f"{stem}.json") as file:
        file.write(dumps(rows) + b"\n")


PANDASET = Format(
    "pandaset",
    "<task_id>/annotations/cuboids/<frame>.parquet and .json: PandaSet",
    {"cuboid3d": ""},
    write,
    packages=("pyarrow",),
)
