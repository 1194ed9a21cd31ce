"""The functions that expressions have beside JMESPath's own: plain functions of values, no eval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jmespath import functions

from scale.layers import layers
from workflows.definition.crops import Rect, to_crop
from workflows.definition.recipes import KEY as FILE
from workflows.definition.recipes import recipe_in


def _names(labels: Any) -> set[str]:
    return set(labels) if isinstance(labels, list) else {labels}


def _kept(value: Any, keep: Callable[[dict[str, Any]], bool]) -> Any:
    """Annotations for which `keep` holds, in whatever they come: a list, layers, a hypothesis, base_annotations."""
    if isinstance(value, list):
        return [annotation for annotation in value if isinstance(annotation, dict) and keep(annotation)]
    if isinstance(value.get("annotations", value), dict) and "url" in value.get("annotations", value):
        raise ValueError("what stands in a file can't be filtered here")
    kept = {key: _kept(inner, keep) if isinstance(inner, list) else inner for key, inner in value.items()}
    return {key: inner for key, inner in kept.items() if inner != []}


class Functions(functions.Functions):
    """Each `_func_x` is `x(…)` in an expression."""

    @functions.signature({"types": ["object", "array"]}, {"types": ["string", "array-string"]})
    def _func_only(self, value: Any, labels: Any) -> Any:
        """Only what has this label, or one of these: of annotations, layers, a hypothesis."""
        wanted = _names(labels)
        if isinstance(value, dict) and (made := recipe_in(value.get("url"))):
            return {"url": {FILE: {**made, "labels": sorted(wanted)}}}
        return _kept(value, lambda annotation: annotation.get("label") in wanted)

    @functions.signature({"types": ["object", "array"]}, {"types": ["string", "array-string"]})
    def _func_without(self, value: Any, labels: Any) -> Any:
        """What has none of these labels."""
        unwanted = _names(labels)
        return _kept(value, lambda annotation: annotation.get("label") not in unwanted)

    @functions.signature({"types": ["object", "array"]})
    def _func_as_layers(self, annotations: Any) -> Any:
        """One annotation, or a list of them, as layers."""
        return layers(annotations if isinstance(annotations, list) else [annotations])[0]

    @functions.signature({"types": ["array"]}, {"types": ["number"]})
    def _func_at_frame(self, annotations: list[Any], frame: float) -> list[Any]:
        """The annotations of one frame."""
        return [
            annotation
            for annotation in annotations
            if isinstance(annotation, dict) and annotation.get("frame") == frame
        ]

    @functions.signature({"types": ["object", "array"]}, {"types": ["object"]})
    def _func_into(self, value: Any, crop: Any) -> Any:
        """Annotations or layers in the coordinates of a crop."""
        return to_crop(value, Rect(**crop))

    @functions.signature({"types": ["array"]}, {"types": ["number"]})
    def _func_at(self, values: list[Any], index: float) -> Any:
        """The element with that number, from 0; null beyond the end. (`[…]` takes a written number only.)"""
        return values[int(index)] if 0 <= index < len(values) else None

    @functions.signature({"types": ["number"]}, {"types": ["number"]})
    def _func_round(self, number: float, digits: float) -> float:
        """A number with that many decimals; 0 gives an integer."""
        return round(number, int(digits)) if digits else round(number)

    @functions.signature({"types": ["array"]})
    def _func_unique(self, values: list[Any]) -> list[Any]:
        """Each value once, in the order of its first appearance."""
        found: list[Any] = []
        for value in values:
            if value not in found:
                found.append(value)
        return found

    @functions.signature({"types": ["string"]})
    def _func_lower(self, text: str) -> str:
        """Text in lower case."""
        return text.lower()

    @functions.signature({"types": ["string"]}, {"types": ["string"]}, {"types": ["string"]})
    def _func_replace(self, text: str, old: str, new: str) -> str:
        """Text with every `old` replaced by `new`."""
        return text.replace(old, new)


FUNCTIONS = Functions()
