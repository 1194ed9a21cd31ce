"""What Scale's parameter tables ask of a request and refuse, known before it is sent. Pure data and one pass over it.

Source: the parameter tables of each task type's documentation. Where they are silent, so is this.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple


class Unknown(Enum):
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
LAYERS = ("boxes", "polygons", "lines", "cuboids")
ATTRIBUTE_TYPES = ("category", "number", "angle", "text", "x_line", "y_line", "linked")


class Parameters(NamedTuple):
    """The table of one task type."""

    type: str
    required: tuple[tuple[str, ...], ...] = ()  # of each group one must be there
    at_most: Mapping[str, int] = {}  # longest list
    attachment_types: tuple[str, ...] = ()  # empty: not said
    layers: str | None = (
        None  # objects | file (one address) | on images (with attachment_type image) | None: not taken
    )
    hypothesis: str | None = None  # annotations | segmentation | file | None: not taken
    base_annotations: bool = False
    open: bool = False  # the table is not published whole: what it does not name may still be taken


_ON_IMAGE = (("attachment",), ("objects_to_annotate",))
_SIX = {"objects_to_annotate": 6}
_IMAGE = ("image",)
_ANY_FILE = ("text", "image", "video", "audio", "website", "pdf")
_FILE = ("attachment", "attachments")
_VIDEO = ("image", "video")

TABLES: tuple[Parameters, ...] = (
    Parameters("annotation", _ON_IMAGE, _SIX, _IMAGE, "objects"),
    Parameters("pointannotation", _ON_IMAGE, _SIX, _IMAGE, "objects"),
    Parameters("lineannotation", _ON_IMAGE, {"objects_to_annotate": 3}, _IMAGE, "objects"),
    Parameters("polygonannotation", _ON_IMAGE, _SIX, _IMAGE, "objects"),
    Parameters("cuboidannotation", _ON_IMAGE, _SIX, _IMAGE, "objects"),
    Parameters("imageannotation", (("attachment",), ("geometries",)), {}, _IMAGE, "objects", "annotations", True),
    Parameters(
        "segmentannotation",
        (("attachment",), ("labels", "instance_labels")),
        {"labels": 50, "instance_labels": 10},
        _IMAGE,
        hypothesis="segmentation",
    ),
    Parameters("videoannotation", (_FILE, ("geometries",)), {}, _VIDEO, "file", "file", True),
    Parameters("videoplaybackannotation", (_FILE, ("geometries",)), {}, _VIDEO, "file", "file", True),
    Parameters(
        "categorization", (("attachment",), ("categories",), ("instruction",)), {}, _ANY_FILE, "on images"
    ),
    Parameters("comparison", (("attachments",), ("choices", "fields")), {}, _ANY_FILE),
    Parameters("transcription", (("attachment",), ("fields", "repeatable_fields")), {}, _ANY_FILE),
    Parameters("datacollection", (("attachment",), ("fields",)), open=True),
    Parameters("audiotranscription", (("attachment",),), open=True),
    Parameters("namedentityrecognition", (("text",), ("labels",)), open=True),
    Parameters("documenttranscription", (_FILE, ("features",)), open=True),
    Parameters("documentmodel", (_FILE,), open=True),
    Parameters("lidarannotation", (("attachments",), ("labels",)), open=True),
    Parameters("lidarsegmentation", (("attachments", "lidar_task"), ("labels",)), open=True),
    Parameters("lidarlinking", (("attachments", "lidar_task"),), open=True),
    *(
        Parameters(name, open=True)
        for name in (
            "lidartopdown", "sensorfusion", "laneannotation", "videoboxannotation", "videocuboidannotation",
            "federal2dvideoannotation", "textcollection", "chat", "chatexperimental", "chatlite", "multichat", "multistage",
        )
    ),
)  # fmt: skip
_BY_TYPE = {table.type: table for table in TABLES}
_OPEN = Parameters("", open=True)

# What a project can't supply for its tasks: each task is about its own file.
OF_THE_TASK = {"attachment", "attachments", "text", "lidar_task"}


class Problem(NamedTuple):
    """What Scale would refuse. `field` is the path inside of the request, with dots; empty: the request as a whole."""

    field: str
    message: str


def parameters(task_type: str) -> Parameters:
    """The table of a task type; one that asks for nothing where the type is not known here."""
    return _BY_TYPE.get(task_type, _OPEN)


def problems(task_type: str, params: Mapping[str, Any]) -> list[str]:
    """What Scale would refuse in this request (its whole body), in sentences; empty when nothing is known against it."""
    return [f"{field}: {message}" if field else message for field, message in findings(task_type, params)]


def findings(task_type: str, params: Mapping[str, Any]) -> list[Problem]:
    """As `problems`, each with its field. UNKNOWN values count as given, and are not looked into."""
    table = parameters(task_type)
    given = {
        name: value for name, value in params.items() if value is not None and value != "" and value != []
    }
    return [
        *_required(table, given),
        *_forms(table, given),
        *_lists(table, given),
        *_attachments(table, given),
        *_general(given),
        *_bounds("", given),
        *_geometries(given.get("geometries")),
        *_attributes(given.get("annotation_attributes")),
        *_layers(table, given),
        *_prelabels(table, given),
    ]


def _required(table: Parameters, given: Mapping[str, Any]) -> Iterator[Problem]:
    by_project = "project" in given or "batch" in given
    for names in table.required:
        if by_project and not OF_THE_TASK & set(names):
            continue  # the project's own parameters may say it
        if not any(name in given for name in names):
            yield Problem(
                names[0] if len(names) == 1 else "", f"{' or '.join(names)} is required for {table.type}"
            )


_LIST, _OBJECT, _TEXT, _FLAG = "a list", "an object", "text", "true or false"
_FORMS: Mapping[str, tuple[str, ...]] = {
    _LIST: (
        "attachments", "categories", "choices", "context_attachments", "events_to_annotate", "features", "instance_labels",
        "labels", "objects_to_annotate", "tags",
    ),
    _OBJECT: (
        "annotation_attributes", "base_annotations", "category_ids", "fields", "geometries", "hypothesis", "layers", "metadata",
        "repeatable_fields",
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


def _forms(table: Parameters, given: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in given.items():
        form = _FORM.get(name)
        if name == "fields" and table.type == "textcollection":
            form = _LIST  # of its fields, each with its field_id; elsewhere an object from key to description
        if form and value is not UNKNOWN and not _HAS_FORM[form](value):
            yield Problem(name, f"expected {form}")


def _lists(table: Parameters, given: Mapping[str, Any]) -> Iterator[Problem]:
    for name, most in table.at_most.items():
        value = given.get(name)
        if isinstance(value, list) and len(value) > most:
            yield Problem(name, f"has {len(value)}; {table.type} takes at most {most}")
    for name in ("objects_to_annotate", "labels", "instance_labels", "categories"):
        yield from _labels(name, given.get(name))


def _labels(field: str, labels: Any) -> Iterator[Problem]:
    """Labels are texts, or objects with `choice`. Source: docs "LabelDescription"."""
    if not isinstance(labels, list):
        return
    for position, label in enumerate(labels):
        if isinstance(label, dict):
            if not label.keys() & {"choice", "name", "label", "value"}:
                yield Problem(f"{field}.{position}", "expected `choice`, the label's name")
            yield from _labels(f"{field}.{position}.subchoices", label.get("subchoices"))
        elif not isinstance(label, str | list) and label is not UNKNOWN:
            yield Problem(f"{field}.{position}", "expected text, or an object with `choice`")


def _attachments(table: Parameters, given: Mapping[str, Any]) -> Iterator[Problem]:
    kind = given.get("attachment_type")
    if table.attachment_types and isinstance(kind, str) and kind not in table.attachment_types:
        yield Problem(
            "attachment_type", f"{table.type} takes {' or '.join(table.attachment_types)}, not {kind!r}"
        )
    if table.type == "videoannotation":
        if kind == "image" and "attachments" not in given:
            yield Problem("attachments", "is required with attachment_type image")
        if kind == "video" and "attachments" in given:
            yield Problem(
                "attachments", "must be left out with attachment_type video: the video is the `attachment`"
            )
    if table.type == "lidarsegmentation" and "lidar_task" in given and "attachments" in given:
        yield Problem("attachments", "must be left out with lidar_task, which brings its own")
    contexts = given.get("context_attachments")
    for position, context in enumerate(contexts if isinstance(contexts, list) else ()):
        if context is UNKNOWN:
            continue
        address = context.get("attachment") if isinstance(context, dict) else None
        if address is None:
            yield Problem(f"context_attachments.{position}", "expected an object with `attachment`")
        elif address is not UNKNOWN and address == given.get("attachment"):
            yield Problem(f"context_attachments.{position}", "must not be the attachment of the task itself")


def _general(given: Mapping[str, Any]) -> Iterator[Problem]:
    tags, metadata = given.get("tags"), given.get("metadata")
    if isinstance(tags, list) and len(tags) > MAX_TAGS:
        yield Problem("tags", f"has {len(tags)}; a task takes at most {MAX_TAGS}")
    if isinstance(metadata, dict) and len(json.dumps(metadata, default=str).encode()) > MAX_METADATA_BYTES:
        yield Problem("metadata", "is larger than 10 KB")
    priority, urgency = _number(given.get("priority")), given.get("urgency")
    if priority is not None and priority not in PRIORITIES:
        yield Problem("priority", f"expected 10, 20 or 30, not {given['priority']!r}")
    if isinstance(urgency, str) and urgency not in URGENCIES:
        yield Problem("urgency", f"expected standard or express, not {urgency!r}")
    ids, categories = given.get("category_ids"), given.get("categories")
    if isinstance(ids, dict) and isinstance(categories, list) and UNKNOWN not in categories:
        for key, category in ids.items():
            if category is not UNKNOWN and category not in categories:
                yield Problem(f"category_ids.{key}", f"{category!r} is none of the categories")


def _number(value: Any) -> float | None:
    """A number, also one written as text, as Scale takes it; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _bounds(prefix: str, given: Mapping[str, Any]) -> Iterator[Problem]:
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
            yield Problem(prefix + name, f"expected a number, not {value!r}")
        elif number < 0:
            yield Problem(prefix + name, "must not be negative")
    for least, most in (("min_vertices", "max_vertices"), ("min_annotations", "max_annotations")):
        low, high = _number(given.get(least)), _number(given.get(most))
        unlimited = most == "max_annotations" and high == 0
        if low is not None and high is not None and high < low and not unlimited:
            yield Problem(prefix + most, f"must be at least {least}")


def _geometries(geometries: Any) -> Iterator[Problem]:
    for name, geometry in geometries.items() if isinstance(geometries, dict) else ():
        field = f"geometries.{name}"
        if name not in GEOMETRIES:
            yield Problem(field, f"expected one of {', '.join(GEOMETRIES)}")
        elif isinstance(geometry, dict):
            yield from _labels(f"{field}.objects_to_annotate", geometry.get("objects_to_annotate"))
            yield from _bounds(f"{field}.", geometry)
        elif geometry is not UNKNOWN:
            yield Problem(field, "expected an object")


def _attributes(attributes: Any) -> Iterator[Problem]:
    """Source: docs "Annotation Attributes"; Scale refuses conditions that form a circle."""
    if not isinstance(attributes, dict):
        return
    asks: dict[str, set[str]] = {}
    for name, attribute in attributes.items():
        field = f"annotation_attributes.{name}"
        if attribute is UNKNOWN:
            continue
        if not isinstance(attribute, dict):
            yield Problem(field, "expected an object")
            continue
        kind = attribute.get("type", "category")
        if kind is not UNKNOWN and kind not in ATTRIBUTE_TYPES:
            yield Problem(f"{field}.type", f"expected one of {', '.join(ATTRIBUTE_TYPES)}")
        low, high = _number(attribute.get("min")), _number(attribute.get("max"))
        if low is not None and high is not None and high < low:
            yield Problem(f"{field}.max", "must be at least min")
        asks[name] = _asked(attribute.get("conditions"))
    if circle := _circle(asks):
        yield Problem(f"annotation_attributes.{circle[0]}.conditions", f"form a circle: {' → '.join(circle)}")


def _asked(conditions: Any) -> set[str]:
    """The attributes that a condition asks about: one object, or a list of them."""
    found = conditions.get("attribute_conditions") if isinstance(conditions, dict) else None
    each = found if isinstance(found, list) else [found]
    return {name for condition in each if isinstance(condition, dict) for name in condition}


def _circle(asks: Mapping[str, set[str]]) -> list[str] | None:
    """A way from an attribute back to itself."""
    free: set[str] = set()  # leads into no circle
    for start in asks:
        way: list[str] = [start]
        left = [sorted(asks[start])]
        while left:
            if not left[-1]:
                free.add(way.pop())
                left.pop()
                continue
            name = left[-1].pop()
            if name in way:
                return [*way[way.index(name) :], name]
            if name in asks and name not in free:
                way.append(name)
                left.append(sorted(asks[name]))
    return None


def _layers(table: Parameters, given: Mapping[str, Any]) -> Iterator[Problem]:
    layers = given.get("layers")
    if layers is None:
        return
    if table.layers is None:
        if not table.open:
            yield Problem("layers", f"{table.type} takes no layers")
    elif table.layers == "on images" and given.get("attachment_type") not in ("image", UNKNOWN):
        yield Problem("layers", f"{table.type} takes layers only with attachment_type image")
    elif isinstance(layers, dict):
        known = ("url",) if table.layers == "file" else LAYERS
        for name, elements in layers.items():
            if name not in known:
                yield Problem(f"layers.{name}", f"{table.type} takes {', '.join(known)}")
            elif name != "url" and not isinstance(elements, list) and elements is not UNKNOWN:
                yield Problem(f"layers.{name}", "expected a list")


def _prelabels(table: Parameters, given: Mapping[str, Any]) -> Iterator[Problem]:
    """hypothesis and base_annotations must have the form of the task's own response."""
    hypothesis, base = given.get("hypothesis"), given.get("base_annotations")
    if hypothesis is not None and table.hypothesis is None and not table.open:
        yield Problem("hypothesis", f"{table.type} takes no hypothesis")
    elif isinstance(hypothesis, dict) and table.hypothesis is not None:
        yield from _form_of_response("hypothesis", hypothesis, table.hypothesis)
    if base is not None and not table.base_annotations and not table.open:
        yield Problem("base_annotations", f"{table.type} takes no base_annotations")
    elif isinstance(base, dict) and table.base_annotations and "annotations" not in base:
        yield Problem("base_annotations", "expected `annotations`, in the form of the response")


def _form_of_response(field: str, value: Mapping[str, Any], form: str) -> Iterator[Problem]:
    annotations = value.get("annotations")
    if annotations is UNKNOWN:
        return
    if form == "annotations" and not isinstance(annotations, list):
        yield Problem(field, "expected `annotations`, a list in the form of the response")
    elif form == "file" and not (isinstance(annotations, dict) and "url" in annotations):
        yield Problem(field, "expected `annotations` with the `url` of a file in the form of the response")
    elif form == "segmentation":
        combined = annotations.get("combined") if isinstance(annotations, dict) else None
        if combined is not UNKNOWN and not (isinstance(combined, dict) and combined.get("indexedImage")):
            yield Problem(field, "expected annotations.combined.indexedImage")
        if not value.get("labelMapping"):
            yield Problem(field, "expected labelMapping")
