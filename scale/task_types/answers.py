"""Types whose response is an answer without geometry: categories, choices, transcribed or collected fields, speech."""

from scale.task_types.base import TaskType, answer_only

ANSWERS = (
    TaskType(
        "categorization",
        "One category, or several, with their ids",
        (),
        "answer",
        True,
        ("attachment", "categories|category_ids"),
        answer_only,
    ),
    TaskType(
        "comparison",
        "A choice and fields about attachments",
        (),
        "answer",
        False,
        ("attachments",),
        answer_only,
    ),
    TaskType(
        "transcription",
        "Fields and repeatable fields, transcribed (rows before 2018)",
        (),
        "answer",
        False,
        ("attachment", "fields|repeatable_fields|row_fields"),
        answer_only,
    ),
    TaskType(
        "datacollection",
        "Fields, collected from what is attached",
        (),
        "answer",
        False,
        ("fields",),
        answer_only,
    ),
    TaskType(
        "audiotranscription",
        "A transcript with its duration and alignment",
        (),
        "answer",
        False,
        ("attachment",),
        answer_only,
    ),
    TaskType(
        "phonecall",
        "The outcome of a call, with choice and fields (2016 and 2017)",
        (),
        "answer",
        False,
        ("phone_number",),
        answer_only,
    ),
)
