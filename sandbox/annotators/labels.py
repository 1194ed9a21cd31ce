"""Read the label set of a task: texts and nested LabelDescriptions, down to the labels that a result may have."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Label(NamedTuple):
    """Hold a label. With `instance` each object of it has a mask of its own (segmentation)."""

    name: str
    instance: bool  # each object of this label gets a mask of its own (segmentation)


def label_set(described: Any, *, parents: bool = False) -> list[Label]:
    """Return the leaf labels in order, each once; with `parents` (allow_parent_labels) also the inner ones.

    Accepts texts, `{choice, subchoices, instance_label, display}` to any depth, `{name}` or `{label}` objects, and the
    nested lists of the newer examples. A subchoice inherits instance_label. Source: docs, "Label Nesting and Options".
    """
    return list({label.name: label for label in _iter_labels(described, parents, instance=False)}.values())


def label_names(described: Any, *, parents: bool = False) -> list[str]:
    """Return the names of the label set."""
    return [label.name for label in label_set(described, parents=parents)]


def _iter_labels(described: Any, parents: bool, instance: bool) -> Iterator[Label]:
    if isinstance(described, str):
        yield Label(described, instance)
    elif isinstance(described, list):
        for entry in described:
            yield from _iter_labels(entry, parents, instance)
    elif isinstance(described, dict):
        name = next(
            (described[key] for key in ("choice", "name", "label", "value") if key in described), None
        )
        instance = bool(described.get("instance_label", instance))
        below = described.get("subchoices") or []
        if isinstance(name, str) and (parents or not below):
            yield Label(name, instance)
        yield from _iter_labels(below, parents, instance)
