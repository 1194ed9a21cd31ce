"""Checks a request against the parameter table of its task type before it is sent.

The tables are `TaskType.request`. What they do not document is never an error; a parameter that a complete table does not
list is a warning.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from scale.layers import LAYER_KEYS
from scale.task_types import task_type
from scale.task_types.request import Parameters


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN  # a value that is there, and not known yet

MAX_TAGS = 5
MAX_METADATA_BYTES = 10 * 1024
PRIORITIES = (10, 20, 30)
URGENCIES = (
    "standard",
    "express",
    "immediate",
    "day",
    "week",
)  # the last three until 2017; still taken in 2019
GEOMETRIES = ("box", "polygon", "line", "point", "cuboid", "ellipse")
ATTRIBUTE_TYPES = ("category", "number", "angle", "text", "x_line", "y_line", "linked")


# What a project can't supply for its tasks: each task is about its own file.
OF_THE_TASK = {"attachment", "attachments", "text", "lidar_task"}


class ParameterProblem(NamedTuple):
    """A fault of a request. `field` is the path inside of the request, with dots; empty: the request as a whole.

    warning: Scale may accept it; only its documentation does not mention it.
    """

    field: str
    message: str
    warning: bool = False


def problems(type_name: str, params: Mapping[str, Any]) -> list[str]:
    """Return what Scale would refuse in this request (its whole body), as sentences."""
    return [
        f"{problem.field}: {problem.message}" if problem.field else problem.message
        for problem in check_parameters(type_name, params)
        if not problem.warning
    ]


def check_parameters(type_name: str, params: Mapping[str, Any]) -> list[ParameterProblem]:
    """Return what Scale would refuse in this request, and warnings. UNKNOWN values count as given and are not checked."""
    known = task_type(type_name)
    table = known.request
    if table is None:
        return [ParameterProblem("", f"Scale's documented API creates no tasks of type {type_name}", True)]
    given = {
        name: value for name, value in params.items() if value is not None and value != "" and value != []
    }
    return [
        *_required(known.name, table, given),
        *_forms(known.name, table, given),
        *_lists(known.name, table, given),
        *_attachments(known.name, table, given),
        *_general(given),
        *_bounds("", given),
        *_geometries(given.get("geometries")),
        *_attributes(given.get("annotation_attributes")),
        *_layers(known.name, table, given),
        *_prelabels(table, given),
        *_unlisted(known.name, table, given),
    ]


def _required(name: str, table: Parameters, given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    by_project = "project" in given or "batch" in given
    for names in table.required:
        if by_project and not OF_THE_TASK & set(names):
            continue  # the project's own parameters may say it
        if not any(name in given for name in names):
            yield ParameterProblem(
                names[0] if len(names) == 1 else "", f"{' or '.join(names)} is required for {name}"
            )


_LIST, _OBJECT, _TEXT, _FLAG = "a list", "an object", "text", "true or false"
_FORMS: Mapping[str, tuple[str, ...]] = {
    _LIST: (
        "attachments", "categories", "choices", "context_attachments", "events_to_annotate", "features", "instance_labels",
        "labels", "objects_to_annotate", "tags",
    ),
    _OBJECT: (
        "annotation_attributes", "base_annotations", "category_ids", "fields", "geometries", "hypothesis", "layers", "metadata",
        "repeatable_fields", "taxonomies",
    ),
    _TEXT: ("attachment_type", "batch", "instruction", "lidar_task", "project", "text", "urgency"),
    _FLAG: ("allow_multiple", "allow_unlabeled", "splines", "with_labels"),
}  # fmt: skip
_HAS_FORM: Mapping[str, Callable[[Any], bool]] = {
    _LIST: lambda value: isinstance(value, list),
    _OBJECT: lambda value: isinstance(value, dict),
    _TEXT: lambda value: isinstance(value, str),
    _FLAG: lambda value: isinstance(value, bool) or value in ("true", "false"),  # forms send text
}
_FORM = {name: form for form, names in _FORMS.items() for name in names}


def _forms(type_name: str, table: Parameters, given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    """Check the JSON types; of a parameter that the table does not name, a type of its own may be right."""
    for name, value in given.items():
        form = _FORM.get(name)
        if name == "fields" and type_name == "textcollection":
            form = _LIST  # of its fields, each with its field_id; elsewhere an object from key to description
        if form and value is not UNKNOWN and not _HAS_FORM[form](value):
            yield ParameterProblem(name, f"expected {form}", warning=name not in table.names)


def _lists(name: str, table: Parameters, given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    for key, most in table.max_items.items():
        value = given.get(key)
        if isinstance(value, list) and len(value) > most:
            yield ParameterProblem(key, f"has {len(value)}; {name} takes at most {most}")
    for key in ("objects_to_annotate", "labels", "instance_labels", "categories"):
        yield from _labels(key, given.get(key))


def _labels(field: str, labels: Any) -> Iterator[ParameterProblem]:
    """Check labels: texts, or objects with `choice`. Source: docs "LabelDescription"."""
    if not isinstance(labels, list):
        return
    for position, label in enumerate(labels):
        if isinstance(label, dict):
            if not label.keys() & {"choice", "name", "label", "value"}:
                yield ParameterProblem(f"{field}.{position}", "expected `choice`, the label's name")
            yield from _labels(f"{field}.{position}.subchoices", label.get("subchoices"))
        elif not isinstance(label, str | list) and label is not UNKNOWN:
            yield ParameterProblem(f"{field}.{position}", "expected text, or an object with `choice`")


def _attachments(name: str, table: Parameters, given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    kind = given.get("attachment_type")
    if table.attachment_types and isinstance(kind, str) and kind not in table.attachment_types:
        yield ParameterProblem(
            "attachment_type", f"{name} takes {' or '.join(table.attachment_types)}, not {kind!r}"
        )
    if name == "videoannotation":
        if kind == "image" and "attachments" not in given:
            yield ParameterProblem("attachments", "is required with attachment_type image")
        if kind == "video" and "attachments" in given:
            yield ParameterProblem(
                "attachments", "must be left out with attachment_type video: the video is the `attachment`"
            )
    if name == "lidarsegmentation" and "lidar_task" in given and "attachments" in given:
        yield ParameterProblem("attachments", "must be left out with lidar_task, which brings its own")
    contexts = given.get("context_attachments")
    for position, context in enumerate(contexts if isinstance(contexts, list) else ()):
        if context is UNKNOWN:
            continue
        address = context.get("attachment") if isinstance(context, dict) else None
        if address is None:
            yield ParameterProblem(f"context_attachments.{position}", "expected an object with `attachment`")
        elif address is not UNKNOWN and address == given.get("attachment"):
            yield ParameterProblem(
                f"context_attachments.{position}", "must not be the attachment of the task itself"
            )


def _general(given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    tags, metadata = given.get("tags"), given.get("metadata")
    if isinstance(tags, list) and len(tags) > MAX_TAGS:
        yield ParameterProblem("tags", f"has {len(tags)}; a task takes at most {MAX_TAGS}")
    if isinstance(metadata, dict) and len(json.dumps(metadata, default=str).encode()) > MAX_METADATA_BYTES:
        yield ParameterProblem("metadata", "is larger than 10 KB")
    priority, urgency = _number(given.get("priority")), given.get("urgency")
    if priority is not None and priority not in PRIORITIES:
        yield ParameterProblem("priority", f"expected 10, 20 or 30, not {given['priority']!r}")
    if isinstance(urgency, str) and urgency not in URGENCIES:
        yield ParameterProblem("urgency", f"expected standard or express, not {urgency!r}")
    ids, categories = given.get("category_ids"), given.get("categories")
    if isinstance(ids, dict) and isinstance(categories, list) and UNKNOWN not in categories:
        for key, category in ids.items():
            if category is not UNKNOWN and category not in categories:
                yield ParameterProblem(f"category_ids.{key}", f"{category!r} is not one of the categories")


def _number(value: Any) -> float | None:
    """Return a number, also one written as text, as Scale accepts it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _bounds(prefix: str, given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    for name in (
        "min_width",
        "min_height",
        "min_vertices",
        "max_vertices",
        "min_annotations",
        "max_annotations",
    ):
        value = given.get(name)
        if value is None or value is UNKNOWN:
            continue
        number = _number(value)
        if number is None:
            yield ParameterProblem(prefix + name, f"expected a number, not {value!r}")
        elif number < 0:
            yield ParameterProblem(prefix + name, "must not be negative")
    for least, most in (("min_vertices", "max_vertices"), ("min_annotations", "max_annotations")):
        low, high = _number(given.get(least)), _number(given.get(most))
        unlimited = most == "max_annotations" and high == 0
        if low is not None and high is not None and high < low and not unlimited:
            yield ParameterProblem(prefix + most, f"must be at least {least}")


def _geometries(geometries: Any) -> Iterator[ParameterProblem]:
    for name, geometry in geometries.items() if isinstance(geometries, dict) else ():
        field = f"geometries.{name}"
        if name not in GEOMETRIES:
            yield ParameterProblem(field, f"expected one of {', '.join(GEOMETRIES)}")
        elif isinstance(geometry, dict):
            yield from _labels(f"{field}.objects_to_annotate", geometry.get("objects_to_annotate"))
            yield from _bounds(f"{field}.", geometry)
        elif geometry is not UNKNOWN:
            yield ParameterProblem(field, "expected an object")


def _attributes(attributes: Any) -> Iterator[ParameterProblem]:
    """Source: docs "Annotation Attributes"; Scale refuses conditions that form a circle."""
    if not isinstance(attributes, dict):
        return
    conditions: dict[str, set[str]] = {}
    for name, attribute in attributes.items():
        field = f"annotation_attributes.{name}"
        if attribute is UNKNOWN:
            continue
        if not isinstance(attribute, dict):
            yield ParameterProblem(field, "expected an object")
            continue
        kind = attribute.get("type", "category")
        if kind is not UNKNOWN and kind not in ATTRIBUTE_TYPES:
            yield ParameterProblem(f"{field}.type", f"expected one of {', '.join(ATTRIBUTE_TYPES)}")
        low, high = _number(attribute.get("min")), _number(attribute.get("max"))
        if low is not None and high is not None and high < low:
            yield ParameterProblem(f"{field}.max", "must be at least min")
        conditions[name] = _depends_on(attribute.get("conditions"))
    if circle := _circle(conditions):
        yield ParameterProblem(
            f"annotation_attributes.{circle[0]}.conditions", f"form a circle: {' → '.join(circle)}"
        )


def _depends_on(conditions: Any) -> set[str]:
    """Return the attributes that a condition depends on: one object, or a list of them."""
    found = conditions.get("attribute_conditions") if isinstance(conditions, dict) else None
    each = found if isinstance(found, list) else [found]
    return {name for condition in each if isinstance(condition, dict) for name in condition}


def _circle(conditions: Mapping[str, set[str]]) -> list[str] | None:
    """Return a chain of conditions from an attribute back to itself, or None."""
    free: set[str] = set()  # leads into no circle
    for start in conditions:
        way: list[str] = [start]
        left = [sorted(conditions[start])]
        while left:
            if not left[-1]:
                free.add(way.pop())
                left.pop()
                continue
            name = left[-1].pop()
            if name in way:
                return [*way[way.index(name) :], name]
            if name in conditions and name not in free:
                way.append(name)
                left.append(sorted(conditions[name]))
    return None


def _layers(name: str, table: Parameters, given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    layers = given.get("layers")
    if layers is None:
        return
    if "layers" in table.refused:
        yield ParameterProblem("layers", f"{name} takes no layers")
    elif table.layers == "on images" and given.get("attachment_type") not in ("image", UNKNOWN):
        yield ParameterProblem("layers", f"{name} takes layers only with attachment_type image")
    elif isinstance(layers, dict) and table.layers is not None:
        keys = ("url",) if table.layers == "file" else tuple(LAYER_KEYS.values())
        for key, elements in layers.items():
            if key not in keys:
                yield ParameterProblem(f"layers.{key}", f"{name} takes {', '.join(keys)}")
            elif key != "url" and not isinstance(elements, list) and elements is not UNKNOWN:
                yield ParameterProblem(f"layers.{key}", "expected a list")


def _prelabels(table: Parameters, given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    """Check that hypothesis and base_annotations have the form of the task's own response."""
    hypothesis, base = given.get("hypothesis"), given.get("base_annotations")
    if isinstance(hypothesis, dict) and table.hypothesis is not None:
        yield from _form_of_response("hypothesis", hypothesis, table.hypothesis)
    if isinstance(base, dict) and table.takes_base_annotations and "annotations" not in base:
        yield ParameterProblem("base_annotations", "expected `annotations`, in the form of the response")


def _unlisted(name: str, table: Parameters, given: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    """Warn of parameters that the documentation of the type does not list: Scale may take them, or ignore them."""
    if not table.complete:
        return
    for key in sorted(given.keys() - table.names - set(table.refused)):
        yield ParameterProblem(key, f"is not a documented parameter of {name}", warning=True)


def _form_of_response(field: str, value: Mapping[str, Any], form: str) -> Iterator[ParameterProblem]:
    annotations = value.get("annotations")
    if annotations is UNKNOWN:
        return
    if form == "annotations" and not isinstance(annotations, list):
        yield ParameterProblem(field, "expected `annotations`, a list in the form of the response")
    elif form == "file" and not (isinstance(annotations, dict) and "url" in annotations):
        yield ParameterProblem(
            field, "expected `annotations` with the `url` of a file in the form of the response"
        )
    elif form == "segmentation":
        combined = annotations.get("combined") if isinstance(annotations, dict) else None
        if combined is not UNKNOWN and not (isinstance(combined, dict) and combined.get("indexedImage")):
            yield ParameterProblem(field, "expected annotations.combined.indexedImage")
        if not value.get("labelMapping"):
            yield ParameterProblem(field, "expected labelMapping")
