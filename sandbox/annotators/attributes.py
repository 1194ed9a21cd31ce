"""Choose values for `annotation_attributes` that satisfy each definition and its conditions."""

import random
from typing import Any

from sandbox.annotators.labels import label_names
from sandbox.annotators.values import as_bool, as_dict, as_number, number_or_none
from sandbox.annotators.words import make_sentence

Extent = tuple[float, float]
"""Width and height of the annotated shape, pixels."""


def choose_attributes(
    definitions: Any,
    label: str | None,
    rng: random.Random,
    *,
    extent: Extent = (0.0, 0.0),
    known: dict[str, Any] | None = None,
    of_image: bool = False,
) -> dict[str, Any]:
    """Choose values of the attributes that apply to one annotation, in the order of their definitions.

    Linked attributes need the other annotations and are left out here, see `link_attributes`. Values in `known` that are
    still allowed are kept, as in a prelabel. An attribute with `required: false` is sometimes left out. A guess:
    `global: true` marks attributes of the whole image (returned with `of_image`) and `allow_multiple: true` those with an
    array as value; results show both forms, but the parameter names are not documented. Source: docs, "Annotation
    Attributes" (types, conditions).
    """
    asked = {
        name: definition
        for name, definition in as_dict(definitions).items()
        if isinstance(definition, dict) and as_bool(definition.get("global")) == of_image
    }
    known = known or {}
    values: dict[str, Any] = {}
    open_names = list(asked)
    # An attribute may depend on one that is defined after it; what is left at the end has no met condition.
    while ready := [name for name in open_names if _is_ready(asked[name], open_names)]:
        for name in ready:
            open_names.remove(name)
            definition = asked[name]
            if not applies(definition, label, values):
                continue
            if name in known and allows(definition, known[name]):
                values[name] = known[name]
            elif definition.get("required") is not False or rng.random() < 0.8:
                value = _choose_value(definition, rng, extent)
                if value is not None:
                    values[name] = value
    return {name: values[name] for name in asked if name in values}


def applies(definition: dict[str, Any], label: str | None, values: dict[str, Any]) -> bool:
    """Return whether an attribute applies to an annotation with this label and these other values; all conditions must hold.

    Accepts `label_condition` as `{label: text or list}` (docs) and as a bare text or list, `attribute_conditions` as one
    object or a list of objects (docs, newer examples).
    """
    conditions = as_dict(definition.get("conditions"))
    wanted = conditions.get("label_condition")
    if isinstance(wanted, dict):
        wanted = wanted.get("label")
    if wanted is not None and label not in (wanted if isinstance(wanted, list) else [wanted]):
        return False
    return all(_condition_met(values.get(name), wanted) for name, wanted in _attribute_conditions(definition))


def allows(definition: dict[str, Any], value: Any) -> bool:
    """Return whether the definition allows a value."""
    kind = definition.get("type") or "category"
    if kind == "category":
        choices = label_names(definition.get("choices"))
        return all(entry in choices for entry in (value if isinstance(value, list) else [value]))
    if kind in ("number", "angle"):
        low, high = (0, 360) if kind == "angle" else (definition.get("min"), definition.get("max"))
        given = number_or_none(value)
        return (
            given is not None
            and not isinstance(value, str)
            and given >= as_number(low, given)
            and given <= as_number(high, given)
        )
    return kind not in ("text", "linked") or isinstance(value, str)


def link_attributes(annotations: list[dict[str, Any]], definitions: Any, rng: random.Random) -> None:
    """Set the linked attributes of annotations that have a uuid, in place, to the uuid of another annotation.

    With `allowed_labels` only annotations of those labels are linked; without a match the attribute stays unset.
    """
    for name, definition in as_dict(definitions).items():
        if not isinstance(definition, dict) or definition.get("type") != "linked":
            continue
        allowed = label_names(definition.get("allowed_labels"))
        for annotation in annotations:
            others = [
                other["uuid"]
                for other in annotations
                if other is not annotation
                and isinstance(other.get("uuid"), str)
                and (not allowed or other.get("label") in allowed)
            ]
            values = as_dict(annotation.get("attributes"))
            if name not in values and others and applies(definition, annotation.get("label"), values):
                annotation["attributes"] = {**values, name: rng.choice(others)}


def _attribute_conditions(definition: dict[str, Any]) -> list[tuple[str, Any]]:
    conditions = as_dict(definition.get("conditions")).get("attribute_conditions")
    listed = conditions if isinstance(conditions, list) else [conditions]
    return [pair for condition in listed for pair in as_dict(condition).items()]


def _is_ready(definition: dict[str, Any], open_names: list[str]) -> bool:
    """Return whether all attributes that the definition's conditions name have been decided."""
    return not any(name in open_names for name, _ in _attribute_conditions(definition))


def _condition_met(value: Any, wanted: Any) -> bool:
    accepted = wanted if isinstance(wanted, list) else [wanted]
    return value is not None and any(
        entry in accepted for entry in (value if isinstance(value, list) else [value])
    )


def _choose_value(definition: dict[str, Any], rng: random.Random, extent: Extent) -> Any:
    kind = definition.get("type") or "category"
    if kind == "category":
        choices = label_names(definition.get("choices"))
        if not choices:
            return None
        if as_bool(definition.get("allow_multiple")):
            return rng.sample(choices, rng.randint(1, min(3, len(choices))))
        return rng.choice(choices)
    if kind == "number":
        low = number_or_none(definition.get("min"))
        high = number_or_none(definition.get("max"))
        low = (0.0 if high is None or high >= 0 else high - 100) if low is None else low
        high = low + 100 if high is None else high
        return _random_number(low, high, rng) if low <= high else None
    if kind == "angle":
        return round(rng.uniform(0, 360), 1)
    if kind == "text":
        return make_sentence(rng, 4)
    if kind in ("x_line", "y_line"):
        return round(rng.uniform(0, extent[kind == "y_line"]), 2)
    return None


def _random_number(low: float, high: float, rng: random.Random) -> float:
    """Return an integer if the range contains one, else a fraction."""
    first, last = -int(-low // 1), int(high // 1)
    if first <= last:
        return rng.randint(first, last)
    return min(high, max(low, round(rng.uniform(low, high), 6)))
