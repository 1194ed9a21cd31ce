from typing import Any

import pytest

from tests.workflows.kit import REQUEST, Spec, errors, step, workflow


def creating(task_type: str, after: Any = "polygonannotation", **params: Any) -> Spec:
    return {
        "x": {
            "after": {"type": after},
            "create": {"type": task_type, "params": {"attachment": "a", **params}},
        }
    }


def params_error(steps: Spec, field: str) -> str:
    return errors(steps)[f"steps.x.create.params.{field}" if field else "steps.x.create.params"]


def test_a_step_says_which_results_it_looks_at_and_what_it_does() -> None:
    assert "is required" in errors({"x": {"create": step()["create"]}})["steps.x.after"]
    assert "add `create`" in errors({"x": {"after": {"type": "annotation"}}})["steps.x"]
    assert "cannot be combined with `create`" in errors({"x": step(python="json:loads")})["steps.x.python"]


@pytest.mark.parametrize("key", ["callback_url", "unique_id", "clear_unique_id_on_error"])
def test_what_the_service_adds_or_what_could_pay_twice_is_refused(key: str) -> None:
    assert params_error(creating("annotation", objects_to_annotate=["car"], **{key: "x"}), key)


def test_a_misspelled_task_type_is_refused_and_one_that_is_new_at_scale_is_not() -> None:
    assert "did you mean `annotation`?" in errors(creating("anotation"))["steps.x.create.type"]
    assert workflow(creating("holographictagging"))


def test_required_fields_are_missed_before_they_cost_anything() -> None:
    assert "is required for annotation" in params_error(creating("annotation"), "objects_to_annotate")
    assert "choices or fields is required" in params_error(creating("comparison", attachments=["a"]), "")


def test_a_project_can_supply_all_but_the_file() -> None:
    assert workflow(creating("annotation", project="street-scenes"))
    broken = {
        "x": {
            "after": {"type": "polygonannotation"},
            "create": {"type": "annotation", "params": {"project": "p"}},
        }
    }
    assert list(errors(broken)) == ["steps.x.create.params.attachment"]


def test_a_value_that_is_only_known_with_a_result_counts_as_given() -> None:
    assert workflow(creating("annotation", objects_to_annotate="${{ task.params.objects_to_annotate }}"))


def test_a_layer_that_can_never_be_is_an_error_at_check_time() -> None:
    points = creating("annotation", "pointannotation", objects_to_annotate=["car"], layers="${{ layers }}")
    assert "layers have no key for the annotations of pointannotation (point)" in params_error(
        points, "layers"
    )
    filtered = creating(
        "annotation", "pointannotation", objects_to_annotate=["car"], layers="${{ layers.only('a') }}"
    )
    assert "have no key" in params_error(filtered, "layers")
    answers = creating("annotation", "categorization", objects_to_annotate=["car"], layers="${{ layers }}")
    assert "it has none" in params_error(answers, "layers")
    mixed = creating(
        "annotation", ["pointannotation", "annotation"], objects_to_annotate=["car"], layers="${{ layers }}"
    )
    assert workflow(mixed)


def test_layers_go_only_to_types_that_take_them() -> None:
    assert "takes no layers" in params_error(
        creating("segmentannotation", labels=["a"], layers="${{ layers }}"), "layers"
    )
    text = creating(
        "categorization", instruction="x", categories=["a"], attachment_type="text", layers="${{ layers }}"
    )
    assert "only with attachment_type image" in params_error(text, "layers")


def test_layers_of_a_video_and_of_an_image_are_not_mixed_up() -> None:
    image = creating("annotation", "videoannotation", objects_to_annotate=["car"], layers="${{ layers }}")
    assert "as_layers(at_frame(annotations" in params_error(image, "layers")
    video = creating("videoannotation", geometries={"box": {}}, layers="${{ layers }}")
    assert "a file with layers for each frame" in params_error(video, "layers")
    assert workflow(
        creating("videoannotation", "videoannotation", geometries={"box": {}}, layers="${{ layers }}")
    )


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        ("annotation", "imageannotation", True),
        ("imageannotation", "imageannotation", True),
        ("segmentannotation", "segmentannotation", True),
        ("videoannotation", "videoannotation", True),
        ("annotation", "segmentannotation", False),
        ("segmentannotation", "imageannotation", False),
        ("categorization", "imageannotation", False),
        ("annotation", "videoannotation", False),
        ("annotation", "polygonannotation", True),  # not documented there: a warning
        ("something-new", "imageannotation", True),
    ],
)
def test_a_hypothesis_must_have_the_form_of_the_next_tasks_response(
    source: str, target: str, fits: bool
) -> None:
    more = {"objects_to_annotate": ["a"], "geometries": {"box": {}}, "labels": ["a"]}
    steps = creating(target, source, hypothesis="${{ hypothesis }}", **more)
    if fits:
        workflow(steps)
    else:
        assert params_error(steps, "hypothesis")


def test_a_parameter_that_is_not_documented_is_a_warning_and_the_workflow_is_loaded() -> None:
    loaded = workflow(creating("annotation", objects_to_annotate=["car"], with_label=True))
    (warning,) = loaded.warnings
    assert (warning.field, warning.line) != ("", None)
    assert "with_label" in warning.field
    assert "not a documented parameter" in warning.message


def test_conditions_of_attributes_that_form_a_circle_are_found() -> None:
    attributes = {
        "parked": {"choices": ["a"], "conditions": {"attribute_conditions": [{"moving": "no"}]}},
        "moving": {"choices": ["a"], "conditions": {"attribute_conditions": {"parked": "no"}}},
    }
    found = errors(creating("annotation", objects_to_annotate=["car"], annotation_attributes=attributes))
    assert "form a circle: parked → moving → parked" in "".join(found.values())


@pytest.mark.parametrize(
    ("where", "word", "said"),
    [
        ("when", "annotation.label == 'car'", "exists only in a step with `for_each: annotation`"),
        ("when", "results[0]", "exists only in a step with `join`"),
        ("when", "anotations", "did you mean `annotations`?"),
        ("for_each", "taks.params.items", "did you mean `task`?"),
    ],
)
def test_a_name_that_the_view_does_not_have_is_found(where: str, word: str, said: str) -> None:
    assert said in errors({"x": step(**{where: word})})[f"steps.x.{where}"]


def test_names_of_the_request_depend_on_the_step() -> None:
    asking = {
        **REQUEST,
        "metadata": {"a": "${{ annotation }}", "b": "${{ copy }}", "c": "${{ crop }}", "d": "${{ item }}"},
    }
    create = {"type": "annotation", "params": asking}
    assert set(errors({"x": step(create=create)})) == {
        f"steps.x.create.params.metadata.{key}" for key in "abcd"
    }
    assert workflow({"x": step(create=create, for_each="annotation", crop={}, copies=2)})


def test_filters_and_cuts_need_what_they_work_on() -> None:
    assert "filters the elements of `for_each`" in errors({"x": step(where="task")})["steps.x.where"]
    assert "add `for_each: annotation`" in errors({"x": step(for_each="label", crop={})})["steps.x.crop"]
    assert (
        "has no field 'atachment', did you mean `attachment`?"
        in errors({"x": step(mirror="atachment")})["steps.x.mirror"]
    )


def test_a_step_that_is_named_must_be_there_and_make_tasks() -> None:
    assert (
        "did you mean `boxes`?"
        in errors({"boxes": step(), "y": step(after={"step": "boxs"})})["steps.y.after.step"]
    )
    joined = {"after": {"step": "a"}, "join": {}}
    steps = {"a": step(), "b": joined, "c": step(after={"step": "b"})}
    assert "creates no tasks" in errors(steps)["steps.c.after.step"]
    assert (
        "did you mean `boxes`?"
        in errors({"boxes": step(on_error={"start": "boxs"})})["steps.boxes.on_error.start"]
    )


def test_steps_that_only_wait_for_each_other_are_found() -> None:
    steps = {"a": step(after={"step": "b"}), "b": step(after={"step": "a"}), "c": step()}
    assert set(errors(steps)) == {"steps.a.after", "steps.b.after"}
    assert workflow({"a": step(after={"step": ["b", "c"]}), "b": step(after={"step": "a"}), "c": step()})


def test_a_step_that_an_error_starts_needs_no_after() -> None:
    assert workflow({"a": step(on_error={"start": "b"}), "b": {"create": step()["create"]}})


def test_steps_that_take_each_others_results_by_type_alone_are_warned_of() -> None:
    polygons = {"type": "polygonannotation", "params": REQUEST}
    steps = {"a": step(), "b": step(after={"type": "annotation"}, create=polygons)}
    assert "until the depth limit" in workflow(steps).warnings[0].message
    narrowed = {"a": step(after={"type": "polygonannotation", "project": "p"}), "b": steps["b"]}
    narrowed["b"] = step(
        after={"type": "annotation"},
        create={"type": "polygonannotation", "params": {**REQUEST, "project": "q"}},
    )
    assert not workflow(narrowed).warnings


def test_a_join_names_the_one_step_it_waits_for_and_a_known_reducer() -> None:
    def join(after: Spec, **keys: Any) -> dict[str, str]:
        return errors({"a": step(), "b": step(), "x": {"after": after, "join": keys}})

    assert "tasks of one step" in join({"type": "annotation"})["steps.x.join"]
    assert "tasks of one step" in join({"step": ["a", "b"]})["steps.x.join"]
    assert "cannot be combined with `join`" in join({"step": "a", "project": "p"})["steps.x.after.project"]
    assert "did you mean `majority`?" in join({"step": "a"}, reduce="majorty")["steps.x.join.reduce"]
    assert (
        "is not an option of majority (options: none)"
        in join({"step": "a"}, reduce={"by": "majority", "iou": 1})["steps.x.join.reduce.iou"]
    )
    assert (
        "expected a number from 0 to 1"
        in join({"step": "a"}, reduce={"by": "consensus-boxes", "iou": 50})["steps.x.join.reduce.iou"]
    )
    assert "either `wait` or `quorum`" in join({"step": "a"}, wait=2, quorum="50%")["steps.x.join"]
    assert "expected a duration" in join({"step": "a"}, within="7 days")["steps.x.join.within"]


def test_a_python_function_must_exist() -> None:
    after = {"after": {"type": "annotation"}}
    assert "cannot import" in errors({"x": {**after, "python": "no.such.module:f"}})["steps.x.python"]
    assert "cannot import" in errors({"x": {**after, "python": "json:no_such_function"}})["steps.x.python"]
    assert "is not a function" in errors({"x": {**after, "python": "json:__doc__"}})["steps.x.python"]


def test_names_that_would_make_a_unique_id_too_long_are_refused() -> None:
    assert workflow({"s" * 40: step(for_each="annotation")}, workflow="w" * 17)
    found = errors({"s" * 40: step(for_each="annotation")}, workflow="w" * 18)
    assert "shorten the names by 1" in "".join(found.values())
    assert "shorten the names by" in "".join(
        errors({"s" * 40: step(copies=3, repeat="each_response")}, workflow="w" * 40).values()
    )


def test_a_key_that_an_example_does_not_have_is_found() -> None:
    examples = [{"given": {}, "expect": [{"staet": "held"}]}]
    found = errors({"x": step()}, examples=examples)["examples[0].expect[0].staet"]
    assert "is not a known key, did you mean `state`?" in found


def test_what_starts_nothing_is_reported_with_other_errors_and_not_where_an_after_is_wrong() -> None:
    circle = {"x": step(after={"step": "y"}), "y": step(after={"step": "x"})}
    assert "nothing starts this step" in errors({**circle, "z": step(copies=0)})["steps.x.after"]
    assert set(errors({"x": step(after=5), "y": step(after={"step": "x"})})) == {"steps.x.after"}
