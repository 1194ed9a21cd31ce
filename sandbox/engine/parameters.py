"""Check a request for a task as Scale does, and split it into the task's own fields and its `params`.

The tables of each task type are those of `TaskType.request`; this module enforces them, in Scale's wording.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from sandbox.errors import ScaleError, invalid
from scale.parameters import MAX_METADATA_BYTES, MAX_TAGS, check_parameters
from scale.task_types import task_type
from scale.task_types.request import TASK_FIELDS, Parameters

NUMBERS = frozenset(
    [
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
)
BOOLEANS = frozenset(
    [
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
)
TEXTS = ("attachment", "callback_url", "instruction", "unique_id", "project", "batch")


class CheckedRequest(NamedTuple):
    """Hold a valid request: the fields of the task itself, and the type's own `params`."""

    general: dict[str, Any]
    params: dict[str, Any]


def find_rules(type_name: str) -> Parameters:
    """Return the parameter table of a task type. Raises ScaleError (400) for an unknown type."""
    known = task_type(type_name)
    if known.name != type_name or known.request is None:
        raise invalid(f'"{type_name}" is not a valid task type')
    return known.request


def check_request(
    type_name: str, request: Mapping[str, Any], inherited: Mapping[str, Any] | None = None
) -> CheckedRequest:
    """Check a request for a task of this type with the parameters `inherited` from its project.

    The task's own parameters win; the project's instruction is appended to the task's own. Numbers sent as text become
    numbers, as Scale echoes them. Raises ScaleError (400).
    """
    rules = find_rules(type_name)
    own = {name: value for name, value in request.items() if value is not None}
    merged = {**(inherited or {}), **own}
    if inherited and "instruction" in inherited and "instruction" in own:
        merged["instruction"] = f"{own['instruction']}\n{inherited['instruction']}"
    known = rules.names
    merged = {name: _parse_value(name, value, is_known=name in known) for name, value in merged.items()}
    for names in rules.required:
        if not any(_has_value(merged.get(name)) for name in names):
            raise invalid(" or ".join(f'"{name}"' for name in names) + " is required")
    # The project's parameters are already merged, so it cannot supply a required one any more.
    alone = {name: value for name, value in merged.items() if name not in ("project", "batch")}
    for field, message, warning in check_parameters(type_name, alone):
        if not warning:
            raise invalid(f'"{field}" {message}' if field else message)
    general = general_parameters(merged)
    if rules.takes_layers and isinstance(merged.get("layers"), dict):
        _check_layers(merged["layers"])
    _check_dependents(merged.get("dependents"))
    if type_name == "transcription" and "repeatable_fields" in merged:
        # Scale shows each as an object with the key description, even if the request had a text.
        merged["repeatable_fields"] = {
            name: {"description": field} if isinstance(field, str) else field
            for name, field in merged["repeatable_fields"].items()
        }
    return CheckedRequest(general, {name: value for name, value in merged.items() if name not in TASK_FIELDS})


def general_parameters(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the TASK_FIELDS of a request, each checked and parsed. Raises ScaleError (400)."""
    general = {
        name: _parse_value(name, request[name]) for name in TASK_FIELDS if request.get(name) is not None
    }
    if general.get("callback_url") == "":
        del general["callback_url"]
    for name, check in _CHECKS.items():
        if name in general:
            general[name] = check(general[name])
    return general


def check_tags(tags: Any) -> list[str]:
    """Return the tags without duplicates, in order. Raises ScaleError (400)."""
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise invalid('"tags" must be an array of strings')
    unique = list(dict.fromkeys(tags))
    if len(unique) > MAX_TAGS:
        raise invalid(f'"tags" must contain less than or equal to {MAX_TAGS} items')
    return unique


def check_metadata(metadata: Any) -> dict[str, Any]:
    """Return the metadata if it is an object of at most 10 KB. Raises ScaleError (400)."""
    if not isinstance(metadata, dict):
        raise invalid('"metadata" must be an object')
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        raise invalid('"metadata" must not be larger than 10KB')
    return metadata


def check_unique_id(unique_id: Any) -> str:
    """Return the unique_id if it is a text that is not empty. Raises ScaleError (400)."""
    if not isinstance(unique_id, str):
        raise invalid('"unique_id" must be a string' if unique_id is not None else '"unique_id" is required')
    if not unique_id:
        raise invalid('"unique_id" is not allowed to be empty')
    return unique_id


def check_callback_url(url: Any, name: str = "callback_url") -> str:
    """Return a URL with its scheme, or an e-mail address. Raises ScaleError (400)."""
    if not isinstance(url, str) or not re.match(r"(https?://[^\s/]+|[^\s@/]+@[^\s@/]+$)", url, re.IGNORECASE):
        raise invalid(f'"{name}" must be a valid uri or an email address')
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise invalid(f'"{name}" must be a valid uri or an email address') from None
    return url


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "metadata": check_metadata,
    "callback_url": check_callback_url,
    "unique_id": check_unique_id,
    "tags": check_tags,
}


def _check_dependents(dependents: Any) -> None:
    """Check dependents when their task is created: later there is no request to answer. Raises ScaleError (400)."""
    if dependents is None:
        return
    definitions = dependents.get("defs", []) if isinstance(dependents, dict) else None
    if not isinstance(definitions, list):
        raise invalid('"dependents" must be an object with "defs", an array')
    for definition in definitions:
        if not isinstance(definition, dict) or not isinstance(definition.get("type"), str):
            raise invalid('"dependents.defs" must be an array of objects with "type"')
        find_rules(definition["type"])
        general_parameters(definition)


def is_true(flag: Any) -> bool:
    """Return whether a flag is set; forms and queries send it as text."""
    return str(flag).lower() in ("true", "1")


def _has_value(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _parse_value(name: str, value: Any, is_known: bool = True) -> Any:
    """Return a value in the form of its parameter; numbers and flags may be sent as text.

    Raises ScaleError (400) for another form, unless the table of the type does not know the parameter.
    """
    try:
        return _parse_known_value(name, value)
    except ScaleError:
        if is_known:
            raise
        return value


def _parse_known_value(name: str, value: Any) -> Any:
    if name in NUMBERS:
        return _parse_number(name, value)
    if name in BOOLEANS and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if name in BOOLEANS and not isinstance(value, bool):
        raise invalid(f'"{name}" must be a boolean')
    if name in TEXTS and not isinstance(value, str):
        raise invalid(f'"{name}" must be a string')
    if name == "tags" and isinstance(value, str):
        return [value]
    return value


def _parse_number(name: str, value: Any) -> int | float:
    """Return a finite number that may be sent as text. Raises ScaleError (400)."""
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


def _check_layers(layers: Mapping[str, Any]) -> None:
    """Check that each element has the form of a response's annotation. Raises ScaleError (400)."""
    required_keys = {"boxes": ("left", "top", "width", "height")}
    for name, elements in layers.items():
        for position, element in enumerate(elements if isinstance(elements, list) else ()):
            where = f"layers.{name}[{position}]"
            if not isinstance(element, dict):
                raise invalid(f'"{where}" must be of type object')
            for key in required_keys.get(name, ("vertices",)):
                if key not in element:
                    raise invalid(f'"{where}.{key}" is required')
            vertices = element.get("vertices", [])
            if not isinstance(vertices, list) or not all(isinstance(vertex, dict) for vertex in vertices):
                raise invalid(f'"{where}.vertices" must be an array of objects')
            if name == "cuboids" and not all("description" in vertex for vertex in vertices):
                raise invalid(f'"{where}.vertices.description" is required')
