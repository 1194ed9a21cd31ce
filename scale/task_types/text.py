"""Text: named entities as spans, and collected answers to a form's fields."""

from scale.task_types.base import TaskType, answer_only, inline
from scale.task_types.request import Parameters

TEXT = (
    TaskType(
        "namedentityrecognition",
        "Spans of a text; the relationships between them stay in the answer",
        ("span",),
        "inline",
        inline("span", discriminated=False),
        "span",
        Parameters((("text",), ("labels",)), complete=False),
    ),
    # Its `annotations` are the answers by field_id: a value, a list or a field set as documented; live {"response": [[…]]},
    # and with several responses one in each of `attempts` (see scale.envelope.RESULT_KEYS_OUTSIDE_RESPONSE).
    TaskType(
        "textcollection",
        "Answers to the fields of a form, in one or several attempts",
        (),
        "answer",
        answer_only,
        request=Parameters(optional=("fields", "attachments", "responses_required"), complete=False),
    ),
)
