"""Threads of conversations as messages."""

from typing import Any

import pytest

from app.console.conversations import Message, threads_of


def test_a_thread_is_what_each_side_said_and_how_it_was_judged() -> None:
    rating = {"key": "quality", "title": "Quality", "value": 4}
    turn = {
        "messages": [
            {"role": "user", "content": {"text": "Is it open?"}},
            {"role": "assistant", "content": {"text": "Yes."}, "annotations": [rating]},
        ],
        "annotations": [{"key": "polite", "value": True}],
    }
    [thread] = threads_of(
        {"threads": [{"id": "t1", "turns": [turn], "annotations": [{"key": "safe", "value": "yes"}]}]}
    )
    assert thread.id == "t1"
    assert thread.messages == [
        Message("user", "Is it open?", {}),
        Message("assistant", "Yes.", {"Quality": 4}),
        Message("turn", "", {"polite": True}),
        Message("thread", "", {"safe": "yes"}),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"threads": 1},
        {"threads": [1]},
        {"threads": [{"turns": None}]},
        {"threads": [{"turns": [{"messages": [{"role": "user"}]}]}]},
        {"threads": [{"turns": [{"messages": [{"role": "user", "content": {"text": 5}}]}]}]},
        {"threads": [{"turns": [{"messages": [], "annotations": [3]}]}]},
    ],
)
def test_an_answer_of_another_form_has_no_threads(answer: Any) -> None:
    assert threads_of(answer) == []
