"""Types whose response is an answer without geometry: categories, choices, transcribed or collected fields, speech."""

from scale.task_types.base import TaskType, answer_only
from scale.task_types.request import Parameters

_ANY_FILE = ("text", "image", "video", "audio", "website", "pdf")


def _answer(name: str, description: str, request: Parameters | None) -> TaskType:
    return TaskType(name, description, (), "answer", answer_only, request=request)


ANSWERS = (
    _answer(
        "categorization",
        "One category, or several, with their ids",
        Parameters(
            required=(("attachment", "attachments"), ("categories", "taxonomies"), ("instruction",)),
            optional=("category_ids", "allow_multiple", "context_attachments"),
            attachment_types=_ANY_FILE,
            layers="on images",
        ),
    ),
    _answer(
        "comparison",
        "A choice and fields about attachments",
        Parameters(
            required=(("attachments",), ("choices", "fields")),
            attachment_types=_ANY_FILE,
            refused=("layers",),
        ),
    ),
    _answer(
        "transcription",
        "Fields and repeatable fields, transcribed (rows before 2018)",
        Parameters(
            required=(("attachment",), ("fields", "repeatable_fields", "row_fields")),
            attachment_types=_ANY_FILE,
            refused=("layers",),
        ),
    ),
    _answer(
        "datacollection",
        "Fields, collected from what is attached",
        Parameters((("attachment",), ("fields",)), complete=False),
    ),
    _answer(
        "audiotranscription",
        "A transcript with its duration and alignment",
        Parameters((("attachment",),), complete=False),
    ),
    _answer("phonecall", "The outcome of a call, with choice and fields (2016 and 2017)", None),
)
