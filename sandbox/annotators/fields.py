"""Make responses that consist of fields: categorization, comparison, transcription, datacollection, audio and phone calls."""

import random
from typing import Any

from sandbox.annotators.assignment import Assignment
from sandbox.annotators.labels import label_names
from sandbox.annotators.values import as_bool, as_dict, as_list
from sandbox.annotators.words import make_sentence, make_value


def make_categorization_response(assignment: Assignment) -> dict[str, Any]:
    """Make `category`, an array with allow_multiple, and `category_id` in the same form if the request has category_ids.

    A request with `taxonomies` gets `taxonomies`: {name: {type, response}}. A guess: the form of that response.
    """
    params, rng = assignment.params, assignment.rng
    ids, categories = _categories(params)
    answers = _fill_taxonomies(assignment)
    is_multiple = as_bool(params.get("allow_multiple"))
    if not categories:
        return answers or {"category": [] if is_multiple else None}
    category: Any = rng.choice(categories)
    if is_multiple:
        category = rng.sample(categories, rng.randint(1, min(3, len(categories))))
    return {"category": category, **({"category_id": _category_ids(category, ids)} if ids else {}), **answers}


def _categories(params: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the ids by category, and the categories."""
    given = as_dict(params.get("category_ids"))
    ids = {category: key for key, category in given.items() if isinstance(category, str)}
    return ids, label_names(params.get("categories")) or list(ids)


def _fill_taxonomies(assignment: Assignment) -> dict[str, Any]:
    taxonomies = {
        name: {
            "type": taxonomy.get("type", "category"),
            "response": _fill_taxonomy(name, taxonomy, assignment.rng),
        }
        for name, taxonomy in as_dict(assignment.params.get("taxonomies")).items()
        if isinstance(taxonomy, dict)
    }
    return {"taxonomies": taxonomies} if taxonomies else {}


def _fill_taxonomy(name: str, taxonomy: dict[str, Any], rng: random.Random) -> list[Any]:
    """Return one choice in a list, several with allow_multiple, or a text if there are no choices."""
    choices = label_names(taxonomy.get("choices"))
    if not choices:
        return [make_value(name, taxonomy, rng)]
    count = rng.randint(1, min(3, len(choices))) if as_bool(taxonomy.get("allow_multiple")) else 1
    return [rng.sample(choices, count)]


def make_comparison_response(assignment: Assignment) -> dict[str, Any]:
    """Make `choice` if the request has choices and `fields` if it has fields."""
    choices = label_names(assignment.params.get("choices"))
    choice = {"choice": assignment.rng.choice(choices)} if choices else {}
    return choice | _fill_fields(assignment)


def make_transcription_response(assignment: Assignment) -> dict[str, Any]:
    """Make `fields`, and `repeatable_fields` with one object for each row; up to 2017 `rows` for row_fields."""
    params = assignment.params
    return (
        _fill_fields(assignment)
        | _fill_rows(assignment, "repeatable_fields", params.get("repeatable_fields"))
        | _fill_rows(assignment, "rows", params.get("row_fields"))
    )


def make_datacollection_response(assignment: Assignment) -> dict[str, Any]:
    """Make `fields` and the time spent."""
    return {
        "fields": _fill_fields(assignment).get("fields", {}),
        "time_spent_in_seconds": round(assignment.rng.uniform(20, 600), 3),
    }


def make_audiotranscription_response(assignment: Assignment) -> dict[str, Any]:
    """Make `transcript`, `duration` (seconds) and `alignment` (words with start and end in seconds, confidence 0 to 1).

    The transcript contains the phrases of the request; a verbatim one also contains hesitations.
    """
    params, rng = assignment.params, assignment.rng
    phrases = [phrase for phrase in as_list(params.get("phrases")) if isinstance(phrase, str)]
    spoken = [*make_sentence(rng)[:-1].split(), *(["um", "well"] if as_bool(params.get("verbatim")) else [])]
    for phrase in phrases[:3]:
        spoken += phrase.split()
    transcript = " ".join(spoken) + "."
    clock, alignment = 0.0, []
    for word in spoken:
        start = round(clock + rng.uniform(0.02, 0.2), 3)
        clock = round(start + 0.06 * len(word) + rng.uniform(0.05, 0.2), 3)
        confidence = round(rng.uniform(0.6, 1), 3)
        alignment.append({"word": word, "start": start, "end": clock, "confidence": confidence})
    return {
        "transcript": transcript,
        "duration": round(clock + rng.uniform(0.1, 0.5), 6),
        "alignment": alignment,
    }


OUTCOMES = ("success", "no_pickup", "hung_up")


def make_phonecall_response(assignment: Assignment) -> dict[str, Any]:
    """Make `outcome`, and the answers if the call succeeded. Scale no longer offers this type."""
    return _make_call_response(assignment, assignment.rng.choice(("success", *OUTCOMES)))


def _make_call_response(assignment: Assignment, outcome: str) -> dict[str, Any]:
    return {"outcome": outcome, **(make_comparison_response(assignment) if outcome == "success" else {})}


def fix_phonecall_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Change the outcome of the call."""
    others = [outcome for outcome in OUTCOMES if outcome != response.get("outcome")]
    return _make_call_response(assignment, assignment.rng.choice(others))


def fix_fields_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Change one value of a response: another choice if there is one, else another text."""
    params, rng = assignment.params, assignment.rng
    choices = label_names(params.get("choices"))
    if "category" in response:
        return _fix_category(assignment, response)
    if as_dict(response.get("taxonomies")):
        return _fix_taxonomy(assignment, response)
    if "choice" in response and len(choices) > 1:
        return {**response, "choice": _choose_other(response["choice"], choices, rng)}
    if isinstance(response.get("transcript"), str):
        return {**response, "transcript": f"{response['transcript']} {make_sentence(rng, 3)}"}
    if as_dict(response.get("fields")):
        return {**response, "fields": _change_one_field(response["fields"], params.get("fields"), rng)}
    return _fix_rows(assignment, response)


def _fix_category(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    ids, categories = _categories(assignment.params)
    category = _choose_other(response["category"], categories, assignment.rng)
    return {
        **response,
        "category": category,
        **({"category_id": _category_ids(category, ids)} if ids else {}),
    }


def _fix_taxonomy(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Change the value of one taxonomy."""
    taxonomies = response["taxonomies"]
    name = assignment.rng.choice(sorted(taxonomies))
    given = as_dict(taxonomies[name])
    choices = label_names(as_dict(as_dict(assignment.params.get("taxonomies")).get(name)).get("choices"))
    values = as_list(as_list(given.get("response"))[:1] and given["response"][0])
    if len(choices) > 1 and len(values) == 1:
        changed: list[Any] = [[_choose_other(values[0], choices, assignment.rng)]]
    else:
        changed = (
            [_choose_other(values, choices, assignment.rng)]
            if choices
            else [make_sentence(assignment.rng, 4)]
        )
    return {**response, "taxonomies": {**taxonomies, name: {**given, "response": changed}}}


def _fix_rows(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Change one value of the first row."""
    for key, parameter in (("repeatable_fields", "repeatable_fields"), ("rows", "row_fields")):
        rows = as_list(response.get(key))
        if rows and isinstance(rows[0], dict):
            described = assignment.params.get(parameter)
            return {**response, key: [_change_one_field(rows[0], described, assignment.rng), *rows[1:]]}
    return response


def _choose_other(chosen: Any, choices: list[str], rng: random.Random) -> Any:
    if isinstance(chosen, list):
        left = [choice for choice in choices if choice not in chosen]
        return [*chosen, rng.choice(left)] if left else chosen[:-1] or chosen
    return rng.choice([choice for choice in choices if choice != chosen] or [chosen])


def _category_ids(category: Any, ids: dict[str, str]) -> Any:
    if isinstance(category, list):
        return [_category_ids(entry, ids) for entry in category]
    return ids.get(category) if isinstance(category, str) else None


def _change_one_field(values: dict[str, Any], described: Any, rng: random.Random) -> dict[str, Any]:
    """Change one of the values; it stays one of the choices of its field."""
    described = as_dict(described)
    for name in rng.sample(sorted(values), len(values)):
        description = described.get(name)
        choices = label_names(description.get("choices")) if isinstance(description, dict) else []
        value = _choose_other(values[name], choices, rng) if choices else make_value(name, description, rng)
        if value != values[name]:
            return {**values, name: value}
    return values


def _fill_fields(assignment: Assignment) -> dict[str, Any]:
    described = as_dict(assignment.params.get("fields"))
    values = {name: make_value(name, description, assignment.rng) for name, description in described.items()}
    return {"fields": values} if values else {}


def _fill_rows(assignment: Assignment, key: str, described: Any) -> dict[str, Any]:
    described, rng = as_dict(described), assignment.rng
    if not described:
        return {}
    return {
        key: [
            {name: make_value(name, description, rng) for name, description in described.items()}
            for _ in range(rng.randint(1, 4))
        ]
    }
