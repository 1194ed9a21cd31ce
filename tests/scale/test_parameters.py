from typing import Any

import pytest

from scale.parameters import UNKNOWN, check_parameters, problems
from scale.task_types import CREATABLE, GENERIC, TASK_TYPES

BOXES = {"attachment": "https://images.example/a.png", "objects_to_annotate": ["car"]}
IMAGE = {
    "attachment": "https://images.example/a.png",
    "geometries": {"box": {"objects_to_annotate": ["car"]}},
}
SEGMENTS = {"attachment": "https://images.example/a.png", "labels": ["road"]}
VIDEO = {"attachments": ["https://images.example/0.png"], "geometries": {"box": {}}}


@pytest.mark.parametrize(
    ("task_type", "request_"),
    [
        ("annotation", {**BOXES, "min_width": "30", "min_height": "30", "with_labels": True, "layers": {"polygons": []}}),
        ("imageannotation", {**IMAGE, "hypothesis": {"annotations": []}, "base_annotations": {"annotations": []}, "priority": 30}),
        ("segmentannotation", {**SEGMENTS, "labels": [["vehicle"], "road", {"choice": "car", "instance_label": True}]}),
        ("videoannotation", {**VIDEO, "layers": {"url": "u"}, "hypothesis": {"annotations": {"url": "u"}}}),
        ("videoannotation", {"attachment": "a.mp4", "attachment_type": "video", "geometries": {"box": {}}}),
        ("categorization", {"attachment": "text", "categories": ["a"], "instruction": "x", "attachment_type": "text"}),
        ("categorization", {"attachment": "https://images.example/a.png", "taxonomies": {"weather": {"choices": ["sun"]}}, "instruction": "x"}),
        ("transcription", {"attachment": "a", "row_fields": {"amount": "?"}}),
        ("videoplaybackannotation", {"attachment": "a.mp4", "attachments": ["0.png"], "geometries": {"box": {}}, "video_frame_rate": 30}),
        ("textcollection", {"fields": [{"type": "text", "field_id": "a"}], "responses_required": 2}),
        ("comparison", {"attachments": ["a", "b"], "fields": {"difference": "?"}}),
        ("transcription", {"attachment": "a", "repeatable_fields": {"item": {"description": "?", "choices": ["a"]}}}),
        ("lidarsegmentation", {"lidar_task": "5774cc78b01249ab09f089dd", "labels": ["road"]}),
        ("namedentityrecognition", {"text": "x", "labels": [{"name": "a", "description": "b"}]}),
        ("annotation", {"attachment": "a", "project": "p"}),
        ("annotation", dict.fromkeys(("attachment", "objects_to_annotate", "layers", "metadata"), UNKNOWN)),
        ("something-new", {"anything": 1}),
    ],
)  # fmt: skip
def test_nothing_is_said_against_a_request_that_scale_takes(task_type: str, request_: dict[str, Any]) -> None:
    assert problems(task_type, request_) == []


@pytest.mark.parametrize(
    ("task_type", "request_", "field", "said"),
    [
        ("annotation", {"objects_to_annotate": ["car"]}, "attachment", "attachment is required for annotation"),
        ("annotation", {**BOXES, "attachment": None}, "attachment", "is required"),
        ("annotation", {"project": "p"}, "attachment", "is required"),
        ("comparison", {"attachments": ["a"]}, "", "choices or fields is required"),
        ("segmentannotation", {"attachment": "a"}, "", "labels or instance_labels is required"),
        ("annotation", {**BOXES, "objects_to_annotate": list("abcdefg")}, "objects_to_annotate", "has 7; annotation takes at most 6"),
        ("lineannotation", {**BOXES, "objects_to_annotate": list("abcd")}, "objects_to_annotate", "at most 3"),
        ("segmentannotation", {**SEGMENTS, "labels": [str(n) for n in range(51)]}, "labels", "at most 50"),
        ("segmentannotation", {**SEGMENTS, "instance_labels": list("abcdefghijk")}, "instance_labels", "at most 10"),
        ("annotation", {**BOXES, "objects_to_annotate": "car"}, "objects_to_annotate", "expected a list"),
        ("annotation", {**BOXES, "objects_to_annotate": [True]}, "objects_to_annotate.0", "expected text, or an object with `choice`"),
        ("annotation", {**BOXES, "objects_to_annotate": [{"choice": "a", "subchoices": [{}]}]}, "objects_to_annotate.0.subchoices.0", "`choice`"),
        ("annotation", {**BOXES, "with_labels": "maybe"}, "with_labels", "expected true or false"),
        ("annotation", {**BOXES, "attachment_type": "video"}, "attachment_type", "takes image, not 'video'"),
        ("annotation", {**BOXES, "min_width": "wide"}, "min_width", "expected a number"),
        ("annotation", {**BOXES, "min_height": -1}, "min_height", "must not be negative"),
        ("polygonannotation", {**BOXES, "min_vertices": 5, "max_vertices": 4}, "max_vertices", "must be at least min_vertices"),
        ("annotation", {**BOXES, "tags": list("abcdef")}, "tags", "at most 5"),
        ("annotation", {**BOXES, "metadata": {"a": "x" * 10_240}}, "metadata", "larger than 10 KB"),
        ("annotation", {**BOXES, "priority": 5}, "priority", "expected 10, 20 or 30"),
        ("annotation", {**BOXES, "urgency": "now"}, "urgency", "expected standard or express"),
        ("imageannotation", {**IMAGE, "geometries": {"boxes": {}}}, "geometries.boxes", "expected one of box, polygon"),
        ("imageannotation", {**IMAGE, "geometries": {"line": {"min_vertices": 3, "max_vertices": 2}}}, "geometries.line.max_vertices", "at least"),
        ("imageannotation", {**IMAGE, "context_attachments": ["a"]}, "context_attachments.0", "expected an object with `attachment`"),
        ("imageannotation", {**IMAGE, "context_attachments": [{"attachment": IMAGE["attachment"]}]}, "context_attachments.0", "must not be the attachment"),
        ("segmentannotation", {**SEGMENTS, "layers": {"boxes": []}}, "layers", "takes no layers"),
        ("comparison", {"attachments": ["a"], "choices": ["x"], "layers": {}}, "layers", "takes no layers"),
        ("categorization", {"attachment": "a", "categories": ["a"], "instruction": "x", "layers": {"boxes": []}}, "layers", "only with attachment_type image"),
        ("annotation", {**BOXES, "layers": {"points": []}}, "layers.points", "takes boxes, polygons, lines, cuboids"),
        ("annotation", {**BOXES, "layers": {"boxes": {}}}, "layers.boxes", "expected a list"),
        ("videoannotation", {**VIDEO, "layers": {"boxes": []}}, "layers.boxes", "takes url"),
        ("imageannotation", {**IMAGE, "hypothesis": {"annotations": {"url": "u"}}}, "hypothesis", "a list in the form of the response"),
        ("imageannotation", {**IMAGE, "base_annotations": []}, "", ""),
        ("imageannotation", {**IMAGE, "base_annotations": {"boxes": []}}, "base_annotations", "expected `annotations`"),
        ("videoannotation", {**VIDEO, "hypothesis": {"annotations": []}}, "hypothesis", "`url` of a file"),
        ("segmentannotation", {**SEGMENTS, "hypothesis": {"annotations": {}}}, "hypothesis", "indexedImage"),
        ("videoannotation", {**VIDEO, "attachment_type": "video"}, "attachments", "must be left out with attachment_type video"),
        ("videoannotation", {"attachment": "a", "attachment_type": "image", "geometries": {"box": {}}}, "attachments", "is required with attachment_type image"),
        ("lidarsegmentation", {"lidar_task": "1", "attachments": ["a"], "labels": ["b"]}, "attachments", "must be left out with lidar_task"),
        ("categorization", {"attachment": "a", "categories": ["a"], "instruction": "x", "category_ids": {"1": "b"}}, "category_ids.1", "not one of the categories"),
        ("annotation", {**BOXES, "annotation_attributes": {"a": {"type": "colour"}}}, "annotation_attributes.a.type", "expected one of category"),
        ("annotation", {**BOXES, "annotation_attributes": {"a": {"type": "number", "min": 2, "max": 1}}}, "annotation_attributes.a.max", "at least min"),
    ],
)  # fmt: skip
def test_what_scale_would_refuse_is_said_with_its_field(
    task_type: str, request_: dict[str, Any], field: str, said: str
) -> None:
    found = check_parameters(task_type, request_)
    if not said:  # an empty list is a value that is not there
        assert found == []
        return
    assert any(one.field == field and said in one.message for one in found), found


def attributes(**asks: list[str]) -> dict[str, Any]:
    conditions = {
        name: {"attribute_conditions": [{other: "yes"} for other in others]} for name, others in asks.items()
    }
    return {
        **BOXES,
        "annotation_attributes": {
            name: {"choices": ["yes"], "conditions": inner} for name, inner in conditions.items()
        },
    }


def test_conditions_that_form_a_circle_are_listed_in_its_order() -> None:
    assert problems("annotation", attributes(a=["b"], b=["c"], c=[])) == []
    assert problems("annotation", attributes(a=["b", "c"], b=["c"], c=[])) == []
    assert problems("annotation", attributes(a=["a"])) == [
        "annotation_attributes.a.conditions: form a circle: a → a"
    ]
    (found,) = problems("annotation", attributes(x=["a"], a=["b"], b=["c"], c=["a"]))
    assert found == "annotation_attributes.a.conditions: form a circle: a → b → c → a"


def test_a_long_chain_of_conditions_is_walked_to_its_end() -> None:
    chain = {f"a{n}": [f"a{n + 1}"] for n in range(5000)}
    assert problems("annotation", attributes(**chain)) == []
    assert problems("annotation", attributes(**chain, a5000=["a0"]))


@pytest.mark.parametrize(
    ("task_type", "request_", "field"),
    [
        ("annotation", {**BOXES, "hypothesis": {"annotations": []}}, "hypothesis"),
        ("annotation", {**BOXES, "with_label": True}, "with_label"),
        ("segmentannotation", {**SEGMENTS, "base_annotations": {"annotations": []}}, "base_annotations"),
        ("videoplaybackannotation", {**VIDEO, "layers": {"url": "u"}}, "layers"),
        ("comparison", {"attachments": ["a"], "choices": ["x"], "labels": {"not": "a list"}}, "labels"),
        ("phonecall", {"phone_number": "1"}, ""),
    ],
)
def test_a_parameter_that_the_documentation_does_not_list_is_a_warning(
    task_type: str, request_: dict[str, Any], field: str
) -> None:
    found = check_parameters(task_type, request_)
    assert found
    assert all(one.warning and one.field == field for one in found)
    assert problems(task_type, request_) == []


def test_a_type_whose_documentation_is_incomplete_gives_no_warnings() -> None:
    for known in (*CREATABLE, GENERIC):
        assert known.request is not None
        if not known.request.complete:
            assert not any(one.warning for one in check_parameters(known.name, {"anything": 1}))


def test_the_types_that_take_layers_are_those_of_the_documentation() -> None:
    taking = {known.name for known in TASK_TYPES if known.request and known.request.takes_layers}
    drawn = {"annotation", "pointannotation", "lineannotation", "polygonannotation", "cuboidannotation"}
    assert taking == drawn | {"imageannotation", "videoannotation", "categorization"}


@pytest.mark.parametrize("odd", [None, 1, "x", [], {}, [1], {"a": 1}, True])
@pytest.mark.parametrize(
    "name",
    [
        "annotation_attributes",
        "category_ids",
        "context_attachments",
        "geometries",
        "hypothesis",
        "layers",
        "metadata",
        "objects_to_annotate",
        "tags",
    ],
)
def test_odd_values_are_refused_or_passed_and_never_raise(name: str, odd: Any) -> None:
    for known in (*TASK_TYPES, GENERIC):
        assert isinstance(problems(known.name, {name: odd, "categories": ["a"]}), list)
