"""Stand-ins for the people who label: each task type answered in the form that Scale sends, by the task's own rules.

They stand before a callback's way: what they answer is what the sandbox sends.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox.annotators.assignment import Assignment, ImageSize, PutFile, ReadFile, digest, mapping
from sandbox.annotators.collection import answer_collection, attempts, fix_collection, several
from sandbox.annotators.conversations import answer_chat, answer_stages, fix_conversation, threads
from sandbox.annotators.errors import error
from sandbox.annotators.fields import (
    answer_audiotranscription,
    answer_categorization,
    answer_comparison,
    answer_datacollection,
    answer_phonecall,
    answer_transcription,
    fix_fields,
    fix_phonecall,
)
from sandbox.annotators.generic import answer_generic, fix_generic
from sandbox.annotators.images import answer_image, fix_image
from sandbox.annotators.lidar import (
    answer_cuboids,
    answer_linking,
    answer_point_labels,
    answer_topdown,
    fix_cuboids,
    fix_linking,
    fix_point_labels,
    fix_topdown,
)
from sandbox.annotators.segmentation import answer_segmentation, fix_segmentation
from sandbox.annotators.texts import answer_document, answer_entities, fix_document, fix_entities, pages
from sandbox.annotators.video import answer_playback, answer_video, fix_playback, fix_video

__all__ = ["ANNOTATORS", "Annotator", "answer", "error", "fix", "task_fields"]


class Annotator(NamedTuple):
    """How one family of task types is answered, and what an auditor's fix makes of such an answer."""

    types: tuple[str, ...]
    answer: Callable[[Assignment], dict[str, Any]]
    fix: Callable[[Assignment, dict[str, Any]], dict[str, Any]]


DOCUMENTS = ("documenttranscription", "documentmodel")
CHATS = ("chat", "chatlite", "chatexperimental", "multichat")

GENERIC = Annotator((), answer_generic, fix_generic)

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
        answer_image,
        fix_image,
    ),
    Annotator(("segmentannotation",), answer_segmentation, fix_segmentation),
    Annotator(
        (
            "videoannotation",
            "videoboxannotation",
            "videopolygonannotation",
            "videocuboidannotation",
            "laneannotation",
            "federal2dvideoannotation",
        ),
        answer_video,
        fix_video,
    ),
    Annotator(("videoplaybackannotation",), answer_playback, fix_playback),
    Annotator(("lidarannotation", "sensorfusion"), answer_cuboids, fix_cuboids),
    Annotator(("lidarsegmentation",), answer_point_labels, fix_point_labels),
    Annotator(("lidarlinking",), answer_linking, fix_linking),
    Annotator(("lidartopdown",), answer_topdown, fix_topdown),
    Annotator(("categorization",), answer_categorization, fix_fields),
    Annotator(("comparison",), answer_comparison, fix_fields),
    Annotator(("transcription",), answer_transcription, fix_fields),
    Annotator(("datacollection",), answer_datacollection, fix_fields),
    Annotator(("audiotranscription",), answer_audiotranscription, fix_fields),
    Annotator(("phonecall",), answer_phonecall, fix_phonecall),
    Annotator(("textcollection",), answer_collection, fix_collection),
    Annotator(("namedentityrecognition",), answer_entities, fix_entities),
    Annotator(DOCUMENTS, answer_document, fix_document),
    Annotator(CHATS, answer_chat, fix_conversation),
    Annotator(("multistage",), answer_stages, fix_conversation),
)


def annotator(type_name: Any) -> Annotator:
    return next((known for known in ANNOTATORS if type_name in known.types), GENERIC)


def answer(
    task: dict[str, Any],
    *,
    seed: int,
    put_file: PutFile,
    image_size: ImageSize = lambda url: None,
    read_file: ReadFile = lambda url: None,
) -> dict[str, Any]:
    """The `response` of a task, decided by its type, its params and the seed alone.

    `put_file(content, media_type)` keeps a result file and returns its address. Shapes are drawn within the image whose
    size `image_size(url)` gives (width, height), else 960 × 540 is assumed. A hypothesis that is a file is taken up if
    `read_file(url)` gives its content.
    """
    assignment = _assignment(task, "", seed, put_file, image_size, read_file)
    return annotator(assignment.type).answer(assignment)


def fix(
    task: dict[str, Any],
    response: Any,
    *,
    seed: int,
    put_file: PutFile,
    image_size: ImageSize = lambda url: None,
    read_file: ReadFile = lambda url: None,
) -> dict[str, Any]:
    """What an auditor's fix makes of a response: valid for the same task, and never equal to it.

    A task without a response is answered. Result files are read where `read_file` gives them, else made again as the
    annotator made them, before they are changed.
    """
    if not isinstance(response, dict):
        return answer(task, seed=seed, put_file=put_file, image_size=image_size, read_file=read_file)
    assignment = _assignment(task, digest(response), seed, put_file, image_size, read_file)
    fixed = annotator(assignment.type).fix(assignment, response)
    if fixed == response:  # nothing could be changed
        fixed = {**fixed, "is_customer_fix": not fixed.get("is_customer_fix", False)}
    return fixed


def task_fields(
    task: dict[str, Any],
    *,
    seed: int,
    put_file: PutFile,
    image_size: ImageSize = lambda url: None,
    read_file: ReadFile = lambda url: None,
) -> dict[str, Any]:
    """What an answered task says beside its response: `document_pages` of documents, `attempts` of text collections that
    asked for several responses, `threads` of conversations (as version 2 shows them). Empty for the others."""
    assignment = _assignment(task, "", seed, put_file, image_size, read_file)
    if assignment.type in DOCUMENTS:
        return {"document_pages": pages(assignment)}
    if assignment.type in CHATS:
        return {"threads": threads(assignment)}
    if assignment.type == "textcollection" and several(assignment.params):
        return {"attempts": attempts(assignment)}
    return {}


def _assignment(
    task: dict[str, Any], salt: str, seed: int, put_file: PutFile, image_size: ImageSize, read_file: ReadFile
) -> Assignment:
    return Assignment(
        type=str(task.get("type")),
        params=mapping(task.get("params")),
        seed=seed,
        put_file=put_file,
        image_size=image_size,
        read_file=read_file,
        salt=salt,
    )
