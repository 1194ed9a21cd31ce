from typing import Any

from tests.workflows.kit import REQUEST, TASK_ID, Spec, boxes, request_of, seen, step, workflow
from workflows.definition.model import Workflow
from workflows.planning.explain import explain
from workflows.planning.identity import annotation_key, digest_of, id_segment, unique_id
from workflows.planning.plan import PlannedFollowUp, plan


def each(kind: str, **keys: Any) -> Workflow:
    return workflow({"x": step(after={"type": ["annotation", "videoannotation"]}, for_each=kind, **keys)})


def found(
    loaded: Workflow, response: Any, task_type: str = "annotation", **keys: Any
) -> list[PlannedFollowUp]:
    return plan(seen(task_type, response, **keys), loaded)


def test_each_annotation_is_named_by_its_uuid() -> None:
    follow_ups = found(each("annotation"), boxes("car", "bus"))
    assert [follow_up.unique_id for follow_up in follow_ups] == [
        f"w.x.{TASK_ID}.uuid-0",
        f"w.x.{TASK_ID}.uuid-1",
    ]
    assert [follow_up.source_annotation for follow_up in follow_ups] == ["uuid-0", "uuid-1"]


def test_an_annotation_without_uuid_is_named_by_a_digest_that_its_order_does_not_change() -> None:
    car, bus = ({"label": label, "left": 1, "top": 2, "width": 3, "height": 4} for label in ("car", "bus"))
    one_way = {follow_up.unique_id for follow_up in found(each("annotation"), {"annotations": [car, bus]})}
    other_way = {
        follow_up.unique_id
        for follow_up in found(each("annotation"), {"annotations": [bus, dict(reversed(car.items()))]})
    }
    assert len(one_way) == 2
    assert one_way == other_way


def test_an_object_that_a_video_shows_in_many_frames_is_asked_about_once() -> None:
    annotations = [{"type": "box", "uuid": "track", "label": "car", "frame": frame} for frame in range(5)]
    (follow_up,) = found(
        each("annotation"),
        {"annotations": {"url": "https://a.example"}},
        "videoannotation",
        annotations=annotations,
    )
    assert follow_up.source_annotation == "track"


def test_where_filters_the_fan_out() -> None:
    follow_ups = found(each("annotation", where="annotation.label == 'bus'"), boxes("car", "bus"))
    assert [follow_up.source_annotation for follow_up in follow_ups] == ["uuid-1"]


def test_the_request_of_each_is_about_its_own_annotation() -> None:
    params = {**REQUEST, "instruction": "The ${{ annotation.label }}", "metadata": {"n": "${{ item.uuid }}"}}
    create = {"type": "annotation", "params": params}
    follow_ups = found(each("annotation", create=create), boxes("car", "bus"))
    assert [follow_up.request["instruction"] for follow_up in follow_ups] == ["The car", "The bus"]
    assert [follow_up.request["metadata"] for follow_up in follow_ups] == [{"n": "uuid-0"}, {"n": "uuid-1"}]


def test_one_that_can_not_be_asked_does_not_stop_the_others() -> None:
    params = {**REQUEST, "instruction": "The ${{ annotation.label }}"}
    response = boxes("car", "bus")
    del response["annotations"][0]["label"]
    first, second = found(each("annotation", create={"type": "annotation", "params": params}), response)
    assert (first.state, second.state) == ("skipped", "planned")


def test_each_label_is_asked_once_and_named_by_its_digest() -> None:
    create = {
        "type": "annotation",
        "params": {**REQUEST, "layers": "${{ as_layers(only(annotations, label)) }}"},
    }
    follow_ups = found(each("label", create=create), boxes("car", "bus", "car"))
    assert [follow_up.unique_id for follow_up in follow_ups] == [
        f"w.x.{TASK_ID}.{digest_of('car')}",
        f"w.x.{TASK_ID}.{digest_of('bus')}",
    ]
    assert [len(follow_up.request["layers"]["boxes"]) for follow_up in follow_ups] == [2, 1]


def test_each_frame_of_a_video_of_images_is_asked_also_the_empty_ones() -> None:
    task = {"params": {"attachments": ["0.png", "1.png", "2.png"]}}
    create = {
        "type": "imageannotation",
        "params": {
            "attachment": "${{ at(task.params.attachments, frame) }}",
            "geometries": {"box": {}},
            "layers": "${{ as_layers(at_frame(annotations, frame)) }}",
        },
    }
    annotations = [{**box, "type": "box", "frame": 1} for box in boxes("car", "bus")["annotations"]]
    follow_ups = found(
        each("frame", create=create),
        {"annotations": {"url": "u"}},
        "videoannotation",
        task=task,
        annotations=annotations,
    )
    assert [follow_up.unique_id for follow_up in follow_ups] == [
        f"w.x.{TASK_ID}.{frame}" for frame in range(3)
    ]
    assert [request_of(follow_up)["attachment"] for follow_up in follow_ups] == ["0.png", "1.png", "2.png"]
    assert [len(follow_up.request.get("layers", {}).get("boxes", ())) for follow_up in follow_ups] == [
        0,
        2,
        0,
    ]


def test_each_element_of_a_jmespath_list_is_asked_and_equal_ones_once() -> None:
    create = {"type": "annotation", "params": {**REQUEST, "attachment": "${{ item }}"}}
    task = {"params": {"pages": ["a.png", "b.png", "a.png"]}}
    follow_ups = found(each("task.params.pages", create=create), boxes(), task=task)
    assert [request_of(follow_up)["attachment"] for follow_up in follow_ups] == ["a.png", "b.png"]
    assert follow_ups[0].unique_id == f"w.x.{TASK_ID}.{digest_of('a.png')}"
    assert found(each("task.params.missing", create=create), boxes()) == []


def test_what_is_no_list_leaves_a_skipped_follow_up() -> None:
    (follow_up,) = found(each("task.params.attachment"), boxes())
    assert (follow_up.state, follow_up.reason) == (
        "skipped",
        "for_each: `task.params.attachment` is not a list",
    )


def test_copies_are_numbered_after_what_they_are_about() -> None:
    create = {"type": "annotation", "params": {**REQUEST, "metadata": {"copy": "${{ copy }}"}}}
    follow_ups = found(each("annotation", copies=2, create=create), boxes("car", "bus"))
    assert [follow_up.unique_id.removeprefix(f"w.x.{TASK_ID}.") for follow_up in follow_ups] == [
        "uuid-0.1",
        "uuid-0.2",
        "uuid-1.1",
        "uuid-1.2",
    ]
    assert [follow_up.request["metadata"]["copy"] for follow_up in follow_ups] == [1, 2, 1, 2]


def test_copies_come_before_the_response_in_an_identity() -> None:
    view = seen()
    follow_ups = plan(view, workflow({"x": step(copies=2, repeat="each_response")}))
    assert [follow_up.unique_id for follow_up in follow_ups] == [
        f"w.x.{TASK_ID}.{copy}.{str(view.digest)[:16]}" for copy in (1, 2)
    ]


def test_a_word_that_can_not_stand_in_a_unique_id_stands_there_as_its_digest() -> None:
    assert id_segment("5774cc78b01249ab09f089dd") == "5774cc78b01249ab09f089dd"
    assert id_segment("a/b") == digest_of("a/b")
    assert id_segment("a.b") == digest_of("a.b")
    assert id_segment("x" * 41) == digest_of("x" * 41)
    assert id_segment("retry-1") == digest_of("retry-1")
    assert annotation_key({"uuid": "ä"}) == digest_of("ä")
    assert annotation_key({"uuid": ""}) == digest_of({"uuid": ""})


def test_a_unique_id_is_never_longer_than_120_characters() -> None:
    long = unique_id("p-", "w" * 30, "s" * 30, "t" * 40, "a" * 40)
    assert len(long) == 2 + 30 + 1 + 30 + 1 + 32
    assert long != unique_id("p-", "w" * 30, "s" * 30, "t" * 40, "b" * 40)


def test_a_cut_takes_the_place_of_the_attachment() -> None:
    create = {
        "type": "categorization",
        "params": {"instruction": "?", "categories": ["a"], "attachment": "${{ task.params.attachment }}"},
    }
    follow_ups = found(
        each("annotation", crop={"padding": 10, "min_size": 64}, create=create), boxes("car", "bus")
    )
    assert [request_of(follow_up)["attachment"] for follow_up in follow_ups] == [
        {
            "$file": {
                "make": "crop",
                "of": "https://images.example/street.png",
                "left": 0,
                "top": 28,
                "width": 64,
                "height": 64,
            }
        },
        {
            "$file": {
                "make": "crop",
                "of": "https://images.example/street.png",
                "left": 88,
                "top": 28,
                "width": 64,
                "height": 64,
            }
        },
    ]


def test_a_request_without_attachment_is_given_a_cut_of_the_source_image() -> None:
    create = {"type": "categorization", "params": {"instruction": "?", "categories": ["a"]}}
    (follow_up,) = found(each("annotation", crop={}, create=create), boxes("car"))
    assert request_of(follow_up)["attachment"]["$file"]["of"] == "https://images.example/street.png"


def test_an_annotation_without_a_place_in_the_image_is_not_cut_out() -> None:
    (follow_up,) = found(
        each("annotation", crop={}), {"annotations": [{"uuid": "u", "label": "car", "type": "box"}]}
    )
    assert (follow_up.state, follow_up.reason) == (
        "skipped",
        "the annotation has no place in the image, so there is nothing to cut",
    )


def test_layers_can_be_drawn_in_the_coordinates_of_the_cut() -> None:
    params = {**REQUEST, "layers": "${{ as_layers(annotation).into(crop) }}"}
    (follow_up,) = found(
        each("annotation", crop={"padding": "50%"}, create={"type": "annotation", "params": params}),
        {"annotations": [{"left": 100, "top": 50, "width": 40, "height": 20}]},
    )
    assert follow_up.request["layers"] == {"boxes": [{"left": 20, "top": 10, "width": 40, "height": 20}]}


CLASSIFY = {"type": "categorization", "params": {"instruction": "?", "categories": ["a"]}}


def piece(left: int, **keys: Any) -> Spec:
    return {
        "type": "box",
        "label": "car",
        "uuid": "u1",
        "left": left,
        "top": 10,
        "width": 10,
        "height": 20,
        **keys,
    }


def test_pieces_of_one_object_are_one_element_whose_crop_and_bounds_cover_all_of_them() -> None:
    create = {
        "type": "categorization",
        "params": {
            "instruction": "${{ annotation.width }} wide",
            "attachment": "${{ task.params.attachment }}",
            "categories": ["a"],
            "layers": "${{ as_layers(annotation) }}",
            "attachment_type": "image",
        },
    }
    whole = {"annotations": [piece(100), piece(300, top=50), {**piece(7), "uuid": "u2"}]}
    first, second = found(each("annotation", crop={}, create=create), whole)
    request = request_of(first)
    assert request["attachment"]["$file"] == {
        "make": "crop", "of": "https://images.example/street.png", "left": 100, "top": 10, "width": 210, "height": 60,
    }  # fmt: skip
    assert request["instruction"] == "210 wide"
    assert [box["left"] for box in request["layers"]["boxes"]] == [100, 300]
    assert request_of(second)["attachment"]["$file"]["left"] == 7
    assert first.reason is None


def test_pieces_of_a_polygon_are_cut_out_together() -> None:
    def polygon(left: int) -> Spec:
        corners = [{"x": left, "y": 5}, {"x": left + 9, "y": 5}, {"x": left, "y": 9}]
        return {"type": "polygon", "label": "car", "uuid": "u1", "vertices": corners}

    (follow_up,) = found(
        each("annotation", crop={}, create=CLASSIFY), {"annotations": [polygon(10), polygon(80)]}
    )
    cut = request_of(follow_up)["attachment"]["$file"]
    assert (cut["left"], cut["width"]) == (10, 79)


def test_what_a_fan_out_leaves_out_is_in_the_reason_and_in_the_explanation() -> None:
    frames = [piece(1, frame=0), piece(2, frame=0), piece(3, frame=1), piece(4, frame=2)]
    unnamed = {"type": "box", "label": "bus", "left": 1, "top": 1, "width": 5, "height": 5, "frame": 0}
    loaded = each("annotation")
    given = seen("annotation", {"annotations": []}, annotations=[*frames, unnamed, unnamed])
    first, second = plan(given, loaded)
    assert first.reason == "2 more annotations of this object, in other frames, are left out"
    assert second.reason == "1 more annotations, equal to this one, are left out"
    assert (first.state, second.state) == ("planned", "planned")
    (explained,) = explain(given, loaded)
    assert (explained.elements, explained.left, explained.omitted) == (2, 2, 3)


def test_equal_items_of_a_list_are_counted() -> None:
    loaded = each(
        "answer.words", create={"type": "annotation", "params": {**REQUEST, "metadata": {"w": "${{ item }}"}}}
    )
    follow_ups = plan(seen("annotation", {"words": ["a", "b", "a"]}), loaded)
    assert [one.reason for one in follow_ups] == ["1 more items of the same identity are left out", None]
