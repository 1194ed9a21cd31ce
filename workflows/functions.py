"""The functions that expressions have beside JMESPath's own: plain functions of values, no eval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jmespath import functions


def _names(labels: Any) -> set[str]:
    return set(labels) if isinstance(labels, list) else {labels}


def _kept(value: Any, keep: Callable[[dict[str, Any]], bool]) -> Any:
    """Annotations for which `keep` holds, in whatever they come: a list, layers, a hypothesis, base_annotations."""
    if isinstance(value, list):
        return [annotation for annotation in value if isinstance(annotation, dict) and keep(annotation)]
    kept = {key: _kept(inner, keep) if isinstance(inner, list) else inner for key, inner in value.items()}
    return {key: inner for key, inner in kept.items() if inner != []}


class Functions(functions.Functions):
    """Each `_func_x` is `x(…)` in an expression."""

    @functions.signature({"types": ["object", "array"]}, {"types": ["string", "array-string"]})
    def _func_only(self, value: Any, labels: Any) -> Any:
        """Only what has this label, or one of these: of annotations, layers, a hypothesis."""
        wanted = _names(labels)
        return _kept(value, lambda annotation: annotation.get("label") in wanted)

    @functions.signature({"types": ["object", "array"]}, {"types": ["string", "array-string"]})
    def _func_without(self, value: Any, labels: Any) -> Any:
        """What has none of these labels."""
        unwanted = _names(labels)
        return _kept(value, lambda annotation: annotation.get("label") not in unwanted)

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
