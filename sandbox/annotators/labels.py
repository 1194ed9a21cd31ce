"""The label set of a task: plain texts and nested LabelDescriptions, down to the labels that a result may carry."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Label(NamedTuple):
    name: str
    instance: bool  # each object of this label gets a mask of its own (segmentation)


def label_set(described: Any, *, parents: bool = False) -> list[Label]:
    """Leaf labels in their order, each once; with `parents` (allow_parent_labels) also the inner ones.

    Takes texts, `{choice, subchoices, instance_label, display}` to any depth, `{name}`/`{label}` objects and the lists
    within lists of the newer examples. A subchoice inherits instance_label. Source: docs, "Label Nesting and Options".
    """
    return list({label.name: label for label in _walk(described, parents, instance=False)}.values())


def label_names(described: Any, *, parents: bool = False) -> list[str]:
    return [label.name for label in label_set(described, parents=parents)]


def _walk(described: Any, parents: bool, instance: bool) -> Iterator[Label]:
    if isinstance(described, str):
        yield Label(described, instance)
    elif isinstance(described, list):
        for entry in described:
            yield from _walk(entry, parents, instance)
    elif isinstance(described, dict):
        name = next(
            (described[key] for key in ("choice", "name", "label", "value") if key in described), None
        )
        instance = bool(described.get("instance_label", instance))
        below = described.get("subchoices") or []
        if isinstance(name, str) and (parents or not below):
            yield Label(name, instance)
        yield from _walk(below, parents, instance)
