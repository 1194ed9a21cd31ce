"""Questions answered in fields: categorization, comparison, transcription, datacollection, audiotranscription, phonecall."""

from typing import Any

from sandbox.annotators.assignment import Assignment, mapping, sequence, truth
from sandbox.annotators.labels import label_names
from sandbox.annotators.words import sentence, value_for


def answer_categorization(assignment: Assignment) -> dict[str, Any]:
    """`category`, an array with allow_multiple; `category_id` beside it in the same form when category_ids were given."""
    params, die = assignment.params, assignment.die
    ids = {
        category: key
        for key, category in mapping(params.get("category_ids")).items()
        if isinstance(category, str)
    }
    categories = label_names(params.get("categories")) or list(ids)
    if not categories:
        return {"category": [] if truth(params.get("allow_multiple")) else None}
    if truth(params.get("allow_multiple")):
        chosen = die.sample(categories, die.randint(1, min(3, len(categories))))
        return {"category": chosen, **({"category_id": [ids.get(c) for c in chosen]} if ids else {})}
    category = die.choice(categories)
    return {"category": category, **({"category_id": ids.get(category)} if ids else {})}


def answer_comparison(assignment: Assignment) -> dict[str, Any]:
    """`choice` where choices were given and `fields` where fields were."""
    choices = label_names(assignment.params.get("choices"))
    choice = {"choice": assignment.die.choice(choices)} if choices else {}
    return choice | _fields(assignment)


def answer_transcription(assignment: Assignment) -> dict[str, Any]:
    """`fields`, and `repeatable_fields` with one object a row; of tasks up to 2017 `rows` for their row_fields."""
    params = assignment.params
    return (
        _fields(assignment)
        | _rows(assignment, "repeatable_fields", params.get("repeatable_fields"))
        | _rows(assignment, "rows", params.get("row_fields"))
    )


def answer_datacollection(assignment: Assignment) -> dict[str, Any]:
    return {
        "fields": _fields(assignment).get("fields", {}),
        "time_spent_in_seconds": round(assignment.die.uniform(20, 600), 3),
    }


def answer_audiotranscription(assignment: Assignment) -> dict[str, Any]:
    """`transcript`, `duration` (seconds) and `alignment` (words with start and end in seconds, confidence 0 to 1).

    The phrases of the request are heard in it; a verbatim transcript keeps the hesitations.
    """
    params, die = assignment.params, assignment.die
    phrases = [phrase for phrase in sequence(params.get("phrases")) if isinstance(phrase, str)]
    spoken = [*sentence(die)[:-1].split(), *(["um", "well"] if truth(params.get("verbatim")) else [])]
    for phrase in phrases[:3]:
        spoken += phrase.split()
    transcript = " ".join(spoken) + "."
    clock, alignment = 0.0, []
    for word in spoken:
        start = round(clock + die.uniform(0.02, 0.2), 3)
        clock = round(start + 0.06 * len(word) + die.uniform(0.05, 0.2), 3)
        confidence = round(die.uniform(0.6, 1), 3)
        alignment.append({"word": word, "start": start, "end": clock, "confidence": confidence})
    return {
        "transcript": transcript,
        "duration": round(clock + die.uniform(0.1, 0.5), 6),
        "alignment": alignment,
    }


OUTCOMES = ("success", "no_pickup", "hung_up")


def answer_phonecall(assignment: Assignment) -> dict[str, Any]:
    """`outcome`, and what was answered when somebody picked up. The type itself is no longer offered by Scale."""
    return _call(assignment, assignment.die.choice(("success", *OUTCOMES)))


def _call(assignment: Assignment, outcome: str) -> dict[str, Any]:
    return {"outcome": outcome, **(answer_comparison(assignment) if outcome == "success" else {})}


def fix_phonecall(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The call was made once more, and ended otherwise."""
    others = [outcome for outcome in OUTCOMES if outcome != response.get("outcome")]
    return _call(assignment, assignment.die.choice(others))


def fix_fields(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The response with one answer changed: another choice where there is one, else a text that was retyped."""
    params, die = assignment.params, assignment.die
    ids = {
        category: key
        for key, category in mapping(params.get("category_ids")).items()
        if isinstance(category, str)
    }
    if "category" in response:
        categories = label_names(params.get("categories")) or list(ids)
        category = _another(response["category"], categories, die)
        given = {"category_id": _ids_of(category, ids)} if ids else {}
        return {**response, "category": category, **given}
    choices = label_names(params.get("choices"))
    if "choice" in response and len(choices) > 1:
        return {**response, "choice": _another(response["choice"], choices, die)}
    if isinstance(response.get("transcript"), str):
        return {**response, "transcript": f"{response['transcript']} {sentence(die, 3)}"}
    if mapping(response.get("fields")):
        return {**response, "fields": _retyped(response["fields"], params.get("fields"), die)}
    for key, asked in (("repeatable_fields", "repeatable_fields"), ("rows", "row_fields")):
        rows = sequence(response.get(key))
        if rows and isinstance(rows[0], dict):
            return {**response, key: [_retyped(rows[0], params.get(asked), die), *rows[1:]]}
    return response


def _another(chosen: Any, choices: list[str], die: Any) -> Any:
    if isinstance(chosen, list):
        left = [choice for choice in choices if choice not in chosen]
        return [*chosen, die.choice(left)] if left else chosen[:-1] or chosen
    return die.choice([choice for choice in choices if choice != chosen] or [chosen])


def _ids_of(category: Any, ids: dict[str, str]) -> Any:
    if isinstance(category, list):
        return [_ids_of(entry, ids) for entry in category]
    return ids.get(category) if isinstance(category, str) else None


def _retyped(values: dict[str, Any], described: Any, die: Any) -> dict[str, Any]:
    """The same fields with one other value, which is still one of the choices of its field."""
    described = mapping(described)
    for name in die.sample(sorted(values), len(values)):
        description = described.get(name)
        choices = label_names(description.get("choices")) if isinstance(description, dict) else []
        value = _another(values[name], choices, die) if choices else value_for(name, description, die)
        if value != values[name]:
            return {**values, name: value}
    return values


def _fields(assignment: Assignment) -> dict[str, Any]:
    described = mapping(assignment.params.get("fields"))
    values = {name: value_for(name, description, assignment.die) for name, description in described.items()}
    return {"fields": values} if values else {}


def _rows(assignment: Assignment, key: str, described: Any) -> dict[str, Any]:
    described, die = mapping(described), assignment.die
    if not described:
        return {}
    return {
        key: [
            {name: value_for(name, description, die) for name, description in described.items()}
            for _ in range(die.randint(1, 4))
        ]
    }
