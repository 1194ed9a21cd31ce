"""Conversations with a model, and tasks of several stages: responses, or (second API version) threads of turns."""

from scale.task_types.base import TaskType, answer_only


def _conversation(name: str, description: str) -> TaskType:
    return TaskType(name, description, (), "answer", answer_only)


CONVERSATIONS = (
    _conversation("chat", "A conversation, judged turn by turn"),
    _conversation("chatlite", "A short conversation"),
    _conversation("chatexperimental", "A conversation, in a form on trial"),
    _conversation("multichat", "Several conversations side by side"),
    _conversation("multistage", "The stages of a longer task"),
)
