import json
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.kit import POLYGON, ROOT, TASK_ID, errors, step, workflow, written
from workflows.definition.loader import load, load_file
from workflows.definition.model import Workflow
from workflows.docs.examples import run_examples

BODY = {"task": {"task_id": TASK_ID, "type": "polygonannotation", "status": "completed"}, "response": POLYGON}


def differences(expect: object, given: object = BODY) -> list[str]:
    loaded = workflow({"x": step()}, examples=[{"given": given, "expect": expect}])
    return [said for tried in run_examples(loaded) for said in tried.differences]


@pytest.mark.parametrize("folder", ["config/demonstration", "examples"])
def test_the_examples_of_every_shipped_workflow_hold(folder: str) -> None:
    for loaded in load(ROOT / folder).loaded:
        assert loaded.examples, f"{loaded.name} shows no example"
        for tried in run_examples(loaded):
            assert tried.differences == (), f"{loaded.name}: {tried.example.name}"


def test_an_example_passes_when_what_it_names_is_so() -> None:
    assert (
        differences(
            [
                {
                    "step": "x",
                    "type": "annotation",
                    "state": "planned",
                    "reason": None,
                    "params": {"objects_to_annotate": ["car"]},
                }
            ]
        )
        == []
    )


def test_an_example_tells_what_differs() -> None:
    assert differences([]) == ["expected 0 follow-ups, not 1 (x)"]
    assert differences([{"state": "held", "params": {"attachment": "b"}}]) == [
        "follow-up 1: state is 'planned'; expected 'held'",
        "follow-up 1: params.attachment is 'https://images.example/a.png'; expected 'b'",
    ]


def test_an_example_can_say_what_stands_around_its_payload() -> None:
    assert differences([{"state": "held"}], {"payload": BODY, "depth": 5}) == []
    assert differences([], {"payload": BODY, "step": "x"}) == []
    assert differences([], {"payload": BODY, "recalled": True}) == []


def test_the_payload_of_an_example_can_be_a_file_next_to_the_workflow(tmp_path: Path) -> None:
    (tmp_path / "payloads").mkdir()
    (tmp_path / "payloads/one.json").write_text(json.dumps(BODY))
    text = written({"x": step()}, examples=[{"given": "payloads/one.json", "expect": [{"step": "x"}]}])
    (tmp_path / "w.yaml").write_text(text)
    loaded = load_file(tmp_path / "w.yaml")
    assert isinstance(loaded, Workflow)
    assert [tried.differences for tried in run_examples(loaded)] == [()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"payload": 7}, "payload: expected the body of a callback, or its path, not 7"),
        ({"payload": {"task": {}}, "results": 7}, "results: expected a list of bodies"),
        ({"payload": {"task": {}}, "parent": None}, "parent: expected the body of a callback"),
        ({"payload": {"task": {}}, "annotations": {}}, "annotations: expected a list"),
        ({"payload": {"task": {}}, "stepp": "x"}, "stepp is not a known key"),
        ({}, "expected the body of a callback"),
        ("no/such/file.json", "No such file"),
    ],
    ids=str,
)
def test_an_example_with_an_unusable_payload_fails_and_says_why(given: Any, message: str) -> None:
    loaded = workflow({"x": step()}, examples=[{"given": given, "expect": []}])
    (result,) = run_examples(loaded)
    assert message in result.differences[0]


def test_an_example_that_is_not_a_mapping_is_found() -> None:
    assert errors({"x": step()}, examples=[7]) == {"examples[0]": "expected a mapping"}
