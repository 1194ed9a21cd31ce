"""Read the annotations that a task starts with: base_annotations or a hypothesis, editable or locked."""

from typing import Any, NamedTuple

from sandbox.annotators.values import as_dict


class Prelabels(NamedTuple):
    """Hold the initial `annotations` of a task in the form of the request (in video tasks an object that names a file).

    `editable` says whether they may be changed, `can_add` whether others may be added.
    """

    annotations: Any
    global_attributes: dict[str, Any]
    editable: bool  # else locked in all aspects
    more: bool  # others may be added


def read_prelabels(params: dict[str, Any]) -> Prelabels:
    """Read the prelabels of a task.

    A hypothesis may be edited and added to; so may base_annotations unless can_edit_base_annotations or
    can_add_base_annotations is false. Prelabels are never deleted or relabeled here, which every setting allows.
    Source: docs, "Image Annotation Overview".
    """
    base = params.get("base_annotations")
    given = as_dict(base or params.get("hypothesis"))
    return Prelabels(
        given.get("annotations"),
        as_dict(given.get("global_attributes")),
        editable=not base or params.get("can_edit_base_annotations") not in (False, "false"),
        more=not base or params.get("can_add_base_annotations") not in (False, "false"),
    )
