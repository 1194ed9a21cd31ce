"""Hugging Face `datasets`: a README.md with the dataset card and its configuration, and one row a task in Parquet shards.

`load_dataset(OUT)` reads the folder offline. The features stand in each file's metadata, so that class names are kept.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from exports import geometry as shapes
from exports.export import Export, dumps
from exports.format import GEOMETRIES, Format
from exports.records import Image
from pipeline.datasets.records import Task
from scale.annotations import Annotation

SHARD_BYTES = 256 * 1024 * 1024
BATCH_ROWS = 200
BATCH_BYTES = 32 * 1024 * 1024
"""Image bytes that wait for one write."""

Feature = dict[str, Any]

STRING: Feature = {"dtype": "string", "_type": "Value"}
INTEGER: Feature = {"dtype": "int64", "_type": "Value"}
NUMBER: Feature = {"dtype": "float64", "_type": "Value"}
IMAGE: Feature = {"_type": "Image"}


def features(export: Export) -> dict[str, Feature]:
    """Return the columns in the words of `datasets.Features.to_dict()`."""
    image = IMAGE if export.options.copies else STRING
    shape: Feature = {
        "uuid": STRING,
        "type": STRING,
        "label": STRING,
        "category": {"names": list(export.classes.names), "_type": "ClassLabel"},
        # Not of a fixed length: a box that is null could not be read by pyarrow before 26.
        "bbox": {"feature": NUMBER, "_type": "List"},
        "frame": INTEGER,
        "attributes": STRING,
        "geometry": STRING,
    }
    return {
        "task_id": STRING,
        "type": STRING,
        "project": STRING,
        "batch": STRING,
        "image": image,
        "width": INTEGER,
        "height": INTEGER,
        "frames": {"feature": image, "_type": "List"},
        "text": STRING,
        "objects": {"feature": shape, "_type": "List"},
        "answer": STRING,
        "metadata": STRING,
    }


def write(export: Export) -> None:
    """Write one row a task as Parquet shards of each split, with the card that names the features."""
    columns = features(export)
    shards = {split: _Shards(export, _split_name(split), columns) for split in export.splits}
    try:
        for task in export.tasks(answers=True):
            row, images = _row(export, task)
            shards[task.split].add(row)
            for image in images:
                export.report.wrote_image(image)
            export.report.wrote(task, *task.annotations)
    finally:
        for shard in shards.values():
            shard.close()
    written = [shard for shard in shards.values() if shard.rows]  # `datasets` refuses a split without rows
    for shard in written:
        shard.rename()
    with export.open("README.md") as file:
        file.write(_card(export, columns, written).encode())


def _split_name(split: str) -> str:
    """Return the split as a name that `datasets` takes: letters, digits and underscores."""
    return split.replace("-", "_")


def _row(export: Export, task: Task) -> tuple[dict[str, Any], list[Image]]:
    images = export.images_of(task)
    is_list = isinstance(task.params.get("attachments"), list)
    cells = [_cell(export, image, task) for image in images]
    first = images[0] if images and not is_list else None
    text = task.params.get("text")
    row = {
        "task_id": task.task_id,
        "type": task.type,
        "project": task.project,
        "batch": task.batch,
        "image": cells[0] if first is not None else None,
        "width": first.width if first is not None else None,
        "height": first.height if first is not None else None,
        "frames": cells if is_list else [],
        "text": text if isinstance(text, str) else None,
        "objects": [_object(export, annotation) for annotation in task.annotations],
        "answer": None if task.answer is None else dumps(task.answer).decode(),
        "metadata": dumps(task.metadata).decode(),
    }
    return row, images


def _cell(export: Export, image: Image, task: Task) -> Any:
    """Return the address, or with --images copy the bytes."""
    if not export.options.copies:
        return image.address
    path = export.copied(image)
    if path is None:
        export.report.leave_out_image("the image cannot be copied", image)
        return None
    return {"bytes": path.read_bytes(), "path": image.file_name}


def _object(export: Export, annotation: Annotation) -> dict[str, Any]:
    return {
        "uuid": annotation.uuid,
        "type": annotation.type,
        "label": annotation.label,
        "category": export.classes.ids.get(annotation.label or "") if annotation.label is not None else None,
        "bbox": bounding_box(annotation),
        "frame": annotation.frame,
        "attributes": None if annotation.attributes is None else dumps(annotation.attributes).decode(),
        "geometry": dumps(annotation.geometry).decode(),
    }


def bounding_box(annotation: Annotation) -> list[float] | None:
    """Return [left, top, width, height] in pixels: of a box its own, of other shapes their bounding box."""
    geometry = annotation.geometry
    if annotation.warning is not None:
        return None
    if annotation.type in ("box", "mask") and "left" in geometry:
        return [float(geometry[key]) for key in ("left", "top", "width", "height")]
    if annotation.type in ("polygon", "line", "ellipse", "cuboid"):
        left, top, right, bottom = shapes.bounds(shapes.vertices(geometry))
        return [float(left), float(top), float(right - left), float(bottom - top)]
    if annotation.type == "point":
        return [float(geometry["x"]), float(geometry["y"]), 0.0, 0.0]
    return None


# Parquet.


def _arrow_type(feature: Feature) -> Any:
    import pyarrow

    if "_type" not in feature:
        return pyarrow.struct([(name, _arrow_type(inner)) for name, inner in feature.items()])
    if feature["_type"] == "Image":
        return pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    if feature["_type"] == "ClassLabel":
        return pyarrow.int64()
    if feature["_type"] == "List":
        return pyarrow.list_(_arrow_type(feature["feature"]), feature.get("length", -1))
    return {"string": pyarrow.string(), "int64": pyarrow.int64(), "float64": pyarrow.float64()}[
        feature["dtype"]
    ]


class _Shards:
    """The files of one split. Their names contain their number, so they are renamed at the end."""

    def __init__(self, export: Export, split: str, columns: dict[str, Feature]) -> None:
        import pyarrow

        self._arrow = pyarrow
        self._export = export
        self.split = split
        self.rows = self.bytes = 0
        self._count = 0
        self._writer: Any = None
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        metadata = {"info": {"features": columns}}
        self._schema = pyarrow.schema(
            [(name, _arrow_type(feature)) for name, feature in columns.items()],
            metadata={b"huggingface": json.dumps(metadata).encode()},
        )

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        image = row["image"]
        self._waiting_bytes += len(image["bytes"]) if isinstance(image, dict) else 0
        self._waiting_bytes += sum(len(frame["bytes"]) for frame in row["frames"] if isinstance(frame, dict))
        self._waiting_bytes += 300 * len(row["objects"])
        self.rows += 1
        if len(self._waiting) >= BATCH_ROWS or self._waiting_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._open()
        batch = self._arrow.RecordBatch.from_pylist(self._waiting, schema=self._schema)
        self._writer.write_batch(batch)
        self.bytes += batch.nbytes
        self._waiting, self._waiting_bytes = [], 0
        if self._path.stat().st_size >= SHARD_BYTES:
            self._end()

    def _open(self) -> None:
        from pyarrow import parquet

        self._path = self._export.path(f"data/{self.split}-{self._count:05d}")
        self._writer = parquet.ParquetWriter(self._path, self._schema, compression="zstd")
        self._count += 1

    def _end(self) -> None:
        self._writer.close()
        self._writer = None

    def close(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._end()

    def rename(self) -> None:
        for number in range(self._count):
            path = self._export.path(f"data/{self.split}-{number:05d}")
            path.rename(path.with_name(f"{path.name}-of-{self._count:05d}.parquet"))


# The card.


def _card(export: Export, columns: dict[str, Feature], shards: list[_Shards]) -> str:
    name = export.version.full_name or "export"
    head = {
        "pretty_name": name,
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": shard.split, "path": f"data/{shard.split}-*.parquet"} for shard in shards
                ],
            }
        ],
        "dataset_info": {
            "features": [{"name": column, **_yaml_feature(feature)} for column, feature in columns.items()],
            "splits": [
                {"name": shard.split, "num_bytes": shard.bytes, "num_examples": shard.rows}
                for shard in shards
            ],
            "download_size": sum(shard.bytes for shard in shards),
            "dataset_size": sum(shard.bytes for shard in shards),
        },
    }
    counts = export.version.counts["annotations"]
    types = "".join(f"| {type_} | {count} |\n" for type_, count in counts["by_type"].items())
    return (
        f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False, width=10_000)}---\n\n# {name}\n\n"
        "Labels from Scale, exported by Weighbridge. One row a task; `objects` are its annotations, `bbox` is\n"
        "[left, top, width, height] in pixels, `geometry` and `attributes` are JSON under Scale's keys.\n"
        f"export.json says what was written and what was left out.\n\n| annotation | count |\n|---|---|\n{types}"
    )


def _yaml_feature(feature: Feature) -> dict[str, Any]:
    """Return a feature in the words of the card. Source: datasets, Features._to_yaml_list."""
    if feature["_type"] == "Image":
        return {"dtype": "image"}
    if feature["_type"] == "ClassLabel":
        names = {str(position): name for position, name in enumerate(feature["names"])}
        return {"dtype": {"class_label": {"names": names}}}
    if feature["_type"] == "Value":
        return {"dtype": feature["dtype"]}
    inner = feature["feature"]
    if "_type" not in inner:
        return {"list": [{"name": name, **_yaml_feature(one)} for name, one in inner.items()]}
    made = _yaml_feature(inner)
    listed: dict[str, Any] = {"list": made["dtype"]}
    return listed | ({"length": feature["length"]} if "length" in feature else {})


HUGGINGFACE = Format(
    "huggingface",
    "README.md and data/*.parquet for `datasets.load_dataset`",
    {**dict.fromkeys(GEOMETRIES, "as JSON, with `bbox`"), "raw": ""},
    write,
    packages=("pyarrow",),
    needs_images=True,
)
