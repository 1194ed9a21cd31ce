"""The request of a task type as data: which parameters it takes and which it requires.

Source: the parameter tables of each task type's documentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

TASK_FIELDS = (
    "callback_url",
    "instruction",
    "metadata",
    "unique_id",
    "tags",
    "project",
    "batch",
    "urgency",
    "priority",
    "clear_unique_id_on_error",
    "project_param_version",
)
"""Parameters of every task type. Scale shows them on the task itself, all others in its `params`."""

EVERY_TYPE = frozenset((*TASK_FIELDS, "attachment_type", "dependents"))
BASE_ANNOTATIONS = (
    "base_annotations",
    "can_add_base_annotations",
    "can_edit_base_annotations",
    "can_edit_base_annotation_labels",
    "can_delete_base_annotations",
)
PADDING = ("padding", "paddingX", "paddingY")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a request for one task type."""

    required: tuple[tuple[str, ...], ...] = ()
    """Groups of names; a request must have one parameter of each group."""
    optional: tuple[str, ...] = ()
    """Further parameters; `EVERY_TYPE` need not be repeated."""
    max_items: Mapping[str, int] = field(default_factory=dict)
    """The largest number of items of a list."""
    attachment_types: tuple[str, ...] = ()
    """The values of attachment_type; empty: not documented."""
    layers: str | None = None
    """objects | file (the url of one) | on images (with attachment_type image); None: not taken."""
    hypothesis: str | None = None
    """The form of the prelabels: annotations | segmentation | file; None: not taken."""
    refused: tuple[str, ...] = ()
    """Parameters that the documentation of other types names and this type's excludes."""
    complete: bool = True
    """Whether the documentation lists every parameter. If not, no name counts as unknown."""

    @property
    def takes_layers(self) -> bool:
        """Return whether requests of the type may have `layers`."""
        return self.layers is not None

    @property
    def takes_base_annotations(self) -> bool:
        """Return whether requests of the type may have `base_annotations`."""
        return "base_annotations" in self.optional

    @property
    def names(self) -> frozenset[str]:
        """Return every documented parameter of the type."""
        prelabels = {name for name in ("layers", "hypothesis") if getattr(self, name)}
        grouped = (name for group in self.required for name in group)
        return EVERY_TYPE | prelabels | set(grouped) | set(self.optional)


UNDOCUMENTED = Parameters(complete=False)
"""The request of a type whose documentation shows no table: it requires nothing known here."""
