"""Make responses for textcollection: a form with fields of several kinds, filled in once or by several labelers."""

from typing import Any

from sandbox.annotators.assignment import Assignment
from sandbox.annotators.values import as_dict, as_list, as_number, dicts_in
from sandbox.annotators.words import make_sentence, make_value


def make_collection_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations` by field_id: plain values as documented; in the live form if several responses are required.

    Documented: a value, an array for a field that takes several, an object (or several) for a field_set; numbers are texts
    ("11.79"), booleans are booleans. Live: `{field_id: {type, response}}` with [["value"]] for categories and ["text"] for
    the others. A guess: which of the two Scale sends when. Source: docs, "Text Collection"; receivers of live callbacks.
    """
    fields = dicts_in(assignment.params.get("fields"))
    answered = _fill_fields(assignment, fields)
    return {
        "annotations": _to_live_form(fields, answered)
        if requires_several_responses(assignment.params)
        else answered
    }


def requires_several_responses(params: dict[str, Any]) -> bool:
    """Return whether the task asks several labelers."""
    return (as_number(params.get("responses_required"), 1) or 1) > 1


def make_attempts(assignment: Assignment) -> list[dict[str, Any]]:
    """Make the `attempts` of the task object: one response for each labeler; the first is the task's response."""
    count = int(min(20, as_number(assignment.params.get("responses_required"), 1) or 1))
    return [{"response": make_collection_response(assignment)} for _ in range(count)]


def _fill_fields(assignment: Assignment, fields: list[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields:
        most = int(min(20, as_number(field.get("max_responses_required"), 1) or 1))
        one = [_fill_field(assignment, field) for _ in range(assignment.rng.randint(1, max(1, most)))]
        if field.get("type") == "category":
            one = list(dict.fromkeys(one))
        values[str(field.get("field_id"))] = one if most > 1 else one[0]
    return values


def _fill_field(assignment: Assignment, field: dict[str, Any]) -> Any:
    rng, kind = assignment.rng, field.get("type")
    if kind == "field_set":
        return _fill_fields(assignment, dicts_in(field.get("fields")))
    if kind == "category":
        values = _field_choices(field)
        return rng.choice(values) if values else None
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "number":
        return f"{rng.randint(0, 99)}.{rng.randint(0, 99):02d}"
    name = f"{field.get('field_id', '')} {field.get('title', '')}"
    return make_value(name, None, rng) if kind == "text" else make_sentence(rng)


def _field_choices(field: dict[str, Any]) -> list[Any]:
    given = [
        as_dict(choice).get("value", as_dict(choice).get("label", choice))
        for choice in as_list(field.get("choices"))
    ]
    return [choice for choice in given if isinstance(choice, str | int | float)]


def _to_live_form(fields: list[dict[str, Any]], answered: dict[str, Any]) -> dict[str, Any]:
    """Convert plain values to the form of live callbacks."""
    live = {}
    for field in fields:
        value = answered[str(field.get("field_id"))]
        values = value if isinstance(value, list) else [value]
        given = [values] if field.get("type") == "category" else values
        live[str(field.get("field_id"))] = {"type": field.get("type"), "response": given}
    return live


def fix_collection_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Change one field of a response, in the form that it has."""
    given = as_dict(response.get("annotations"))
    fields = dicts_in(assignment.params.get("fields"))
    assignment.rng.shuffle(fields)
    for field in fields:
        key = str(field.get("field_id"))
        for _ in range(8):
            answered = _fill_fields(assignment, [field])
            value = (
                _to_live_form([field], answered)[key]
                if "response" in as_dict(given.get(key))
                else answered[key]
            )
            if value != given.get(key):
                return {**response, "annotations": {**given, key: value}}
    return response
