"""What a task starts with: the editable or locked annotations of an earlier hand or a model."""

from typing import Any, NamedTuple

from sandbox.annotators.assignment import mapping


class Prelabels(NamedTuple):
    """What a task starts with: the `annotations` of its base_annotations or else of its hypothesis, as they stand there
    (in video tasks an object that names a file)."""

    annotations: Any
    global_attributes: dict[str, Any]
    editable: bool  # else locked in all aspects
    more: bool  # others may be added


def prelabels(params: dict[str, Any]) -> Prelabels:
    """A hypothesis may be edited and added to; base_annotations too unless can_edit_base_annotations or
    can_add_base_annotations says false. None is ever deleted or relabeled here, which every setting allows.

    Source: docs, "Image Annotation Overview".
    """
    base = params.get("base_annotations")
    given = mapping(base or params.get("hypothesis"))
    return Prelabels(
        given.get("annotations"),
        mapping(given.get("global_attributes")),
        editable=not base or params.get("can_edit_base_annotations") not in (False, "false"),
        more=not base or params.get("can_add_base_annotations") not in (False, "false"),
    )
