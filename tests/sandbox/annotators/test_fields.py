"""Tests for responses with fields, collections, entities, documents and conversations."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.annotators import AnnotatorContext, fix_response, make_response, task_fields
from tests.sandbox.annotators.conftest import FORM, REQUESTS


def unused(content: bytes, media_type: str) -> str:
    raise AssertionError("no files here")


def answered(type: str, params: dict[str, Any], seed: int = 1) -> dict[str, Any]:
    return make_response({"type": type, "params": params}, AnnotatorContext(seed=seed, put_file=unused))


def fixed(type: str, params: dict[str, Any], response: Any, seed: int = 1) -> dict[str, Any]:
    return fix_response(
        {"type": type, "params": params}, response, AnnotatorContext(seed=seed, put_file=unused)
    )


@settings(max_examples=60, deadline=None)
@given(
    categories=st.lists(st.text(min_size=1), min_size=1, max_size=6, unique=True),
    with_ids=st.booleans(),
    several=st.booleans(),
    seed=st.integers(0, 999),
)
def test_categories_and_their_ids_belong_together(categories, with_ids, several, seed) -> None:
    ids = {str(100 + n): category for n, category in enumerate(categories)} if with_ids else {}
    params = {"categories": categories, "category_ids": ids, "allow_multiple": several}
    response = answered("categorization", params, seed)
    for current in (response, fixed("categorization", params, response, seed)):
        assert isinstance(current["category"], list) == several
        chosen = current["category"] if several else [current["category"]]
        assert chosen
        assert set(chosen) <= set(categories)
        assert ("category_id" in current) == with_ids
        if with_ids:
            given_ids = current["category_id"] if several else [current["category_id"]]
            assert [ids[key] for key in given_ids] == chosen


def test_a_comparison_has_only_the_values_that_the_request_asks_for() -> None:
    assert answered("comparison", {"choices": ["yes", "no"]}).keys() == {"choice"}
    assert answered("comparison", {"fields": {"why": "Why?"}})["fields"].keys() == {"why"}


def test_fields_are_texts_under_the_customers_own_names() -> None:
    params = {"fields": {"größe": "Size", "total": "Amount"}, "row_fields": {"item": "Item"}}
    response = answered("transcription", params)
    assert response["fields"].keys() == {"größe", "total"}
    assert all(isinstance(value, str) for value in response["fields"].values())
    assert float(response["fields"]["total"]) > 0
    assert all(row.keys() == {"item"} for row in response["rows"])


def test_repeatable_fields_are_rows_whose_choices_are_kept_also_by_a_fix() -> None:
    params = REQUESTS["transcription"]
    for seed in range(20):
        response = answered("transcription", params, seed)
        for current in (response, fixed("transcription", params, response, seed)):
            assert all(row.keys() == {"item", "kind"} for row in current["repeatable_fields"])
            assert all(row["kind"] in ("food", "drink") for row in current["repeatable_fields"])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_speech_is_aligned_word_by_word_within_its_duration(seed: int) -> None:
    response = answered("audiotranscription", REQUESTS["audiotranscription"], seed)
    words = response["alignment"]
    assert " ".join(word["word"] for word in words) == response["transcript"].rstrip(".")
    clock = 0.0
    for word in words:
        assert clock <= word["start"] < word["end"]
        assert 0 <= word["confidence"] <= 1
        clock = word["end"]
    assert clock < response["duration"]
    assert "Weigh bridge" in response["transcript"]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_collection_is_answered_as_documented(seed: int) -> None:
    params = REQUESTS["textcollection"]
    response = answered("textcollection", params, seed)
    for current in (response, fixed("textcollection", params, response, seed)):
        values = current["annotations"]
        assert values.keys() == {field["field_id"] for field in FORM}
        assert values["color"] in ("red", "blue")
        assert isinstance(values["price"], str)
        assert float(values["price"]) >= 0
        assert isinstance(values["in_stock"], bool)
        assert set(values["sizes"]) <= {"S", "M"}
        assert len(values["sizes"]) == len(set(values["sizes"])) > 0
        assert values["maker"].keys() == {"name"}


def test_where_several_responses_are_required_a_collection_takes_the_live_form() -> None:
    params = REQUESTS["textcollection"] | {"responses_required": 3}
    response = answered("textcollection", params)
    assert response["annotations"]["color"]["response"] in ([["red"]], [["blue"]])
    assert isinstance(response["annotations"]["title"]["response"][0], str)
    fields = task_fields(
        {"type": "textcollection", "params": params}, AnnotatorContext(seed=1, put_file=unused)
    )
    assert len(fields["attempts"]) == 3
    assert fields["attempts"][0]["response"] == response
    again = fixed("textcollection", params, response)["annotations"]
    assert all("response" in value for value in again.values())


texts = st.text(alphabet="abc xyz.,ä中😀\n", max_size=200) | st.just(
    "Ada met Bilal in Ankara in May, current Carla."
)


@settings(max_examples=100, deadline=None)
@given(text=texts, seed=st.integers(0, 999), labels=st.sampled_from([["person"], ["person", "place"]]))
def test_entities_are_the_text_at_their_offsets_and_never_overlap(text, seed, labels) -> None:
    params = {"text": text, "labels": [{"name": label} for label in labels], "relationships": ["knows"]}
    response = answered("namedentityrecognition", params, seed)
    for current in (response, fixed("namedentityrecognition", params, response, seed)):
        spans = sorted(current["annotations"], key=lambda span: span["start"])
        for span in spans:
            assert text[span["start"] : span["end"]] == span["text"] != ""
            assert span["label"] in labels
        assert all(one["end"] <= other["start"] for one, other in pairwise(spans))
        ids = {span["id"] for span in spans}
        assert len(ids) == len(spans)
        for relationship in current["relationships"]:
            assert {relationship["source_ref"], relationship["target_ref"]} <= ids
            assert relationship["name"] == "knows"


def test_entities_of_a_hypothesis_keep_their_ids() -> None:
    span = {"id": "s1", "start": 0, "end": 3, "text": "Ada", "label": "person"}
    params = REQUESTS["namedentityrecognition"] | {"hypothesis": {"annotations": [span]}}
    for seed in range(10):
        spans = answered("namedentityrecognition", params, seed)["annotations"]
        assert spans[0] == span
        assert all(other["start"] >= 3 for other in spans[1:])


@pytest.mark.parametrize("type", ["documenttranscription", "documentmodel"])
def test_blocks_lie_on_the_pages_that_the_task_names(type: str) -> None:
    task = {"type": type, "params": REQUESTS[type]}
    every = task_fields(task, AnnotatorContext(seed=1, put_file=unused))["document_pages"]
    assert len(every) == len(task["params"].get("attachments", [1]))
    for seed in range(10):
        response = make_response(task, AnnotatorContext(seed=seed, put_file=unused))
        assert response["annotations"]
        for block in response["annotations"]:
            page, location = every[block["page"]], block["location"]
            assert 0 <= location["left"] <= location["left"] + location["width"] <= page["width"] + 1e-6
            assert 0 <= location["top"] <= location["top"] + location["height"] <= page["height"] + 1e-6
            assert block["label"] == task["params"]["features"][0]["label"]


def test_a_conversation_begins_with_its_instructions_and_has_threads() -> None:
    task = {"type": "multichat", "params": REQUESTS["multichat"]}
    response = make_response(task, AnnotatorContext(seed=1, put_file=unused))
    assert response["responses"][0] == {"type": "Instructions", "output": ""}
    threads = task_fields(task, AnnotatorContext(seed=1, put_file=unused))["threads"]
    assert len(threads) == 2
    first = threads[0]["turns"][0]["messages"]
    assert [message["role"] for message in first] == ["user", "assistant"]
    assert first[0]["content"]["text"] == "Hello"
    assert response["responses"][-1]["output"] == threads[0]["turns"][-1]["messages"][-1]["content"]["text"]
    assert 1 <= first[1]["annotations"][0]["value"] <= 5


def test_other_types_have_no_further_fields() -> None:
    assert task_fields({"type": "annotation", "params": {}}, AnnotatorContext(seed=1, put_file=unused)) == {}


@pytest.mark.parametrize("allow_multiple", [False, True])
def test_taxonomies_are_answered_by_their_choices_and_a_fix_changes_one(allow_multiple: bool):
    taxonomies = {
        "weather": {"type": "category", "choices": ["sun", "rain"], "allow_multiple": allow_multiple},
        "remark": {"type": "text", "description": "Anything else"},
    }
    params = {"attachment": "x", "taxonomies": taxonomies}
    for seed in range(20):
        response = answered("categorization", params, seed=seed)
        assert response.keys() == {"taxonomies"}
        (chosen,) = response["taxonomies"]["weather"]["response"]
        assert set(chosen) <= {"sun", "rain"}
        assert chosen
        assert len(chosen) == 1 or allow_multiple
        fixed = fix_response(
            {"type": "categorization", "params": params},
            response,
            AnnotatorContext(seed=seed, put_file=unused),
        )
        assert fixed["taxonomies"] != response["taxonomies"]
        assert set(fixed["taxonomies"]["weather"]["response"][0]) <= {"sun", "rain"}
