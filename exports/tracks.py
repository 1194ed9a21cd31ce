"""The annotations of a video by object."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from scale.annotations import Annotation


def tracks_of(annotations: Iterable[Annotation]) -> list[list[Annotation]]:
    """Return the annotations that lie on frames as tracks: one uuid, type and label each, at most one in a frame.

    An annotation without a uuid is a track of its own. Several pieces of an object in one frame are several tracks.
    Tracks come in the order of their first frame.
    """
    found: dict[tuple[Any, ...], list[Annotation]] = defaultdict(list)
    pieces: Counter[tuple[Any, ...]] = Counter()
    placed = [(annotation.frame, annotation) for annotation in annotations if annotation.frame is not None]
    for number, (frame, annotation) in enumerate(sorted(placed, key=lambda pair: pair[0])):
        name = number if annotation.uuid is None else annotation.uuid
        track = (type(name).__name__, name, annotation.label, annotation.type)
        pieces[*track, frame] += 1
        found[*track, pieces[*track, frame]].append(annotation)
    return list(found.values())
