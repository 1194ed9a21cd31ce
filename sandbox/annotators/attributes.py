"""Answers to `annotation_attributes`: values that respect each definition and the conditions under which it is asked."""

import random
from typing import Any

from sandbox.annotators.assignment import mapping, number, truth
from sandbox.annotators.labels import label_names
from sandbox.annotators.words import sentence

Extent = tuple[float, float]
"""Width and height of the annotated shape, pixels."""


def answer_attributes(
    definitions: Any,
    label: str | None,
    die: random.Random,
    *,
    extent: Extent = (0.0, 0.0),
    known: dict[str, Any] | None = None,
    of_image: bool = False,
) -> dict[str, Any]:
    """Values of the attributes that apply to one annotation, in the order of their definitions.

    Linked attributes are left out here (see `link`): they need the other annotations. Values in `known` that are still
    allowed are kept, as one keeps them in a prelabel. An attribute with `required: false` is sometimes left open.
    A guess: `global: true` marks those of the whole image (returned with `of_image`), `allow_multiple: true` those
    answered by an array; both forms of the answers are seen in results, the parameter names are not documented.
    Source: docs, "Annotation Attributes" (types, conditions).
    """
    asked = {
        name: definition
        for name, definition in mapping(definitions).items()
        if isinstance(definition, dict) and truth(definition.get("global")) == of_image
    }
    known = known or {}
    values: dict[str, Any] = {}
    open_names = list(asked)
    # An attribute may depend on one that is defined after it; what is left at the end has no met condition.
    while ready := [name for name in open_names if _settled(asked[name], open_names)]:
        for name in ready:
            open_names.remove(name)
            definition = asked[name]
            if not applies(definition, label, values):
                continue
            if name in known and allows(definition, known[name]):
                values[name] = known[name]
            elif definition.get("required") is not False or die.random() < 0.8:
                value = _value(definition, die, extent)
                if value is not None:
                    values[name] = value
    return {name: values[name] for name in asked if name in values}


def applies(definition: dict[str, Any], label: str | None, values: dict[str, Any]) -> bool:
    """Whether an attribute is asked for an annotation with this label and these other attributes; all conditions hold.

    Takes `label_condition` as `{label: text or list}` (docs) and as a bare text or list, `attribute_conditions` as one
    object or a list of objects (docs, newer examples).
    """
    conditions = mapping(definition.get("conditions"))
    wanted = conditions.get("label_condition")
    if isinstance(wanted, dict):
        wanted = wanted.get("label")
    if wanted is not None and label not in (wanted if isinstance(wanted, list) else [wanted]):
        return False
    return all(_met(values.get(name), wanted) for name, wanted in _attribute_conditions(definition))


def allows(definition: dict[str, Any], value: Any) -> bool:
    """Whether a value is one that the definition allows."""
    kind = definition.get("type") or "category"
    if kind == "category":
        choices = label_names(definition.get("choices"))
        return all(entry in choices for entry in (value if isinstance(value, list) else [value]))
    if kind in ("number", "angle"):
        low, high = (0, 360) if kind == "angle" else (definition.get("min"), definition.get("max"))
        given = number(value)
        return (
            given is not None
            and not isinstance(value, str)
            and given >= number(low, given)
            and given <= number(high, given)
        )
    return kind not in ("text", "linked") or isinstance(value, str)


def link(annotations: list[dict[str, Any]], definitions: Any, die: random.Random) -> None:
    """Fills the linked attributes of annotations that have a uuid, in place: the uuid of another annotation.

    With `allowed_labels` only of those labels; where there is no other one the attribute stays open.
    """
    for name, definition in mapping(definitions).items():
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
            values = mapping(annotation.get("attributes"))
            if name not in values and others and applies(definition, annotation.get("label"), values):
                annotation["attributes"] = {**values, name: die.choice(others)}


def _attribute_conditions(definition: dict[str, Any]) -> list[tuple[str, Any]]:
    conditions = mapping(definition.get("conditions")).get("attribute_conditions")
    listed = conditions if isinstance(conditions, list) else [conditions]
    return [pair for condition in listed for pair in mapping(condition).items()]


def _settled(definition: dict[str, Any], open_names: list[str]) -> bool:
    return not any(name in open_names for name, _ in _attribute_conditions(definition))


def _met(value: Any, wanted: Any) -> bool:
    accepted = wanted if isinstance(wanted, list) else [wanted]
    return value is not None and any(
        entry in accepted for entry in (value if isinstance(value, list) else [value])
    )


def _value(definition: dict[str, Any], die: random.Random, extent: Extent) -> Any:
    kind = definition.get("type") or "category"
    if kind == "category":
        choices = label_names(definition.get("choices"))
        if not choices:
            return None
        if truth(definition.get("allow_multiple")):
            return die.sample(choices, die.randint(1, min(3, len(choices))))
        return die.choice(choices)
    if kind == "number":
        low = number(definition.get("min"))
        high = number(definition.get("max"))
        low = (0.0 if high is None or high >= 0 else high - 100) if low is None else low
        high = low + 100 if high is None else high
        return _between(low, high, die) if low <= high else None
    if kind == "angle":
        return round(die.uniform(0, 360), 1)
    if kind == "text":
        return sentence(die, 4)
    if kind in ("x_line", "y_line"):
        return round(die.uniform(0, extent[kind == "y_line"]), 2)
    return None


def _between(low: float, high: float, die: random.Random) -> float:
    """A whole number where the range has one, else a fraction of it."""
    first, last = -int(-low // 1), int(high // 1)
    if first <= last:
        return die.randint(first, last)
    return min(high, max(low, round(die.uniform(low, high), 6)))
