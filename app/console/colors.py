"""The color of each label: the same on every frame and in every version, and another one for each label of a request."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

PALETTE = ("#ff2bd6", "#00c2ff", "#ffd400", "#37e06f", "#ff7a1a", "#b58cff", "#ff5a4f", "#0fa396")
"""Those of the classes alt0, alt1, … of the style sheet."""
LABEL_LISTS = ("objects_to_annotate", "labels", "instance_labels", "features", "events_to_annotate")
"""Parameters of a request that list its labels."""
NAMES = ("choice", "name", "label", "value")
"""Keys of a label's name. Source: docs "LabelDescription"."""


def label_places(params: Mapping[str, Any]) -> dict[str, int]:
    """Return the place of each label in a request."""
    geometries = params.get("geometries")
    by_shape = geometries.values() if isinstance(geometries, dict) else ()
    lists = [
        source.get(name)
        for source in (params, *by_shape)
        if isinstance(source, Mapping)
        for name in LABEL_LISTS
    ]
    return {name: place for place, name in enumerate(dict.fromkeys(_names(lists)))}


def _names(described: Any) -> Iterator[str]:
    if isinstance(described, str):
        yield described
    elif isinstance(described, list):
        for one in described:
            yield from _names(one)
    elif isinstance(described, dict):
        yield from _names(next((described[key] for key in NAMES if key in described), None))
        yield from _names(described.get("subchoices"))


def color_of(label: str | None, places: Mapping[str, int]) -> int:
    """Return the place in PALETTE of a label's color. One that the request does not list gets one of the others, by its name."""
    name = label or ""
    if name in places:
        return places[name] % len(PALETTE)
    taken = len(places) if len(places) < len(PALETTE) else 0
    return taken + zlib.crc32(name.encode("utf-8", "replace")) % (len(PALETTE) - taken)
