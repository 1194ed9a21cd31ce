"""Generative work: chat, chatlite, chatexperimental, multichat and multistage."""

from typing import Any

from sandbox.annotators.assignment import Assignment, mapping, objects, sequence
from sandbox.annotators.words import sentence


def answer_stages(assignment: Assignment) -> dict[str, Any]:
    """`responses`: one {type, output} a stage, the first being the instructions, whose output is empty.

    A guess beyond that first entry: the names and outputs of the other stages. Source: docs, GenAI tasks of version 1.
    """
    stages = [
        str(mapping(stage).get("type", "TextCollection"))
        for stage in sequence(assignment.params.get("stages"))
    ]
    outputs = [{"type": stage, "output": sentence(assignment.die)} for stage in stages or ["TextCollection"]]
    return {"responses": [{"type": "Instructions", "output": ""}, *outputs]}


def answer_chat(assignment: Assignment) -> dict[str, Any]:
    """`responses` of a conversation: the instructions and the last thing that was said. A guess but for the first entry."""
    said = threads(assignment)[0]["turns"][-1]["messages"][-1]["content"]["text"]
    return {"responses": [{"type": "Instructions", "output": ""}, {"type": "Chat", "output": said}]}


def threads(assignment: Assignment) -> list[dict[str, Any]]:
    """The `threads` of a task object of version 2: turns of messages with their annotations; a multichat has two.

    The first message is the prompt of the request. Source: docs, GenAI "Thread", "Turn", "Message".
    """
    return [_thread(assignment) for _ in range(2 if assignment.type == "multichat" else 1)]


def _thread(assignment: Assignment) -> dict[str, Any]:
    opening = _prompt(assignment.params) or sentence(assignment.die)
    turns = [_turn(assignment, opening)]
    turns += [_turn(assignment, sentence(assignment.die)) for _ in range(assignment.die.randint(0, 2))]
    return {"id": _id(assignment, "thread"), "turns": turns, "annotations": []}


def _prompt(params: dict[str, Any]) -> str | None:
    """What the request says first: a prompt among its template variables, or its own message."""
    for place in (mapping(params.get("template_variables")), params):
        if isinstance(place.get("prompt"), str):
            return place["prompt"]
    before = [message.get("content") for message in objects(params.get("messages"))]
    return next((text for text in before if isinstance(text, str)), None)


def _turn(assignment: Assignment, asked: str) -> dict[str, Any]:
    reply = _message(assignment, "assistant", sentence(assignment.die))
    reply["annotations"] = [
        {
            "id": _id(assignment, "an"),
            "key": "overall_quality",
            "type": "integer",
            "title": "Overall quality",
            "value": assignment.die.randint(1, 5),
            "possible_values": [1, 2, 3, 4, 5],
        }
    ]
    return {
        "id": _id(assignment, "turn"),
        "messages": [_message(assignment, "user", asked), reply],
        "annotations": [],
    }


def _message(assignment: Assignment, role: str, text: str) -> dict[str, Any]:
    return {
        "role": role,
        "content": {"text": text, "reference_texts": [], "attachments": []},
        "source_id": _id(assignment, "source"),
        "annotations": [],
    }


def _id(assignment: Assignment, kind: str) -> str:
    return f"{kind}_{assignment.die.getrandbits(60):015x}"


def fix_conversation(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The response with its last stage written anew."""
    stages = objects(response.get("responses"))
    if not stages:
        return {**response, **answer_stages(assignment)}
    return {**response, "responses": [*stages[:-1], {**stages[-1], "output": sentence(assignment.die)}]}
