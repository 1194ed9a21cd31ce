"""What a response says, once it is understood: rows, the files that it points to, the answer, the error."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scale.annotations import Annotation


class ArtifactRef(NamedTuple):
    """A file that a response points to."""

    ordinal: int  # 1, 2, … within the response, whatever the order of its keys (0 is the response itself)
    role: str  # annotations events point_segmentations indexedImage extendedIndexedImage image unlabeled labeled:<label>[:n]
    url: str


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    annotations: list[Annotation] = field(default_factory=list)  # inline ones
    artifacts: list[ArtifactRef] = field(default_factory=list)
    answer: dict[str, Any] | None = (
        None  # the response without its annotations, under Scale's keys; None: nothing is left
    )
    error: dict[str, Any] | None = None  # Scale's error response, whatever the status says
    global_attributes: dict[str, Any] | None = None
    warnings: list[str] = field(
        default_factory=list
    )  # what was odd, in sentences; those of the annotations among them
