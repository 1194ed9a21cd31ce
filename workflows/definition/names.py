"""The names that an expression can use, and what they mean. The reference page lists them; validation/ checks them."""

from __future__ import annotations

from collections.abc import Mapping

ROOTS: Mapping[str, str] = {
    "task": "Scale's own task object: `task.params`, `task.metadata`, `task.project` …",
    "response": "The current response, as Scale sent it; null if there is none.",
    "annotations": "All annotations as a flat list, as Scale sent them, with `type` and `frame` always set; includes those of result files.",
    "answer": "The response without its annotations: `answer.category`, `answer.fields` …",
    "error": "Scale's error response; null if there is none.",
    "layers": "The annotations under `boxes`, `polygons`, `lines` and `cuboids`; for a video, the `url` of a layers file.",
    "hypothesis": "The response in the form that a task of the same kind takes as its `hypothesis`.",
    "base_annotations": "The response in the form that a task of the same kind takes as its `base_annotations`.",
    "source": (
        "The follow-up that created the task: `workflow`, `step`, `unique_id`, `task_id` (of the task that it followed),"
        " `request`, `annotation` (the annotation that it is about; null if there is none), `annotation_uuid` (its uuid) and"
        " `element` (its identity in the fan-out) and `attempt` (1, and one more for each retry). Null for a task from outside."
    ),
    "parent": "The result that the task followed, with the same names: `parent.task`, `parent.hypothesis` … Null for a task from outside.",
    "review": "The review of the task: `status` (null if there is none) and `comments` (texts; an empty list without any).",
    "uncropped": "The annotations in coordinates of the image that the task's crop was cut from.",
}
"""Names that every expression can use."""

FAN_OUT_ROOTS: Mapping[str, tuple[str, str]] = {
    "annotation": (
        "The annotation that the task is about. An object drawn in several pieces has them under `pieces`.",
        "in a step with `for_each: annotation`, and not in its `when`",
    ),
    "label": ("The label that the task is about.", "in a step with `for_each: label`, and not in its `when`"),
    "frame": (
        "The number of the frame that the task is about, from 0.",
        "in a step with `for_each: frame`, and not in its `when`",
    ),
    "item": ("The element that the task is about.", "in a step with `for_each`, and not in its `when`"),
    "crop": (
        "The rectangle that is cut: `left`, `top`, `width`, `height` in pixels.",
        "in the request of a step with `crop`",
    ),
    "copy": ("The number of the copy, from 1.", "in the request of a step with `copies`"),
    "attempt": (
        "The number of the attempt that is created: 2 for the first retry.",
        "in the `params` of `on_error` and `on_rejected`",
    ),
    "previous": (
        "The attempt that failed or was rejected, with the same names: `previous.review.comments` …, and its own `previous`.",
        "in the `params` of `on_error` and `on_rejected`",
    ),
    "row": (
        "The input that the first task of the run was created from: `row.image` …",
        "in a workflow that has a step with `start`",
    ),
}
"""Names that some steps have: (meaning, where they exist)."""

JOIN_ROOTS: Mapping[str, tuple[str, str]] = {
    "results": (
        "The joined results, each with `task_id`, `task`, `response`, `answer`, `annotations` (uncropped) and `annotation` (that it is about).",
        "in a step with `join`",
    ),
    "reduced": ("The output of the reducer.", "in a step with `join`"),
}
