"""The functions of expressions, in addition to JMESPath's own. Each is a plain function of values with a bounded result."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from jmespath import functions

from scale.envelope import response_digest
from scale.layers import layers
from workflows.definition.crops import Rect, pieces_of, to_crop
from workflows.definition.recipes import RECIPES, HypothesisFile, LayersFile, OwnUrl, ResultUrl

MAX_TEXT_LENGTH = 1_000_000
"""Characters of a text that a function builds."""
MAX_DIGITS = 15
MAX_EVERY = 10_000
MAX_NUMBER_LENGTH = 300


def _labels(labels: Any) -> set[str]:
    return set(labels) if isinstance(labels, list) else {labels}


def _filtered(value: Any, keep: Callable[[dict[str, Any]], bool]) -> Any:
    """Return the annotations for which `keep` is true, in the form of `value`: a list, layers, a hypothesis."""
    if isinstance(value, list):
        return [annotation for annotation in value if isinstance(annotation, dict) and keep(annotation)]
    if isinstance(value.get("annotations", value), dict) and "url" in value.get("annotations", value):
        raise ValueError("the annotations are in a file, which cannot be filtered here")
    kept = {key: _filtered(inner, keep) if isinstance(inner, list) else inner for key, inner in value.items()}
    return {key: inner for key, inner in kept.items() if inner != []}


def _other_frames(hypothesis: dict[str, Any], every: float, *, spread: bool) -> dict[str, Any]:
    """Return the hypothesis with a file of other frames, which is built when the task is created."""
    if not isinstance(every, int) or not 1 <= every <= MAX_EVERY:
        raise ValueError(f"expected a whole number of frames from 1 to {MAX_EVERY:,}")
    file = hypothesis.get("annotations")
    url = file.get("url") if isinstance(file, dict) else None
    if not isinstance(url, ResultUrl):
        raise ValueError("only the hypothesis of a video result has frames in a file")
    return {"annotations": {"url": HypothesisFile(url.task_id, url.response, every, spread)}}


def _checked_length(length: int) -> None:
    if length > MAX_TEXT_LENGTH:
        raise ValueError(f"builds a text of {length:,} characters; at most {MAX_TEXT_LENGTH:,} are possible")


def _refuse_recipe(value: Any) -> str:
    if isinstance(value, RECIPES):
        raise ValueError("the URL of a file that is still to be built cannot become text")
    return str(value)


class Functions(functions.Functions):
    """Each method `_func_x` is the function `x` of expressions; its docstring is in the reference."""

    def call_function(self, function_name: str, resolved_args: Iterable[Any]) -> Any:
        """Call a function; a URL of ours is plain text to it."""
        return super().call_function(function_name, [_plain(arg) for arg in resolved_args])

    @functions.signature({"types": ["object", "array"]}, {"types": ["string", "array-string"]})
    def _func_only(self, value: Any, labels: Any) -> Any:
        """Return annotations, layers or a hypothesis with only these labels."""
        wanted = _labels(labels)
        if isinstance(value, dict) and isinstance(file := value.get("url"), LayersFile):
            return {"url": replace(file, labels=tuple(sorted(wanted)))}
        return _filtered(value, lambda annotation: annotation.get("label") in wanted)

    @functions.signature({"types": ["object", "array"]}, {"types": ["string", "array-string"]})
    def _func_without(self, value: Any, labels: Any) -> Any:
        """Return annotations, layers or a hypothesis without these labels."""
        unwanted = _labels(labels)
        return _filtered(value, lambda annotation: annotation.get("label") not in unwanted)

    @functions.signature({"types": ["object"]}, {"types": ["number"]})
    def _func_spread(self, hypothesis: dict[str, Any], every: float) -> dict[str, Any]:
        """Return the hypothesis of a video of which every n-th frame was annotated, for the whole video."""
        return _other_frames(hypothesis, every, spread=True)

    @functions.signature({"types": ["object"]}, {"types": ["number"]})
    def _func_thin(self, hypothesis: dict[str, Any], every: float) -> dict[str, Any]:
        """Return the hypothesis of a whole video, for a video of every n-th frame of it."""
        return _other_frames(hypothesis, every, spread=False)

    @functions.signature({"types": ["object", "array"]})
    def _func_as_layers(self, annotations: Any) -> Any:
        """Return one annotation or a list of annotations as layers."""
        return layers(pieces_of(annotations if isinstance(annotations, list) else [annotations]))[0]

    @functions.signature({"types": ["array"]}, {"types": ["number"]})
    def _func_at_frame(self, annotations: list[Any], frame: float) -> list[Any]:
        """Return the annotations of one frame."""
        return [
            annotation
            for annotation in annotations
            if isinstance(annotation, dict) and annotation.get("frame") == frame
        ]

    @functions.signature({"types": ["object", "array"]}, {"types": ["object"]})
    def _func_into(self, value: Any, crop: Any) -> Any:
        """Return annotations or layers in the coordinates of a crop."""
        return to_crop(value, Rect(**crop))

    @functions.signature({"types": ["array"]}, {"types": ["number"]})
    def _func_at(self, values: list[Any], index: float) -> Any:
        """Return the element with that index, from 0; null beyond the end (`[…]` takes a literal number only)."""
        return values[int(index)] if 0 <= index < len(values) else None

    @functions.signature({"types": ["number"]}, {"types": ["number"]})
    def _func_round(self, number: float, digits: float) -> float:
        """Return a number with that many decimals, -15 to 15; 0 gives a whole number."""
        if not -MAX_DIGITS <= digits <= MAX_DIGITS:
            raise ValueError(f"round() takes {-MAX_DIGITS} to {MAX_DIGITS} digits, not {digits}")
        return round(number, int(digits)) if digits else round(number)

    @functions.signature({"types": ["number"]}, {"types": ["number"]})
    def _func_modulo(self, number: float, divisor: float) -> float | None:
        """Return the remainder of a division: ``modulo(frame, `10`) == `0` `` selects every tenth frame; null for 0."""
        return number % divisor if divisor else None

    @functions.signature({"types": ["array"]})
    def _func_unique(self, values: list[Any]) -> list[Any]:
        """Return each value once, in the order of its first appearance."""
        found: dict[Any, Any] = {}
        for value in values:
            found.setdefault(_identity(value), value)
        return list(found.values())

    @functions.signature({"types": ["string"]})
    def _func_lower(self, text: str) -> str:
        """Return text in lower case."""
        return text.lower()

    @functions.signature({"types": ["string"]}, {"types": ["string"]}, {"types": ["string"]})
    def _func_replace(self, text: str, old: str, new: str) -> str:
        """Return text with every `old` replaced by `new`."""
        _checked_length(len(text) + text.count(old) * (len(new) - len(old)))
        return text.replace(old, new)

    # JMESPath's own, with a bounded result. They have no docstring: the reference lists only ours.

    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, array: list[str]) -> str:
        _checked_length(sum(map(len, array)) + len(separator) * max(0, len(array) - 1))
        return separator.join(array)

    @functions.signature({"types": []})
    def _func_to_string(self, arg: Any) -> str:
        if isinstance(arg, str):
            return arg
        parts: list[str] = []
        length = 0
        for part in json.JSONEncoder(separators=(",", ":"), default=_refuse_recipe).iterencode(arg):
            length += len(part)
            _checked_length(length)
            parts.append(part)
        return "".join(parts)

    @functions.signature({"types": []})
    def _func_to_number(self, arg: Any) -> Any:
        if isinstance(arg, int | float) and not isinstance(arg, bool):
            return arg
        if not isinstance(arg, str) or len(arg) > MAX_NUMBER_LENGTH:
            return None
        for number in (int, float):
            with contextlib.suppress(ValueError):
                return number(arg)
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, OwnUrl):
        return str(value)
    if isinstance(value, list) and any(isinstance(element, OwnUrl) for element in value):
        return [str(element) if isinstance(element, OwnUrl) else element for element in value]
    return value


def _identity(value: Any) -> Any:
    """Return a hashable key that is equal for equal values; a boolean differs from a number."""
    if isinstance(value, list | dict):
        return (type(value), response_digest(value))
    return (bool, value) if isinstance(value, bool) else value


FUNCTIONS = Functions()
