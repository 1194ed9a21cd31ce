"""A response in the forms that a follow-up request takes: flat annotations, layers, hypothesis, base_annotations.

These are the values that a workflow's expressions see; Scale refuses a request that carries what its form does not know.
"""

from collections import Counter
from typing import Any

from scale.annotations import SHAPES, flat_object, shape_of_task
from scale.task_types import ERROR_KEYS, parse_response, task_type
from scale.task_types.base import files

LAYER_KEYS = {"box": "boxes", "polygon": "polygons", "line": "lines", "cuboid": "cuboids"}
DRAWN = frozenset((*LAYER_KEYS, "point", "ellipse"))
NOT_IN_LAYERS = frozenset(("type", "frame", "geometry"))  # an element's key says its shape
NOT_IN_REQUESTS = frozenset((*ERROR_KEYS, "is_customer_fix"))


def flatten(task_type: str | None, response: Any, params: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return Scale's annotation objects of a response, flat, each with `type` and `frame`; [] where they are in files."""
    return [flat_object(row) for row in parse_response(task_type, response, params).annotations]


def layers(annotations: list[dict[str, Any]]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Group flat annotation objects under the plural keys of Scale's `layers`; return also sentences about those left out.

    Only keys that have members. Points, ellipses and other shapes have no layer. Source: docs "Image Layers".
    """
    grouped: dict[str, list[dict[str, Any]]] = {}
    without: Counter[tuple[str, str]] = Counter()
    for item in annotations:
        shape = item.get("type")
        element = {key: value for key, value in item.items() if key not in NOT_IN_LAYERS}
        if type(shape) is not str or shape not in LAYER_KEYS:
            without[str(shape), "Scale has no layer for this shape"] += 1
        elif reason := SHAPES[shape](element) or _undescribed(shape, element):
            without[shape, reason] += 1
        else:
            grouped.setdefault(LAYER_KEYS[shape], []).append(element)
    return grouped, [
        f"{count} {shape} annotation{'s' * (count > 1)} left out of the layers: {reason}"
        for (shape, reason), count in sorted(without.items())
    ]


def _undescribed(shape: str, element: dict[str, Any]) -> str | None:
    """Return why a cuboid cannot be drawn as a layer, which needs the names of its vertices."""
    if shape == "cuboid" and not all(vertex.get("description") for vertex in element["vertices"]):
        return "a vertex has no description"
    return None


def hypothesis(response: Any, type_name: str | None, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a response as the `hypothesis` of a task of the same type; {} if it has no such form.

    Source: docs "Image Annotation Hypothesis", "Image Segmentation Hypothesis", "Video Annotation".
    """
    if type(response) is not dict:
        return {}
    source = task_type(type_name)
    if source.name == "segmentannotation":
        return _segmentation(response)
    annotations = response.get("annotations")
    if type(annotations) is list:
        implied = source.implied or shape_of_task(params or {})
        made: dict[str, Any] = {
            "annotations": [_request_form(item, implied) for item in annotations if type(item) is dict]
        }
        for key in ("global_attributes", "links", "relationships"):
            if response.get(key):
                made[key] = response[key]
        return made
    if source.result_form != "answer":
        return {artifact.role: {"url": artifact.url} for artifact in files(response, {}).artifacts}
    return {
        key: value
        for key, value in response.items()
        if key not in NOT_IN_REQUESTS and not key.endswith("_reports")
    }


def base_annotations(
    response: Any, type_name: str | None, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a response as the `base_annotations` of an image or video task: an object with `annotations`, or {}.

    Source: docs "imageannotation", base_annotations.
    """
    source = task_type(type_name)
    made = hypothesis(response, type_name, params)
    if source.result_form == "answer" or source.name == "segmentannotation" or "annotations" not in made:
        return {}
    return {"annotations": made["annotations"]}


def _request_form(item: dict[str, Any], implied: str | None) -> dict[str, Any]:
    """Name a drawn shape by `type`, where live responses have `geometry`, and leave out null values."""
    made = {key: value for key, value in item.items() if key != "frame" and value is not None}
    shape = item.get("type") or item.get("geometry") or implied
    if type(shape) is str and shape in DRAWN:
        made.pop("geometry", None)
        made["type"] = shape
    return made


def _segmentation(response: dict[str, Any]) -> dict[str, Any]:
    images, mapping = response.get("annotations"), response.get("labelMapping")
    combined = images.get("combined") if type(images) is dict else None
    indexed = combined.get("indexedImage") if type(combined) is dict else None
    if not indexed or not mapping:
        return {}
    return {"annotations": {"combined": {"indexedImage": indexed}}, "labelMapping": mapping}
