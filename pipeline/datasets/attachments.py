"""Which images a task shows, and on which of them an annotation lies. Pure: the task's type and parameters in, addresses out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scale.annotations import Annotation
from scale.frame_sources import frame_source
from scale.task_types import task_type
from scale.task_types.images import IMAGES
from scale.task_types.segmentation import SEGMENTATION

ONE_IMAGE = frozenset(known.name for known in (*IMAGES, *SEGMENTATION))
"""Types that are about one image, also where attachment_type is absent."""
NOT_SHOWN = ("lidar", "sensorfusion")
"""Starts of the names of types whose attachments are files that point to images and points."""


def attachments(params: Mapping[str, Any]) -> list[str]:
    """Return the addresses of a task's attachments, in order."""
    found = params.get("attachments")
    items = found if isinstance(found, list) else [params.get("attachment")]
    return [address for item in items if (address := _address(item)) is not None]


def numbered(params: Mapping[str, Any]) -> list[str | None]:
    """Return every address that a task names, so that the image of frame 5 has the place 5; None where a frame names none.

    A video next to the images of its frames comes last.
    """
    listed, single = params.get("attachments"), _address(params.get("attachment"))
    found = [_address(item) for item in listed] if isinstance(listed, list) else []
    return found if single is None else [*found, single]


def frames(type_name: str | None, params: Mapping[str, Any]) -> list[str | None] | None:
    """Return the image of each frame, None where a frame names none; None for a task that is no list of images."""
    found = params.get("attachments")
    if not isinstance(found, list) or not found or (type_name or "").startswith(NOT_SHOWN):
        return None
    if params.get("attachment_type") not in ("image", None):
        return None
    if params.get("attachment_type") is None and task_type(type_name).result_form == "answer":
        return None
    return [_address(item) for item in found]


def images(type_name: str | None, params: Mapping[str, Any]) -> list[str]:
    """Return the addresses of the images that a task shows, each once, in order."""
    listed = frames(type_name, params)
    if listed is not None:
        return list(dict.fromkeys(address for address in listed if address is not None))
    single = _address(params.get("attachment"))
    is_image = params.get("attachment_type") == "image" or (
        type_name in ONE_IMAGE and params.get("attachment_type") is None
    )
    return [single] if single is not None and is_image else []


def image_of(type_name: str | None, params: dict[str, Any], annotation: Annotation) -> str | None:
    """Return the address of the image on which an annotation lies; None where it has none of its own."""
    if frames(type_name, params) is None:
        single = images(type_name, params)
        return (
            single[0] if single and annotation.frame is None and not annotation.geometry.get("page") else None
        )
    frame = annotation.frame
    if (
        frame is None
        and isinstance(annotation.geometry, dict)
        and type(annotation.geometry.get("page")) is int
    ):
        frame = annotation.geometry["page"]
    return None if frame is None else frame_source(params, frame, type_name).attachment


def given_size(metadata: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the width and height in pixels that the task's metadata gives for its images, or None."""
    for source in (metadata, params.get("metadata")):
        if isinstance(source, Mapping):
            width, height = _pixels(source.get("width")), _pixels(source.get("height"))
            if width is not None and height is not None:
                return width, height
    return None


def _pixels(value: Any) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value < 2**31 else None


def _address(item: Any) -> str | None:
    if isinstance(item, dict):
        content = None if item.get("type") == "text" else item.get("content")  # of a text collection
        item = item.get("attachment") or item.get("url") or content
    return item if isinstance(item, str) and item else None
