"""The formats: one file each, registered in FORMATS. A new format is one file and one entry here."""

from __future__ import annotations

from exports.format import Format
from exports.formats.coco import COCO
from exports.formats.coco_panoptic import COCO_PANOPTIC
from exports.formats.cvat import CVAT
from exports.formats.huggingface import HUGGINGFACE
from exports.formats.kitti import KITTI
from exports.formats.labelstudio import LABELSTUDIO
from exports.formats.masks import MASKS
from exports.formats.mot import MOT
from exports.formats.pandaset import PANDASET
from exports.formats.scale import SCALE
from exports.formats.spans import CONLL, SPACY
from exports.formats.tables import CSV, PARQUET
from exports.formats.voc import VOC
from exports.formats.webdataset import WEBDATASET
from exports.formats.yolo import YOLO
from pipeline.datasets.filters import Unusable

FORMATS: tuple[Format, ...] = (
    SCALE,
    COCO,
    COCO_PANOPTIC,
    *YOLO,
    VOC,
    CVAT,
    LABELSTUDIO,
    MASKS,
    MOT,
    KITTI,
    PANDASET,
    SPACY,
    CONLL,
    HUGGINGFACE,
    WEBDATASET,
    PARQUET,
    CSV,
)


def find_format(name: str) -> Format:
    """Return the format of this name. Raises Unusable."""
    for format_ in FORMATS:
        if format_.name == name:
            return format_
    names = ", ".join(known.name for known in FORMATS)
    raise Unusable(f"There is no format {name}. Formats are {names}.")
