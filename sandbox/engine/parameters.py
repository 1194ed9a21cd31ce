"""What a request for a task must be, and what becomes of it: the task's own fields and its `params`.

The tables are those of `TaskType.request`; here they are enforced, with Scale's messages.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from sandbox.errors import invalid
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


class Checked(NamedTuple):
    """A request that Scale would take: what stands on the task itself, and the type's own `params`."""

    general: dict[str, Any]
    params: dict[str, Any]


def rules_of(type_name: str) -> Parameters:
    """Raises ScaleError (400) for a type that Scale does not know."""
    known = task_type(type_name)
    if known.name != type_name or known.request is None:
        raise invalid(f'"{type_name}" is not a valid task type')
    return known.request


def check(type_name: str, request: Mapping[str, Any], inherited: Mapping[str, Any] | None = None) -> Checked:
    """Take a request for a task of this type, with the parameters `inherited` from its project, or raise ScaleError (400).

    The task's own parameters win; the project's instruction is appended to the task's own. Texts that hold numbers
    become numbers, as Scale echoes them.
    """
    rules = rules_of(type_name)
    own = {name: value for name, value in request.items() if value is not None}
    merged = {**(inherited or {}), **own}
    if inherited and "instruction" in inherited and "instruction" in own:
        merged["instruction"] = f"{own['instruction']}\n{inherited['instruction']}"
    merged = {name: _formed(name, value) for name, value in merged.items()}
    for names in rules.required:
        if not any(_given(merged.get(name)) for name in names):
            raise invalid(" or ".join(f'"{name}"' for name in names) + " is required")
    # The project's parameters are in here already, so what is required can't come from it any more.
    alone = {name: value for name, value in merged.items() if name not in ("project", "batch")}
    for field, message, warning in check_parameters(type_name, alone):
        if not warning:
            raise invalid(f'"{field}" {message}' if field else message)
    general = general_of(merged)
    if isinstance(merged.get("layers"), dict):
        _check_layers(merged["layers"])
    _check_dependents(merged.get("dependents"))
    if type_name == "transcription" and "repeatable_fields" in merged:
        # Scale's own task shows each as an object with the key description, also where a text was sent.
        merged["repeatable_fields"] = {
            name: {"description": field} if isinstance(field, str) else field
            for name, field in merged["repeatable_fields"].items()
        }
    return Checked(general, {name: value for name, value in merged.items() if name not in TASK_FIELDS})


def general_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says of the parameters of every task type, each in its form, or ScaleError (400)."""
    general = {name: _formed(name, request[name]) for name in TASK_FIELDS if request.get(name) is not None}
    if general.get("callback_url") == "":
        del general["callback_url"]
    for name, check_one in _CHECKS.items():
        if name in general:
            general[name] = check_one(general[name])
    return general


def check_tags(tags: Any) -> list[str]:
    """The tags without doubles, in order."""
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise invalid('"tags" must be an array of strings')
    kept = list(dict.fromkeys(tags))
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
    """What is wrong in them must be said before their task is done: they are created when nobody is there to be told."""
    if dependents is None:
        return
    definitions = dependents.get("defs", []) if isinstance(dependents, dict) else None
    if not isinstance(definitions, list):
        raise invalid('"dependents" must be an object with "defs", an array')
    for definition in definitions:
        if not isinstance(definition, dict) or not isinstance(definition.get("type"), str):
            raise invalid('"dependents.defs" must be an array of objects with "type"')
        rules_of(definition["type"])
        general_of(definition)


def _given(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _formed(name: str, value: Any) -> Any:
    """The value in the form that the parameter has; what a form or an old client sends as text is read."""
    if name in NUMBERS:
        return _number(name, value)
    if name in BOOLEANS and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if name in BOOLEANS and not isinstance(value, bool):
        raise invalid(f'"{name}" must be a boolean')
    if name in TEXTS and not isinstance(value, str):
        raise invalid(f'"{name}" must be a string')
    if name == "tags" and isinstance(value, str):
        return [value]
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


def _check_layers(layers: Mapping[str, Any]) -> None:
    """Each element in the form of the responses that it comes from."""
    needed = {"boxes": ("left", "top", "width", "height")}
    for name, elements in layers.items():
        for position, element in enumerate(elements if isinstance(elements, list) else ()):
            where = f"layers.{name}[{position}]"
            if not isinstance(element, dict):
                raise invalid(f'"{where}" must be of type object')
            for key in needed.get(name, ("vertices",)):
                if key not in element:
                    raise invalid(f'"{where}.{key}" is required')
            vertices = element.get("vertices", [])
            if not isinstance(vertices, list) or not all(isinstance(vertex, dict) for vertex in vertices):
                raise invalid(f'"{where}.vertices" must be an array of objects')
            if name == "cuboids" and not all("description" in vertex for vertex in vertices):
                raise invalid(f'"{where}.vertices.description" is required')
