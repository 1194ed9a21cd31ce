"""textcollection: a form with fields of several kinds, answered once or by several people."""

from typing import Any

from sandbox.annotators.assignment import Assignment, mapping, number, objects, sequence
from sandbox.annotators.words import sentence, value_for


def answer_collection(assignment: Assignment) -> dict[str, Any]:
    """`annotations` by field_id: as documented, plain values; where several responses are required, in the live form.

    Documented: a value, an array where the field takes several, an object (or several) for a field_set; numbers are texts
    ("11.79"), booleans are booleans. Live: `{field_id: {type, response}}` with [["value"]] for categories, ["text"] for
    the others. A guess: which of the two Scale sends when. Source: docs, "Text Collection"; receivers of live callbacks.
    """
    fields = objects(assignment.params.get("fields"))
    answered = _answered(assignment, fields)
    return {"annotations": _live(fields, answered) if several(assignment.params) else answered}


def several(params: dict[str, Any]) -> bool:
    return (number(params.get("responses_required"), 1) or 1) > 1


def attempts(assignment: Assignment) -> list[dict[str, Any]]:
    """The `attempts` of the task object: one response a person, the first being that of the task."""
    count = int(min(20, number(assignment.params.get("responses_required"), 1) or 1))
    return [{"response": answer_collection(assignment)} for _ in range(count)]


def _answered(assignment: Assignment, fields: list[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields:
        most = int(min(20, number(field.get("max_responses_required"), 1) or 1))
        one = [_value(assignment, field) for _ in range(assignment.die.randint(1, max(1, most)))]
        if field.get("type") == "category":
            one = list(dict.fromkeys(one))
        values[str(field.get("field_id"))] = one if most > 1 else one[0]
    return values


def _value(assignment: Assignment, field: dict[str, Any]) -> Any:
    die, kind = assignment.die, field.get("type")
    if kind == "field_set":
        return _answered(assignment, objects(field.get("fields")))
    if kind == "category":
        values = _choices(field)
        return die.choice(values) if values else None
    if kind == "boolean":
        return die.random() < 0.5
    if kind == "number":
        return f"{die.randint(0, 99)}.{die.randint(0, 99):02d}"
    name = f"{field.get('field_id', '')} {field.get('title', '')}"
    return value_for(name, None, die) if kind == "text" else sentence(die)


def _choices(field: dict[str, Any]) -> list[Any]:
    given = [
        mapping(choice).get("value", mapping(choice).get("label", choice))
        for choice in sequence(field.get("choices"))
    ]
    return [choice for choice in given if isinstance(choice, str | int | float)]


def _live(fields: list[dict[str, Any]], answered: dict[str, Any]) -> dict[str, Any]:
    live = {}
    for field in fields:
        value = answered[str(field.get("field_id"))]
        values = value if isinstance(value, list) else [value]
        given = [values] if field.get("type") == "category" else values
        live[str(field.get("field_id"))] = {"type": field.get("type"), "response": given}
    return live


def fix_collection(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The response with one field answered again, in the form that it has."""
    given = mapping(response.get("annotations"))
    fields = objects(assignment.params.get("fields"))
    assignment.die.shuffle(fields)
    for field in fields:
        key = str(field.get("field_id"))
        for _ in range(8):
            answered = _answered(assignment, [field])
            value = _live([field], answered)[key] if "response" in mapping(given.get(key)) else answered[key]
            if value != given.get(key):
                return {**response, "annotations": {**given, key: value}}
    return response
