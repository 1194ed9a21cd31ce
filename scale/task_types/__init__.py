"""Scale's task types, one file a family, and `parse_response`, which turns a response into a ParsedResponse.

A new task type is one TaskType in its family's file, and its recorded payloads.
"""

from typing import Any

from scale.envelope import ABSENT, holds_error
from scale.fields import json_type_name
from scale.task_types.answers import ANSWERS
from scale.task_types.base import ParsedResponse, TaskType
from scale.task_types.conversations import CONVERSATIONS
from scale.task_types.documents import DOCUMENTS
from scale.task_types.generic import GENERIC
from scale.task_types.images import IMAGES
from scale.task_types.lidar import LIDAR
from scale.task_types.segmentation import SEGMENTATION
from scale.task_types.text import TEXT
from scale.task_types.video import VIDEO

__all__ = ["CREATABLE", "GENERIC", "TASK_TYPES", "TaskType", "parse_response", "task_type"]

TASK_TYPES: tuple[TaskType, ...] = (
    *IMAGES,
    *SEGMENTATION,
    *VIDEO,
    *LIDAR,
    *ANSWERS,
    *TEXT,
    *DOCUMENTS,
    *CONVERSATIONS,
)
CREATABLE = tuple(known for known in TASK_TYPES if known.request is not None)
"""The types of which Scale's documented API creates tasks."""
_BY_NAME = {known.name: known for known in TASK_TYPES}
ERROR_KEYS = ("error", "errors", "attachments", "frames")
"""Keys of Scale's error response. Source: docs "Errors"; the second API version has `errors`."""

CONTENT_KEYS = ("attempts", "document_pages", "threads")
"""Content that a response may have in addition to its error."""


def task_type(name: str | None) -> TaskType:
    """Return the task type of that name, or the generic one."""
    return _BY_NAME.get(name or "", GENERIC)


def parse_response(type_name: str | None, response: Any, params: dict[str, Any] | None) -> ParsedResponse:
    """Parse the response of a task of this type. What cannot be parsed is kept raw, with a sentence in `warnings`.

    response: ABSENT or null where there is none. `error` is set whenever the response holds one, whatever the status.
    Raises InvalidCallback for more files than one response may name.
    """
    if response is ABSENT or response is None:
        return ParsedResponse()
    if type(response) is not dict:
        return ParsedResponse(warnings=[f"response is {json_type_name(response)}, not an object"])
    result = task_type(type_name).parse(response, params or {})
    if not holds_error(response):
        return result
    whole = result.answer or {}
    answer = {key: value for key, value in whole.items() if key not in ERROR_KEYS}
    error = {key: value for key, value in whole.items() if key in ERROR_KEYS or key not in CONTENT_KEYS}
    return ParsedResponse(
        annotations=result.annotations,
        artifacts=result.artifacts,
        answer=answer or None,
        error=error,
        global_attributes=result.global_attributes,
        warnings=result.warnings,
    )
