"""Make responses for generative task types: chat, chatlite, chatexperimental, multichat and multistage."""

from typing import Any

from sandbox.annotators.assignment import Assignment
from sandbox.annotators.values import as_dict, as_list, dicts_in
from sandbox.annotators.words import make_sentence


def make_stages_response(assignment: Assignment) -> dict[str, Any]:
    """Make `responses`: one {type, output} for each stage; the first is the instructions, whose output is empty.

    A guess beyond that first entry: the names and outputs of the other stages. Source: docs, GenAI tasks of version 1.
    """
    stages = [
        str(as_dict(stage).get("type", "TextCollection"))
        for stage in as_list(assignment.params.get("stages"))
    ]
    outputs = [
        {"type": stage, "output": make_sentence(assignment.rng)} for stage in stages or ["TextCollection"]
    ]
    return {"responses": [{"type": "Instructions", "output": ""}, *outputs]}


def make_chat_response(assignment: Assignment) -> dict[str, Any]:
    """Make `responses` of a conversation: the instructions and its last message. A guess except for the first entry."""
    said = make_threads(assignment)[0]["turns"][-1]["messages"][-1]["content"]["text"]
    return {"responses": [{"type": "Instructions", "output": ""}, {"type": "Chat", "output": said}]}


def make_threads(assignment: Assignment) -> list[dict[str, Any]]:
    """Make the `threads` of a task object of version 2: turns of messages with annotations; a multichat has two threads.

    The first message is the prompt of the request. Source: docs, GenAI "Thread", "Turn", "Message".
    """
    return [_make_thread(assignment) for _ in range(2 if assignment.type == "multichat" else 1)]


def _make_thread(assignment: Assignment) -> dict[str, Any]:
    opening = _find_prompt(assignment.params) or make_sentence(assignment.rng)
    turns = [_make_turn(assignment, opening)]
    turns += [
        _make_turn(assignment, make_sentence(assignment.rng)) for _ in range(assignment.rng.randint(0, 2))
    ]
    return {"id": _make_id(assignment, "thread"), "turns": turns, "annotations": []}


def _find_prompt(params: dict[str, Any]) -> str | None:
    """Return the first message of the request: a prompt in its template variables, or the first of its messages."""
    for place in (as_dict(params.get("template_variables")), params):
        prompt = place.get("prompt")
        if isinstance(prompt, str):
            return prompt
    before = [message.get("content") for message in dicts_in(params.get("messages"))]
    return next((text for text in before if isinstance(text, str)), None)


def _make_turn(assignment: Assignment, asked: str) -> dict[str, Any]:
    reply = _make_message(assignment, "assistant", make_sentence(assignment.rng))
    reply["annotations"] = [
        {
            "id": _make_id(assignment, "an"),
            "key": "overall_quality",
            "type": "integer",
            "title": "Overall quality",
            "value": assignment.rng.randint(1, 5),
            "possible_values": [1, 2, 3, 4, 5],
        }
    ]
    return {
        "id": _make_id(assignment, "turn"),
        "messages": [_make_message(assignment, "user", asked), reply],
        "annotations": [],
    }


def _make_message(assignment: Assignment, role: str, text: str) -> dict[str, Any]:
    return {
        "role": role,
        "content": {"text": text, "reference_texts": [], "attachments": []},
        "source_id": _make_id(assignment, "source"),
        "annotations": [],
    }


def _make_id(assignment: Assignment, kind: str) -> str:
    return f"{kind}_{assignment.rng.getrandbits(60):015x}"


def fix_conversation_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Rewrite the last stage of a response."""
    stages = dicts_in(response.get("responses"))
    if not stages:
        return {**response, **make_stages_response(assignment)}
    return {**response, "responses": [*stages[:-1], {**stages[-1], "output": make_sentence(assignment.rng)}]}
