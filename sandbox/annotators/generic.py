"""Make responses for task types whose response is not documented."""

from typing import Any

from sandbox.annotators.assignment import Assignment
from sandbox.annotators.fields import make_comparison_response, make_transcription_response
from sandbox.annotators.images import make_image_response
from sandbox.annotators.values import as_dict
from sandbox.annotators.words import make_sentence


def make_generic_response(assignment: Assignment) -> dict[str, Any]:
    """Make the response of the most similar documented type, by the parameters of the task. A guess throughout."""
    params = assignment.params
    if as_dict(params.get("geometries")):
        return make_image_response(assignment)
    if params.get("choices") or params.get("fields") or params.get("repeatable_fields"):
        return make_comparison_response(assignment) | make_transcription_response(assignment)
    return {"notes": make_sentence(assignment.rng)}


def fix_generic_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Change the notes of a response."""
    return {**response, "notes": make_sentence(assignment.rng)}
