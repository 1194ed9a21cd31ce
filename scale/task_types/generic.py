"""Every type that is not known here: what can be recognised becomes rows and files, the rest stays under Scale's keys."""

from typing import Any

from scale.task_types.base import ParsedResponse, TaskType, answer_only, inline

_recognise = inline(None)


def parse(response: dict[str, Any], params: dict[str, Any]) -> ParsedResponse:
    """Parse a response of an unknown task type: annotations if they have a known shape, else only the answer."""
    found = response.get("annotations")
    if type(found) is list and not all(type(item) is dict for item in found):
        return answer_only(response, params)
    return _recognise(response, params)


GENERIC = TaskType("generic", "Any other type", (), "answer", parse)
