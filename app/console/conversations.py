"""Conversations as people read them: who says what, and how it was judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Message(NamedTuple):
    """What one side says in a turn. `judged` holds the values of its annotations by their titles."""

    role: str
    text: str
    judged: dict[str, Any]


class Thread(NamedTuple):
    """The messages of one conversation, in order."""

    id: str | None
    messages: list[Message]


def threads_of(answer: Any) -> list[Thread]:
    """Return the threads of an answer; empty if it has none, or one in another form. Source: docs, GenAI "Thread", "Turn"."""
    try:
        return [Thread(one.get("id"), list(_messages(one))) for one in answer["threads"]]
    except (AttributeError, KeyError, TypeError):
        return []


def _messages(thread: dict[str, Any]) -> Iterator[Message]:
    for turn in thread["turns"]:
        for one in turn["messages"]:
            text = one["content"]["text"]
            if not isinstance(text, str):
                raise TypeError("a message is no text")
            yield Message(str(one["role"]), text, _judged(one))
        if judged := _judged(turn):
            yield Message("turn", "", judged)
    if judged := _judged(thread):
        yield Message("thread", "", judged)


def _judged(judged: dict[str, Any]) -> dict[str, Any]:
    return {one.get("title") or one["key"]: one.get("value") for one in judged.get("annotations") or ()}
