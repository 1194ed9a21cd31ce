"""Documents: boxes and polygons on pages, each with what was read there."""

from typing import Any

from scale.annotations import Annotation, reader
from scale.task_types.base import TaskType, listed
from scale.task_types.request import Parameters

_read_flat = reader(None)


def _read(item: Any, position: int, frame: int | None = None) -> Annotation:
    """Read an annotation whose shape is in `location` ({type: box|polygon, left … | vertices}).

    `page` counts from 0 in the task's document_pages. The location's fields join the others in the geometry.
    Source: docs "Task", document_pages.
    """
    location = item.get("location") if type(item) is dict else None
    if type(location) is not dict:
        return _read_flat(item, position, frame)
    others = {key: value for key, value in item.items() if key not in ("location", "type")}
    row = _read_flat({**others, **location}, position, frame)
    if row.warning:
        return row._replace(geometry=item)
    if item.get("type") is not None:
        row.geometry["type"] = item["type"]  # what kind of block it is: not a shape
    return row


def _document(name: str, description: str, *required: tuple[str, ...]) -> TaskType:
    request = Parameters((("attachment", "attachments"), *required), complete=False)
    return TaskType(name, description, ("box", "polygon"), "inline", listed(_read), request=request)


DOCUMENTS = (
    _document("documenttranscription", "Transcribed blocks on the pages of a document", ("features",)),
    _document("documentmodel", "Blocks on the pages of a document, found by a model and corrected"),
)
