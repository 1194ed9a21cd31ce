"""What each task type requires and refuses, in Scale's words. Decides nothing but that: no table, no request.

Source: the parameter tables of Scale's documentation of each task type; where it is silent, the checks are light.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from sandbox.errors import invalid

MAX_TAGS = 5
MAX_METADATA_BYTES = 10 * 1024

GENERAL = (
    "callback_url",
    "instruction",
    "metadata",
    "unique_id",
    "tags",
    "project",
    "batch",
    "urgency",
    "priority",
    "clear_unique_id_on_error",
    "project_param_version",
)
"""Parameters of every task type. They stand on the task itself, all others in its `params`."""

URGENCIES = ("standard", "express", "immediate", "day", "week")
"""The last three are those of 2017, which Scale still showed in 2019."""

ANY_FILE = ("text", "image", "video", "audio", "website", "pdf")


class Rules(NamedTuple):
    """`required`: each must be there; of a tuple, one must. `at_most`: the longest array. `layers`: "objects", "file"
    (an address of one file), "on images" or None where the type takes none.
    """

    type: str
    required: tuple[str | tuple[str, ...], ...] = ()
    at_most: Mapping[str, int] = {}
    layers: str | None = None
    attachment_types: tuple[str, ...] | None = None


_FILE = ("attachment", "attachments")
_OBJECTS = ("attachment", "objects_to_annotate")

RULES = (
    Rules("annotation", _OBJECTS, {"objects_to_annotate": 6}, "objects", ("image",)),
    Rules("pointannotation", _OBJECTS, {"objects_to_annotate": 6}, "objects", ("image",)),
    Rules("lineannotation", _OBJECTS, {"objects_to_annotate": 3}, "objects", ("image",)),
    Rules("polygonannotation", _OBJECTS, {"objects_to_annotate": 6}, "objects", ("image",)),
    Rules("cuboidannotation", _OBJECTS, {"objects_to_annotate": 6}, "objects", ("image",)),
    Rules("imageannotation", ("attachment", "geometries"), {}, "objects", ("image",)),
    Rules(
        "segmentannotation", ("attachment", "labels"), {"labels": 50, "instance_labels": 10}, None, ("image",)
    ),
    Rules("videoannotation", (_FILE, "geometries"), {}, "file", ("image", "video")),
    Rules("videoplaybackannotation", (_FILE, "geometries"), {}, "file", ("image", "video")),
    Rules("videoboxannotation", (_FILE,), {}, "file"),
    Rules("videocuboidannotation", (_FILE,), {}, "file"),
    Rules("federal2dvideoannotation", (_FILE,), {}, "file"),
    Rules("laneannotation", (_FILE,)),
    Rules("lidarannotation", ("attachments", "labels")),
    Rules("lidarsegmentation", (("attachments", "lidar_task"), "labels")),
    Rules("lidarlinking", (("attachments", "lidar_task"),)),
    Rules("lidartopdown", (_FILE,)),
    Rules("sensorfusion", (_FILE,)),
    Rules(
        "categorization",
        ("attachment", "categories", "instruction"),
        {},
        "on images",
        ANY_FILE,
    ),
    Rules("comparison", ("attachments", ("choices", "fields")), {}, None, ANY_FILE),
    Rules("transcription", ("attachment", ("fields", "repeatable_fields")), {}, None, ANY_FILE),
    Rules("datacollection", ("attachment", "fields")),
    Rules("audiotranscription", ("attachment",)),
    Rules("documenttranscription", (_FILE, "features")),
    Rules("documentmodel", (_FILE,)),
    Rules("namedentityrecognition", ("text", "labels")),
    Rules("textcollection"),
    Rules("chat"),
    Rules("chatexperimental"),
    Rules("chatlite"),
    Rules("multichat"),
    Rules("multistage"),
)
_RULES = {rules.type: rules for rules in RULES}

TEXTS = (
    "attachment",
    "attachment_type",
    "callback_url",
    "instruction",
    "unique_id",
    "project",
    "batch",
    "urgency",
    "text",
)
LISTS = [
    "attachments",
    "categories",
    "choices",
    "context_attachments",
    "features",
    "instance_labels",
    "labels",
    "objects_to_annotate",
    "tags",
]
OBJECTS = [
    "annotation_attributes",
    "base_annotations",
    "camera_intrinsics",
    "camera_rotation_quaternion",
    "category_ids",
    "geometries",
    "hypothesis",
    "layers",
    "metadata",
    "repeatable_fields",
]
NUMBERS = [
    "camera_height",
    "duration_time",
    "frame_rate",
    "max_annotations",
    "max_distance_meters",
    "max_vertices",
    "meters_per_unit",
    "min_annotations",
    "min_height",
    "min_vertices",
    "min_width",
    "padding",
    "paddingX",
    "paddingY",
    "priority",
    "project_param_version",
    "start_time",
]
BOOLEANS = [
    "allow_multiple",
    "allow_parent_labels",
    "allow_unlabeled",
    "can_add_base_annotations",
    "can_delete_base_annotations",
    "can_edit_base_annotations",
    "clear_unique_id_on_error",
    "integer_pixels",
    "skip_human_transcription",
    "splines",
    "verbatim",
    "with_labels",
]
GEOMETRIES = ("box", "polygon", "line", "point", "cuboid", "ellipse")
LAYERS = {
    "boxes": ("left", "top", "width", "height"),
    "polygons": ("vertices",),
    "lines": ("vertices",),
    "cuboids": ("vertices",),
}
"""What an element of each layer must have."""
ATTRIBUTE_TYPES = ("category", "number", "angle", "text", "x_line", "y_line", "linked")


class Checked(NamedTuple):
    """A request that Scale would take: what stands on the task itself, and the type's own `params`."""

    general: dict[str, Any]
    params: dict[str, Any]


def rules_of(type_name: str) -> Rules:
    """Raises Refused (400) for a type that Scale does not know."""
    if type_name not in _RULES:
        raise invalid(f'"{type_name}" is not a valid task type')
    return _RULES[type_name]


def check(type_name: str, request: Mapping[str, Any], inherited: Mapping[str, Any] | None = None) -> Checked:
    """Take a request for a task of this type, with the parameters `inherited` from its project, or raise Refused (400).

    The task's own parameters win; the project's instruction is appended to the task's own. Texts that hold numbers
    become numbers, as Scale echoes them.
    """
    rules = rules_of(type_name)
    own = {name: value for name, value in request.items() if value is not None}
    merged = {**(inherited or {}), **own}
    if inherited and "instruction" in inherited and "instruction" in own:
        merged["instruction"] = f"{own['instruction']}\n{inherited['instruction']}"
    merged = {name: _formed(name, value) for name, value in merged.items()}
    for required in rules.required:
        names = (required,) if isinstance(required, str) else required
        if not any(_given(merged.get(name)) for name in names):
            raise invalid(" or ".join(f'"{name}"' for name in names) + " is required")
    for name, most in rules.at_most.items():
        if len(merged.get(name, ())) > most:
            raise invalid(f'"{name}" must contain less than or equal to {most} items')
    _check_general(merged)
    _check_attachments(rules, merged)
    _check_labels(merged)
    _check_bounds(merged)
    if "geometries" in merged:
        _check_geometries(merged["geometries"])
    if "layers" in merged:
        _check_layers(rules, merged)
    if "annotation_attributes" in merged:
        _check_attributes(merged["annotation_attributes"])
    if "base_annotations" in merged and "annotations" not in merged["base_annotations"]:
        raise invalid('"base_annotations.annotations" is required')
    if (
        type_name == "imageannotation"
        and "hypothesis" in merged
        and "annotations" not in merged["hypothesis"]
    ):
        raise invalid('"hypothesis.annotations" is required')
    if type_name == "transcription" and "repeatable_fields" in merged:
        # Scale's own task shows each as an object with the key description, also where a text was sent.
        merged["repeatable_fields"] = {
            name: {"description": field} if isinstance(field, str) else field
            for name, field in merged["repeatable_fields"].items()
        }
    return Checked(
        {name: merged[name] for name in GENERAL if name in merged},
        {name: value for name, value in merged.items() if name not in GENERAL},
    )


def check_tags(tags: Iterable[str]) -> list[str]:
    """The tags without doubles, in order."""
    kept = list(dict.fromkeys(tags))
    if not all(isinstance(tag, str) and tag for tag in kept):
        raise invalid('"tags" must be an array of strings')
    if len(kept) > MAX_TAGS:
        raise invalid(f'"tags" must contain less than or equal to {MAX_TAGS} items')
    return kept


def check_metadata(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        raise invalid('"metadata" must be an object')
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        raise invalid('"metadata" must not be larger than 10KB')
    return metadata


def check_unique_id(unique_id: Any) -> str:
    if not isinstance(unique_id, str):
        raise invalid('"unique_id" must be a string' if unique_id is not None else '"unique_id" is required')
    if not unique_id:
        raise invalid('"unique_id" is not allowed to be empty')
    return unique_id


def check_callback_url(url: Any, name: str = "callback_url") -> str:
    """An address with its scheme, or an e-mail address."""
    if not isinstance(url, str) or not re.match(r"(https?://[^\s/]+|[^\s@/]+@[^\s@/]+$)", url, re.IGNORECASE):
        raise invalid(f'"{name}" must be a valid uri or an email address')
    return url


def _given(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _formed(name: str, value: Any) -> Any:
    """The value in the form that the parameter has; what a form or an old client sends as text is read."""
    if name in NUMBERS:
        return _number(name, value)
    if name in BOOLEANS:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise invalid(f'"{name}" must be a boolean')
    elif name in TEXTS and not isinstance(value, str):
        raise invalid(f'"{name}" must be a string')
    elif name in LISTS and not isinstance(value, list):
        if name == "tags" and isinstance(value, str):
            return [value]
        raise invalid(f'"{name}" must be an array')
    elif name in OBJECTS and not isinstance(value, dict):
        raise invalid(f'"{name}" must be of type object')
    return value


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, str):
        try:
            value = int(value) if re.fullmatch(r"\s*-?\d{1,15}\s*", value) else float(value)
        except ValueError:
            value = None
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or value != value
        or abs(value) == float("inf")
    ):
        raise invalid(f'"{name}" must be a number')
    return value


def _check_general(merged: dict[str, Any]) -> None:
    if merged.get("callback_url") == "":
        del merged["callback_url"]
    if "callback_url" in merged:
        check_callback_url(merged["callback_url"])
    if "unique_id" in merged:
        check_unique_id(merged["unique_id"])
    if "metadata" in merged:
        check_metadata(merged["metadata"])
    if "tags" in merged:
        merged["tags"] = check_tags(merged["tags"])
    if merged.get("urgency", "standard") not in URGENCIES:
        raise invalid('"urgency" must be one of [standard, express]')


def _check_attachments(rules: Rules, merged: Mapping[str, Any]) -> None:
    kind = merged.get("attachment_type")
    if rules.attachment_types and kind is not None and kind not in rules.attachment_types:
        raise invalid(f'"attachment_type" must be one of [{", ".join(rules.attachment_types)}]')
    if rules.type == "videoannotation" and kind == "video" and "attachments" in merged:
        raise invalid('"attachments" is not allowed when "attachment_type" is video')
    if rules.type == "videoannotation" and kind == "image" and "attachments" not in merged:
        raise invalid('"attachments" is required when "attachment_type" is image')
    for context in merged.get("context_attachments", ()):
        address = context.get("attachment") if isinstance(context, dict) else context
        if not isinstance(address, str):
            raise invalid('"context_attachments" must contain objects with "attachment"')
        if address == merged.get("attachment"):
            raise invalid('"context_attachments" must not contain the attachment of the task')


def _check_labels(merged: Mapping[str, Any]) -> None:
    for name in ("objects_to_annotate", "labels", "instance_labels", "categories", "choices"):
        for label in merged.get(name, ()):
            if isinstance(label, dict) and not label.keys() & {"choice", "name", "label", "value"}:
                raise invalid(f'"{name}" must contain strings or objects with "choice"')
            if not isinstance(label, str | dict | list):
                raise invalid(f'"{name}" must contain strings or objects with "choice"')


def _check_bounds(merged: Mapping[str, Any]) -> None:
    for name in ("min_width", "min_height", "min_vertices", "min_annotations", "max_annotations"):
        if merged.get(name, 0) < 0:
            raise invalid(f'"{name}" must be larger than or equal to 0')
    if "max_vertices" in merged and merged["max_vertices"] < merged.get("min_vertices", 1):
        raise invalid('"max_vertices" must be larger than or equal to "min_vertices"')
    # A max_annotations of 0 means no limit.
    if 0 < merged.get("max_annotations", 0) < merged.get("min_annotations", 0):
        raise invalid('"max_annotations" must be larger than or equal to "min_annotations"')


def _check_geometries(geometries: Mapping[str, Any]) -> None:
    for name, geometry in geometries.items():
        if name not in GEOMETRIES:
            raise invalid(f'"geometries.{name}" is not allowed')
        if not isinstance(geometry, dict):
            raise invalid(f'"geometries.{name}" must be of type object')
        if not isinstance(geometry.get("objects_to_annotate", []), list):
            raise invalid(f'"geometries.{name}.objects_to_annotate" must be an array')
        _check_labels(geometry)
        bounds = {key: geometry.get(key) for key in ("min_vertices", "max_vertices")}
        _check_bounds({key: bound for key, bound in bounds.items() if isinstance(bound, int | float)})


def _check_layers(rules: Rules, merged: Mapping[str, Any]) -> None:
    layers = merged["layers"]
    if rules.layers is None or (rules.layers == "on images" and merged.get("attachment_type") != "image"):
        raise invalid('"layers" is not allowed')
    if rules.layers == "file":
        if not isinstance(layers.get("url"), str):
            raise invalid('"layers.url" is required')
        return
    for name, elements in layers.items():
        if name not in LAYERS:
            raise invalid(f'"layers.{name}" is not allowed')
        if not isinstance(elements, list):
            raise invalid(f'"layers.{name}" must be an array')
        for position, element in enumerate(elements):
            where = f"layers.{name}[{position}]"
            if not isinstance(element, dict):
                raise invalid(f'"{where}" must be of type object')
            for key in LAYERS[name]:
                if key not in element:
                    raise invalid(f'"{where}.{key}" is required')
            if not isinstance(element.get("vertices", []), list):
                raise invalid(f'"{where}.vertices" must be an array')
            if name == "cuboids":
                for vertex in element["vertices"]:
                    if not isinstance(vertex, dict) or "description" not in vertex:
                        raise invalid(f'"{where}.vertices.description" is required')


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    conditions: dict[str, set[str]] = {}
    for name, attribute in attributes.items():
        where = f"annotation_attributes.{name}"
        if not isinstance(attribute, dict):
            raise invalid(f'"{where}" must be of type object')
        if attribute.get("type", "category") not in ATTRIBUTE_TYPES:
            raise invalid(f'"{where}.type" must be one of [{", ".join(ATTRIBUTE_TYPES)}]')
        low, high = attribute.get("min"), attribute.get("max")
        if isinstance(low, int | float) and isinstance(high, int | float) and high < low:
            raise invalid(f'"{where}.max" must be larger than or equal to "{where}.min"')
        condition = attribute.get("conditions")
        conditions[name] = set(_attributes_in(condition)) if isinstance(condition, dict) else set()
    if circle := _circle(conditions):
        raise invalid(f'"annotation_attributes" has circular attribute_conditions: {" -> ".join(circle)}')


def _attributes_in(conditions: Mapping[str, Any]) -> Iterator[str]:
    """Names of the attributes that a condition, or a list of them, asks about."""
    waiting = [conditions.get("attribute_conditions")]
    while waiting:
        condition = waiting.pop()
        if isinstance(condition, list):
            waiting.extend(condition)
        elif isinstance(condition, dict):
            yield from condition


def _circle(depends_on: Mapping[str, set[str]]) -> list[str] | None:
    """A way from an attribute back to itself, or None. Walked without recursion: a chain may be long."""
    done: set[str] = set()
    for start in depends_on:
        way: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                way.pop()
                done.add(name)
            elif name in way:
                return [*way[way.index(name) :], name]
            elif name in depends_on and name not in done:
                way.append(name)
                stack.append((name, True))
                stack.extend((other, False) for other in sorted(depends_on[name]))
    return None
