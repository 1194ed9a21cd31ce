"""Every type that is not known here: what can be recognised becomes rows and files, the rest stays under Scale's keys."""

from typing import Any

from scale.results import Result
from scale.task_types.base import TaskType, answer, inline

_recognise = inline(None)


def understand(response: dict[str, Any], params: dict[str, Any]) -> Result:
    found = response.get("annotations")
    if type(found) is list and not all(type(item) is dict for item in found):
        return answer(response, params)
    return _recognise(response, params)


GENERIC = TaskType("generic", "Any other type", (), "answer", False, (), understand)
