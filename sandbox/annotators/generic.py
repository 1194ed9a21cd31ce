"""Task types whose response is not known: a plain answer that still says what was asked."""

from typing import Any

from sandbox.annotators.assignment import Assignment, mapping
from sandbox.annotators.fields import answer_comparison, answer_transcription
from sandbox.annotators.images import answer_image
from sandbox.annotators.words import sentence


def answer_generic(assignment: Assignment) -> dict[str, Any]:
    """A guess throughout: by its parameters the task is answered like the nearest documented one."""
    params = assignment.params
    if mapping(params.get("geometries")):
        return answer_image(assignment)
    if params.get("choices") or params.get("fields") or params.get("repeatable_fields"):
        return answer_comparison(assignment) | answer_transcription(assignment)
    return {"notes": sentence(assignment.die)}


def fix_generic(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    return {**response, "notes": sentence(assignment.die)}
