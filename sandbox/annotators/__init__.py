"""Simulated annotators: make a response for each task type, in Scale's form and by the rules of the task."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox.annotators.assignment import AnnotatorContext, Assignment, PutFile
from sandbox.annotators.collection import (
    fix_collection_response,
    make_attempts,
    make_collection_response,
    requires_several_responses,
)
from sandbox.annotators.conversations import (
    fix_conversation_response,
    make_chat_response,
    make_stages_response,
    make_threads,
)
from sandbox.annotators.errors import make_error_response
from sandbox.annotators.fields import (
    fix_fields_response,
    fix_phonecall_response,
    make_audiotranscription_response,
    make_categorization_response,
    make_comparison_response,
    make_datacollection_response,
    make_phonecall_response,
    make_transcription_response,
)
from sandbox.annotators.generic import fix_generic_response, make_generic_response
from sandbox.annotators.images import fix_image_response, make_image_response
from sandbox.annotators.lidar import (
    fix_cuboid_response,
    fix_linking_response,
    fix_point_label_response,
    fix_topdown_response,
    make_cuboid_response,
    make_linking_response,
    make_point_label_response,
    make_topdown_response,
)
from sandbox.annotators.texts import (
    document_pages,
    fix_document_response,
    fix_entities_response,
    make_document_response,
    make_entities_response,
)
from sandbox.annotators.values import digest
from sandbox.annotators.video import (
    fix_playback_response,
    fix_video_response,
    make_playback_response,
    make_video_response,
)

__all__ = [
    "ANNOTATORS",
    "Annotator",
    "AnnotatorContext",
    "PutFile",
    "fix_response",
    "make_error_response",
    "make_response",
    "task_fields",
]


class Annotator(NamedTuple):
    """Describe how a family of task types is annotated: how a response is made and how an auditor fixes it."""

    types: tuple[str, ...]
    make: Callable[[Assignment], dict[str, Any]]
    fix: Callable[[Assignment, dict[str, Any]], dict[str, Any]]


DOCUMENTS = ("documenttranscription", "documentmodel")
CHATS = ("chat", "chatlite", "chatexperimental", "multichat")


def make_segmentation_response(assignment: Assignment) -> dict[str, Any]:
    """Make a response for segmentannotation."""
    from sandbox.annotators import segmentation  # with numpy, which few sandboxes need

    return segmentation.make_segmentation_response(assignment)


def fix_segmentation_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Fix a response for segmentannotation."""
    from sandbox.annotators import segmentation

    return segmentation.fix_segmentation_response(assignment, response)


GENERIC = Annotator((), make_generic_response, fix_generic_response)

ANNOTATORS = (
    Annotator(
        (
            "annotation",
            "pointannotation",
            "lineannotation",
            "polygonannotation",
            "cuboidannotation",
            "imageannotation",
        ),
        make_image_response,
        fix_image_response,
    ),
    Annotator(("segmentannotation",), make_segmentation_response, fix_segmentation_response),
    Annotator(
        (
            "videoannotation",
            "videoboxannotation",
            "videopolygonannotation",
            "videocuboidannotation",
            "laneannotation",
            "federal2dvideoannotation",
        ),
        make_video_response,
        fix_video_response,
    ),
    Annotator(("videoplaybackannotation",), make_playback_response, fix_playback_response),
    Annotator(("lidarannotation", "sensorfusion"), make_cuboid_response, fix_cuboid_response),
    Annotator(("lidarsegmentation",), make_point_label_response, fix_point_label_response),
    Annotator(("lidarlinking",), make_linking_response, fix_linking_response),
    Annotator(("lidartopdown",), make_topdown_response, fix_topdown_response),
    Annotator(("categorization",), make_categorization_response, fix_fields_response),
    Annotator(("comparison",), make_comparison_response, fix_fields_response),
    Annotator(("transcription",), make_transcription_response, fix_fields_response),
    Annotator(("datacollection",), make_datacollection_response, fix_fields_response),
    Annotator(("audiotranscription",), make_audiotranscription_response, fix_fields_response),
    Annotator(("phonecall",), make_phonecall_response, fix_phonecall_response),
    Annotator(("textcollection",), make_collection_response, fix_collection_response),
    Annotator(("namedentityrecognition",), make_entities_response, fix_entities_response),
    Annotator(DOCUMENTS, make_document_response, fix_document_response),
    Annotator(CHATS, make_chat_response, fix_conversation_response),
    Annotator(("multistage",), make_stages_response, fix_conversation_response),
)


def find_annotator(type_name: str) -> Annotator:
    """Return the annotator of a task type; the generic one for an unknown type."""
    return next((known for known in ANNOTATORS if type_name in known.types), GENERIC)


def make_response(task: dict[str, Any], context: AnnotatorContext) -> dict[str, Any]:
    """Make the `response` of a task, determined by its type, its params and the seed alone.

    Shapes are drawn within the image if its size can be read, else within 960 × 540. A hypothesis in a file is used if
    the file can be read.
    """
    assignment = Assignment.of(task, context)
    return find_annotator(assignment.type).make(assignment)


def fix_response(task: dict[str, Any], response: Any, context: AnnotatorContext) -> dict[str, Any]:
    """Make the response of an auditor's fix: valid for the same task and never equal to `response`.

    Result files are read if possible, else generated again, before they are changed. A task without a response gets one.
    """
    if not isinstance(response, dict):
        return make_response(task, context)
    assignment = Assignment.of(task, context, salt=digest(response))
    fixed = find_annotator(assignment.type).fix(assignment, response)
    if fixed == response:  # nothing could be changed
        fixed = {**fixed, "is_customer_fix": not fixed.get("is_customer_fix", False)}
    return fixed


def task_fields(task: dict[str, Any], context: AnnotatorContext) -> dict[str, Any]:
    """Make the fields that a completed task has besides its response; empty for most types.

    `document_pages` of documents, `attempts` of text collections that require several responses, `threads` of
    conversations (as version 2 of the API shows them).
    """
    assignment = Assignment.of(task, context)
    if assignment.type in DOCUMENTS:
        return {"document_pages": document_pages(assignment)}
    if assignment.type in CHATS:
        return {"threads": make_threads(assignment)}
    if assignment.type == "textcollection" and requires_several_responses(assignment.params):
        return {"attempts": make_attempts(assignment)}
    return {}
