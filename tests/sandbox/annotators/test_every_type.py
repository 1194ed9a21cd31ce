"""Tests for all annotators: form, parsing, determinism, and fixes that change something."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.annotators import ANNOTATORS, AnnotatorContext, fix_response, make_error_response, make_response
from scale.result_files import ResultFileReader
from scale.task_types import TASK_TYPES, parse_response

PAYLOADS = Path(__file__).parents[2] / "payloads"
# Recorded answers in Scale's own form. The others record what is odd, and what no annotator would write.
RECORDED = (
    "annotation/boxes_of_2017",
    "annotation/leaf_labels",
    "annotation/live_form",
    "annotation/without_labels",
    "audiotranscription/alignment",
    "audiotranscription/transcript",
    "categorization/one",
    "categorization/one_with_its_id",
    "categorization/several",
    "categorization/several_with_their_ids",
    "chat/responses",
    "comparison/choice_alone",
    "comparison/choice_and_fields",
    "cuboidannotation/vertices_alone",
    "cuboidannotation/points_of_a_known_camera",
    "cuboidannotation/vertices_and_edges",
    "datacollection/fields_and_time",
    "laneannotation/file",
    "lidarannotation/file_of_cuboids",
    "lidarlinking/file_of_cameras",
    "lidarsegmentation/file_of_points",
    "lidarsegmentation/points_alone",
    "lidartopdown/file",
    "lineannotation/lines",
    "pointannotation/points",
    "polygonannotation/polygons",
    "segmentannotation/instances",
    "transcription/fields",
    "transcription/repeatable_fields",
    "transcription/rows_of_2016",
    "videoannotation/file_of_frames",
    "videoannotation/file_of_frames_and_events",
    "videoboxannotation/file",
    "videoplaybackannotation/two_files",
)
# Below these the customer's own names are keys.
NAMED_BY_CUSTOMER = {"fields", "labeled", "labelMapping", "attributes", "global_attributes"}


def lacks(recorded: Any, answered: Any, path: str = "response") -> list[str]:
    """What the recorded form has and the answer has not, by key and JSON type; of lists the first items are compared."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        problems = []
        for key in recorded.keys() - NAMED_BY_CUSTOMER:
            if key in answered:
                problems += lacks(recorded[key], answered[key], f"{path}.{key}")
            else:
                problems.append(f"{path}.{key} is missing")
        return problems
    if isinstance(recorded, list) and isinstance(answered, list):
        return lacks(recorded[0], answered[0], f"{path}[]") if recorded and answered else []
    kinds = json_type(recorded), json_type(answered)
    return [] if kinds[0] == kinds[1] else [f"{path} is {kinds[1]}, recorded as {kinds[0]}"]


def json_type(value: Any) -> str:
    names = {bool: "boolean", dict: "object", list: "array", str: "string", int: "number", float: "number"}
    return names.get(type(value), "null")


@pytest.mark.parametrize("case", RECORDED)
def test_a_response_has_the_form_of_the_recorded_one(case: str, store) -> None:
    body = json.loads((PAYLOADS / f"{case}.json").read_bytes())
    assert (
        lacks(body["response"], make_response(body["task"], AnnotatorContext(seed=1, put_file=store.put)))
        == []
    )


def test_every_known_type_has_its_own_annotator() -> None:
    answered = [name for annotator in ANNOTATORS for name in annotator.types]
    assert sorted(answered) == sorted(known.name for known in TASK_TYPES)


@pytest.mark.parametrize("seed", range(5))
def test_responses_and_fixes_are_parsed_without_a_warning(task, seed, store) -> None:
    response = make_response(task, AnnotatorContext(seed=seed, put_file=store.put))
    fixed = fix_response(
        task, response, AnnotatorContext(seed=seed, put_file=store.put, read_file=store.files.get)
    )
    again = fix_response(
        task, fixed, AnnotatorContext(seed=seed, put_file=store.put, read_file=store.files.get)
    )
    for current in (response, fixed, again):
        result = parse_response(task["type"], current, task["params"])
        assert result.warnings == []
        assert result.error is None
        assert json.loads(json.dumps(current)) == current


def test_a_result_refers_only_to_stored_files(task, store) -> None:
    result = parse_response(
        task["type"], make_response(task, AnnotatorContext(seed=3, put_file=store.put)), task["params"]
    )
    assert {artifact.url for artifact in result.artifacts} == set(store.files)


@pytest.mark.parametrize("seed", range(5))
def test_the_rows_of_every_json_file_are_read_without_a_warning(task, seed, store) -> None:
    response = make_response(task, AnnotatorContext(seed=seed, put_file=store.put))
    for current in (
        response,
        fix_response(
            task, response, AnnotatorContext(seed=seed, put_file=store.put, read_file=store.files.get)
        ),
    ):
        result = parse_response(task["type"], current, task["params"])
        for artifact in result.artifacts:
            if task["type"] == "segmentannotation":
                continue  # pictures
            content = io.BytesIO(store.files[artifact.url])
            reading = ResultFileReader(artifact.role, task["type"], task["params"], content)
            rows = list(reading)
            assert [row.warning for row in rows if row.warning] == []
            assert reading.warnings == []
            assert rows or artifact.role == "events"


def test_the_same_task_and_seed_give_the_same_response_and_files(task) -> None:
    def kept(seed: int) -> list[bytes]:
        files: list[bytes] = []
        response = make_response(
            task,
            AnnotatorContext(seed=seed, put_file=lambda content, _: files.append(content) or str(len(files))),
        )
        return [json.dumps(response).encode(), *files]

    assert kept(1) == kept(1)
    assert len({tuple(kept(seed)) for seed in range(12)}) > 1


@pytest.mark.parametrize("readable", [True, False])
def test_a_fix_is_never_equal_to_what_it_fixed(task, readable, store) -> None:
    for seed in range(8):
        response = make_response(task, AnnotatorContext(seed=seed, put_file=store.put))
        read_file = store.files.get if readable else lambda url: None
        fixed = fix_response(
            task, response, AnnotatorContext(seed=seed, put_file=store.put, read_file=read_file)
        )
        old, new = (contents(current, store) for current in (response, fixed))
        assert old != new
        assert {key: value for key, value in new.items() if key != "is_customer_fix"} != {
            key: value for key, value in old.items() if key != "is_customer_fix"
        }


def contents(response: Any, store) -> Any:
    """A response with the contents of its files in place of their addresses."""
    if isinstance(response, dict):
        return {key: contents(value, store) for key, value in response.items()}
    if isinstance(response, list):
        return [contents(value, store) for value in response]
    return store.files.get(response, response) if isinstance(response, str) else response


def test_a_fix_of_a_task_without_a_response_answers_it(task, store) -> None:
    assert fix_response(task, None, AnnotatorContext(seed=1, put_file=store.put)) is not None


@pytest.mark.parametrize(
    "params", [{}, None, [], {"geometries": {"box": None}}, {"labels": None, "fields": []}]
)
def test_a_task_with_missing_or_wrong_parameters_gets_a_response(task, params, store) -> None:
    odd = {**task, "params": params}
    response = make_response(odd, AnnotatorContext(seed=1, put_file=store.put))
    assert isinstance(response, dict)
    assert isinstance(fix_response(odd, response, AnnotatorContext(seed=1, put_file=store.put)), dict)


def test_an_unknown_type_gets_a_response_by_its_parameters(store) -> None:
    asked = {"type": "somethingnew", "params": {"choices": ["a", "b"]}}
    assert make_response(asked, AnnotatorContext(seed=1, put_file=store.put))["choice"] in ("a", "b")
    response = make_response(
        {"type": "somethingnew", "params": {}}, AnnotatorContext(seed=1, put_file=store.put)
    )
    assert (
        fix_response({"type": "somethingnew"}, response, AnnotatorContext(seed=1, put_file=store.put))
        != response
    )


@pytest.mark.parametrize("kind", ["attachments", "frames", "message"])
def test_error_responses_are_parsed_as_errors(task, kind, store) -> None:
    current = make_error_response(task, kind)
    result = parse_response(task["type"], current, task["params"])
    assert result.error == current
    assert result.warnings == []


def test_an_error_names_each_attachment_and_frame_as_scale_does() -> None:
    task = {"type": "comparison", "params": {"attachments": ["https://a.example/1", "https://a.example/2"]}}
    assert make_error_response(task, "attachments")["attachments"] == [
        {"statusCode": 403, "url": "https://a.example/1"},
        {"statusCode": 403, "url": "https://a.example/2"},
    ]
    assert make_error_response(task, "frames")["frames"][0]["attachment"] == {
        "statusCode": 200,
        "url": "https://a.example/1",
    }
    with pytest.raises(ValueError, match="not 'fire'"):
        make_error_response(task, "fire")
