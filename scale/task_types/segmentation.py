"""segmentannotation: a label for each pixel. A mask row for each index of the mapping; the pixels are in files."""

from collections.abc import Iterator
from typing import Any

from scale.annotations import Annotation
from scale.fields import json_object, json_type_name, load, schema
from scale.task_types.base import ParsedResponse, TaskType, is_url, numbered, row_warnings
from scale.task_types.request import Parameters

FORM = schema(annotations=json_object, labelMapping=json_object, global_attributes=json_object)
COMBINED = (
    "indexedImage",
    "extendedIndexedImage",
    "image",
)  # the first two hold indexes; colours are not unique


def parse(response: dict[str, Any], params: dict[str, Any]) -> ParsedResponse:
    """Source: docs "Semantic Segmentation", "segmentannotation callback format", recorded traffic."""
    values, warnings = load(FORM, response, "response.")
    images, mapping = values.get("annotations") or {}, values.get("labelMapping") or {}
    labeled = images.get("labeled")
    if not mapping and images:
        warnings.append("response.labelMapping is missing: the masks have no labels")
    elif type(labeled) is dict:
        warnings += [
            f"label {label[:60]!r} has a mask and no entry in labelMapping"
            for label in sorted(labeled.keys() - mapping.keys())
        ]
    masks = _masks(mapping)
    found, left = _images(images)
    rest = dict(response)
    if "annotations" in values:
        del rest["annotations"]
        if left:
            rest["annotations"] = left
    return ParsedResponse(
        annotations=masks,
        artifacts=numbered(found),
        answer=rest or None,
        global_attributes=values.get("global_attributes"),
        warnings=warnings + row_warnings(masks),
    )


def _masks(mapping: dict[str, Any]) -> list[Annotation]:
    """Return a mask for each entry, by index, so that the order of the keys does not matter."""
    entries = [entry for label, value in mapping.items() for entry in _entries(label, value)]
    entries.sort(key=lambda entry: (_index(entry[2]) is None, _index(entry[2]) or 0, entry[0], entry[1] or 0))
    seen: set[int] = set()
    masks = []
    for position, (label, instance, entry) in enumerate(entries):
        index = _index(entry)
        reason, attributes = None, None
        geometry = dict(entry) if type(entry) is dict else {"value": entry}
        if type(entry) is not dict:
            reason = f"the entry of {label[:60]!r} is {json_type_name(entry)}, not an object"
        elif index is None:
            reason = f"the entry of {label[:60]!r} has no index"
        elif index in seen:
            reason = f"index {index} is given twice"
        elif type(entry.get("attributes")) is dict or entry.get("attributes") is None:
            attributes = geometry.pop("attributes", None)
        if index is not None:
            seen.add(index)
        if instance is not None:
            geometry.setdefault("instance", instance)
        warning = reason and f"annotation {position}: {reason}"
        masks.append(Annotation(position, "mask", label, None, None, attributes, geometry, warning))
    return masks


def _entries(label: str, value: Any) -> Iterator[tuple[str, int | None, Any]]:
    """Yield (label, instance, entry): the mapping has one object, or a list of them if instances are separate."""
    if type(value) is list:
        for instance, entry in enumerate(value):
            yield label, instance, entry
    elif value is not None:
        yield label, None, value


def _index(entry: Any) -> int | None:
    index = entry.get("index") if type(entry) is dict else None
    return index if type(index) is int and 0 <= index < 2**31 else None


def _images(images: dict[str, Any]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return (role, url) of each image, and everything that is not an image. A label without pixels has null."""
    found: list[tuple[str, str]] = []
    left = {
        key: value
        for key, value in images.items()
        if key not in ("combined", "labeled") and value is not None
    }
    combined, labeled = images.get("combined"), images.get("labeled")
    if type(combined) is dict:
        known = [key for key in COMBINED if key in combined]
        for key in known + sorted(combined.keys() - set(known)):
            if is_url(combined[key]):
                found.append((key, combined[key]))
            elif combined[key] is not None:
                left.setdefault("combined", {})[key] = combined[key]
    elif combined is not None:
        left["combined"] = combined
    for key in sorted(left):
        if is_url(left[key]):
            found.append(("annotations" if key == "url" else key, left.pop(key)))
    seen: set[tuple[str, str]] = set()
    if type(labeled) is dict:
        for label in sorted(labeled):
            for n, url in (
                enumerate(labeled[label]) if type(labeled[label]) is list else [(None, labeled[label])]
            ):
                if is_url(url) and (label, url) not in seen:
                    seen.add((label, url))
                    found.append((f"labeled:{label}" if n is None else f"labeled:{label}:{n}", url))
                elif is_url(url):
                    continue
                elif url is not None:
                    left.setdefault("labeled", {})[label] = labeled[label]
    elif labeled is not None:
        left["labeled"] = labeled
    return found, left


SEGMENTATION = (
    TaskType(
        "segmentannotation",
        "A label for each pixel of an image",
        ("mask",),
        "file",
        parse,
        "mask",
        Parameters(
            required=(("attachment",), ("labels", "instance_labels")),
            optional=(
                "annotation_attributes",
                "allow_unlabeled",
                "allow_parent_labels",
                "context_attachments",
            ),
            max_items={"labels": 50, "instance_labels": 10},
            attachment_types=("image",),
            hypothesis="segmentation",
            refused=("layers",),
        ),
    ),
)
