import random
from typing import Any

import pytest

from workflows.definition.reducers import REDUCERS, find_reducer


def reduced(name: str, *results: Any, **options: float) -> dict[str, Any]:
    one = find_reducer(name)
    assert one is not None
    return one.reduce(results, {**one.options, **options})


def answer(**keys: Any) -> dict[str, Any]:
    return {"task_id": "t", "answer": keys}


def drawn(*boxes: tuple[float, float, float, float], label: str = "car") -> dict[str, Any]:
    return {
        "task_id": "t",
        "annotations": [
            {"type": "box", "label": label, "left": left, "top": top, "width": width, "height": height}
            for left, top, width, height in boxes
        ],
    }


def test_the_majority_of_categories_is_the_answer_and_its_share_the_agreement() -> None:
    found = reduced("majority", answer(category="red"), answer(category="blue"), answer(category="red"))
    assert found["answer"] == {"category": "red"}
    assert found["agreement"] == pytest.approx(2 / 3)


def test_one_who_does_not_answer_lowers_the_agreement() -> None:
    found = reduced("majority", answer(category="red"), answer(category="red"), {"answer": None})
    assert (found["answer"], found["agreement"]) == ({"category": "red"}, pytest.approx(2 / 3))
    assert reduced("majority")["agreement"] == 0


def test_fields_are_voted_on_one_by_one_and_the_least_agreed_counts() -> None:
    found = reduced(
        "majority",
        answer(choice="yes", fields={"a": "1", "b": "x"}),
        answer(choice="yes", fields={"a": "1", "b": "y"}),
        answer(choice="yes", fields={"a": "2", "b": "z"}),
    )
    assert found["answer"] == {"choice": "yes", "fields": {"a": "1", "b": "x"}}
    assert found["agreement"] == pytest.approx(1 / 3)


def test_of_several_categories_those_stay_that_more_than_half_gave() -> None:
    found = reduced(
        "majority", answer(category=["a", "b"]), answer(category=["a"]), answer(category=["a", "b", "c"])
    )
    assert found["answer"] == {"category": ["a", "b"]}
    assert found["agreement"] == pytest.approx(2 / 3)


def test_labels_and_attributes_of_the_same_annotation_are_voted_on() -> None:
    def result(label: str, parked: Any) -> dict[str, Any]:
        return {
            "annotations": [
                {
                    "uuid": "u",
                    "type": "box",
                    "left": 1,
                    "label": label,
                    "attributes": {"parked": parked, "doors": 4},
                }
            ]
        }

    found = reduced("majority", result("car", "yes"), result("car", "no"), result("bus", "yes"))
    assert found["annotations"] == [
        {"uuid": "u", "type": "box", "left": 1, "label": "car", "attributes": {"parked": "yes", "doors": 4}}
    ]
    assert found["scores"] == [{"agreement": pytest.approx(2 / 3), "votes": 3}]


def test_a_median_box_has_the_median_of_each_side() -> None:
    found = reduced("median-box", drawn((10, 10, 100, 50)), drawn((12, 9, 100, 50)), drawn((11, 80, 100, 50)))
    assert found["annotations"] == [
        {"type": "box", "label": "car", "left": 11, "top": 10, "width": 100, "height": 50}
    ]
    assert 0.6 < found["agreement"] < 0.7


def test_a_median_box_of_those_who_agree_has_agreement_one_and_of_none_zero() -> None:
    assert reduced("median-box", drawn((1, 2, 3, 4)), drawn((1, 2, 3, 4)))["agreement"] == 1
    assert reduced("median-box", drawn((1, 2, 3, 4)), drawn())["agreement"] == 0.5
    assert reduced("median-box", drawn(), drawn()) == {"annotations": [], "scores": [], "agreement": 0.0}


def test_boxes_are_matched_by_overlap_and_those_of_most_stay() -> None:
    found = reduced(
        "consensus-boxes",
        drawn((10, 10, 100, 50), (300, 10, 40, 40)),
        drawn((301, 11, 40, 40), (11, 10, 100, 50)),
        drawn((12, 10, 100, 50), (600, 10, 40, 40)),
    )
    assert [(box["left"], box["top"]) for box in found["annotations"]] == [(11, 10), (300.5, 10.5)]
    assert [score["votes"] for score in found["scores"]] == [3, 2]
    assert [box["left"] for box in found["left_out"]] == [600]
    assert 0 < found["agreement"] < 0.7


def test_two_boxes_of_one_person_are_never_taken_for_one() -> None:
    found = reduced(
        "consensus-boxes",
        drawn((10, 10, 100, 50), (12, 10, 100, 50)),
        drawn((11, 10, 100, 50), (13, 10, 100, 50)),
    )
    assert [score["votes"] for score in found["scores"]] == [2, 2]


def test_labels_do_not_keep_boxes_apart_and_most_decide_them() -> None:
    found = reduced(
        "consensus-boxes", drawn((0, 0, 9, 9)), drawn((0, 0, 9, 9), label="bus"), drawn((0, 0, 9, 9))
    )
    assert [box["label"] for box in found["annotations"]] == ["car"]


def test_nobody_who_draws_anything_agrees_and_who_draws_alone_does_not() -> None:
    assert reduced("consensus-boxes", drawn(), drawn())["agreement"] == 1
    assert reduced("consensus-boxes", drawn((0, 0, 9, 9)), drawn())["agreement"] == 0.5


def test_a_consensus_is_that_of_many_boxes_in_any_order() -> None:
    random.seed(1)
    truth = [(100 * column, 100 * row, 60, 40) for column in range(20) for row in range(20)]
    people = []
    for _ in range(3):
        boxes = [
            (left + random.uniform(-3, 3), top + random.uniform(-3, 3), width, height)
            for left, top, width, height in truth
        ]
        random.shuffle(boxes)
        people.append(drawn(*boxes))
    found = reduced("consensus-boxes", *people)
    assert (len(found["annotations"]), found["left_out"]) == (400, [])
    assert found["agreement"] > 0.85
    assert all(abs(box["left"] - round(box["left"] / 100) * 100) < 3 for box in found["annotations"])


def test_an_empty_box_overlaps_with_nothing() -> None:
    assert reduced("consensus-boxes", drawn((5, 5, 0, 0)), drawn((5, 5, 0, 0)))["annotations"] == []


def test_a_union_has_every_annotation_once() -> None:
    one, other = {"uuid": "u", "label": "car"}, {"label": "bus", "left": 1}
    found = reduced(
        "union",
        {"annotations": [one, other], "answer": {"a": 1}},
        {"annotations": [{**one, "left": 2}, dict(other)], "answer": {"a": 2, "b": 3}},
    )
    assert found == {"annotations": [one, other], "answer": {"a": 1, "b": 3}}


def test_a_concatenation_keeps_everything_with_what_it_is_about() -> None:
    first = {
        "task_id": "1",
        "annotation": {"uuid": "u"},
        "answer": {"category": "a"},
        "annotations": [{"label": "x"}],
    }
    second = {"task_id": "2", "annotation": None, "answer": None, "annotations": [{"label": "x"}]}
    found = reduced("concatenation", first, second)
    assert len(found["annotations"]) == 2
    assert found["answers"][0] == {"annotation": {"uuid": "u"}, "answer": {"category": "a"}, "task_id": "1"}


@pytest.mark.parametrize("name", [one.name for one in REDUCERS])
def test_no_reducer_fails_on_odd_results(name: str) -> None:
    odd: tuple[Any, ...] = (
        {},
        {"annotations": None, "answer": None},
        {"annotations": [{"type": "box", "left": "x"}], "answer": {"a": [{"b": 1}], "c": None}},
    )
    assert isinstance(reduced(name, *odd), dict)
