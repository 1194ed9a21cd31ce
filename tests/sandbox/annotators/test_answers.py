"""Every annotator's answer, compared in form with the recorded payloads, and held to the task's own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sandbox.annotators import answer, fix

RECORDED = sorted((Path(__file__).parents[2] / "payloads").glob("*/*.json"))


class Shelf:
    """Where an annotator keeps its files: addresses count up, contents can be read back."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def put(self, content: bytes, media_type: str) -> str:
        url = f"https://results.example.com/{len(self.files)}"
        self.files[url] = content
        return url


def lacks(recorded: Any, answered: Any, path: str = "response") -> list[str]:
    """What the recorded form has and the answer has not, by key and JSON type; lists by their first items."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        named = set(recorded) & {"fields", "labeled", "labelMapping", "attributes"}
        return [
            problem
            for key in recorded
            for problem in (
                [f"{path}.{key} is missing"]
                if key not in answered
                else lacks(recorded[key], answered[key], f"{path}.{key}")
                if key not in named
                else []
            )
        ]
    if isinstance(recorded, list) and isinstance(answered, list):
        return lacks(recorded[0], answered[0], f"{path}[0]") if recorded and answered else []
    kinds = [json_type(recorded), json_type(answered)]
    return [] if kinds[0] == kinds[1] else [f"{path} is {kinds[1]}, recorded as {kinds[0]}"]


def json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {dict: "object", list: "array", str: "string", int: "number", float: "number"}
    return names.get(type(value), "null")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_answer_has_the_form_of_the_recorded_one(path: Path) -> None:
    body = json.loads(path.read_text())
    task = body.get("task") or {}
    if not isinstance(body.get("response"), dict) or "error" in body["response"]:
        pytest.skip("records no answer")
    shelf = Shelf()
    assert lacks(body["response"], answer(task, seed=1, put_file=shelf.put)) == []


def test_the_same_task_and_seed_get_the_same_answer_and_another_seed_another() -> None:
    task = {"type": "annotation", "params": {"objects_to_annotate": ["car"], "attachment": "x"}}
    first = answer(task, seed=1, put_file=Shelf().put)
    assert first == answer(task, seed=1, put_file=Shelf().put)
    assert first != answer(task, seed=2, put_file=Shelf().put)
    fixed = fix(task, first, seed=1, put_file=Shelf().put)
    assert fixed != first
    assert fixed == fix(task, first, seed=1, put_file=Shelf().put)
