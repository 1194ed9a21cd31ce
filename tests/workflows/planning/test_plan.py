from copy import deepcopy
from typing import Any

import pytest

from tests.workflows.kit import (
    POLYGON,
    REQUEST,
    ROOT,
    TASK_ID,
    Spec,
    boxes,
    made_by,
    named,
    request_of,
    seen,
    step,
    workflow,
)
from workflows.definition.loader import load_file
from workflows.definition.model import Workflow, limits_for
from workflows.planning.conditions import states, steps_to_cancel
from workflows.planning.plan import PlannedFollowUp, plan
from workflows.planning.reasons import Reason, ReasonCode
from workflows.planning.view import Source, View, view

# The seeds' own chain: their polygon callback, and the request that their Flask example sends for it.
SEEDS_POLYGON = {
    "annotations": [
        {"label": "car", "vertices": [{"x": 123, "y": 10}, {"x": 140, "y": 49}, {"x": 67, "y": 34}]}
    ]
}
SEEDS_REQUEST = {
    "instruction": "Draw a box around each **car** and **pedestrian**",
    "attachment_type": "image",
    "attachment": "http://i.imgur.com/XOJbalC.jpg",
    "objects_to_annotate": ["car", "pedestrian"],
    "with_labels": True,
    "min_width": 30,
    "min_height": 30,
    "layers": {"polygons": SEEDS_POLYGON["annotations"]},
}


def one(found: list[PlannedFollowUp]) -> PlannedFollowUp:
    assert len(found) == 1, found
    return found[0]


def follows(keys: Spec, *, task: Spec | None = None, **given: Any) -> bool:
    """Whether a step with these keys in `after` follows a view."""
    return bool(
        plan(seen(task=task, **given), workflow({"x": step(after={"type": "polygonannotation", **keys})}))
    )


def test_the_seeds_polygons_become_the_seeds_request() -> None:
    shipped = load_file(ROOT / "tests/workflows/files/polygons-to-boxes.yaml")
    assert isinstance(shipped, Workflow)
    task = {
        "params": {"attachment": "http://i.imgur.com/XOJbalC.jpg", "objects_to_annotate": ["car", "truck"]}
    }
    follow_up = one(plan(seen(response=SEEDS_POLYGON, task=task), shipped))
    assert follow_up.request == SEEDS_REQUEST
    assert (follow_up.task_type, follow_up.state, follow_up.reason) == ("annotation", "planned", None)
    assert follow_up.unique_id == f"polygons-to-boxes.boxes.{TASK_ID}"


def test_a_follow_up_names_where_it_comes_from() -> None:
    loaded = workflow({"x": step()})
    follow_up = one(plan(seen(depth=2), loaded))
    assert (follow_up.workflow, follow_up.step, follow_up.digest) == ("w", "x", loaded.digest)
    assert (follow_up.source_task_id, follow_up.source_annotation) == (TASK_ID, None)
    assert follow_up.source_response == seen().digest
    assert follow_up.depth == 3


@pytest.mark.parametrize(
    ("after", "task", "yes"),
    [
        ({"type": ["annotation", "polygonannotation"]}, {}, True),
        ({"type": "annotation"}, {}, False),
        ({"project": "street"}, {"project": "street"}, True),
        ({"project": ["street", "sea"]}, {"project": "sea"}, True),
        ({"project": "street"}, {}, False),
        ({"batch": "week-12"}, {"batch": "week-12"}, True),
        ({"batch": "week-12"}, {"batch": "week-13"}, False),
        ({"tags": ["a", "b"]}, {"tags": ["b", "c", "a"]}, True),
        ({"tags": ["a", "b"]}, {"tags": ["a"]}, False),
        ({"tags": "a"}, {"tags": "abc"}, False),
        ({"metadata": {"city": "Bern"}}, {"metadata": {"city": "Bern"}}, True),
        ({"metadata": {"city": ["Bern", "Basel"]}}, {"metadata": {"city": "Basel"}}, True),
        ({"metadata": {"city": "Bern"}}, {"metadata": None}, False),
        ({"metadata": {"night": True}}, {"metadata": {"night": 1}}, False),
    ],
)
def test_a_step_looks_at_the_tasks_that_it_names(after: Spec, task: Spec, yes: bool) -> None:
    assert follows(after, task=task) is yes


def test_a_step_can_ask_for_an_environment() -> None:
    assert follows({"environment": "test"}, environment="test")
    assert not follows({"environment": "test"}, environment="live")


@pytest.mark.parametrize(
    ("state", "given"),
    [
        ({"completed"}, seen()),
        ({"completed"}, seen(task={"status": "pending"})),
        ({"completed", "accepted"}, seen(task={"customer_review_status": "accepted"})),
        ({"completed", "rejected"}, seen(review="rejected")),
        ({"completed", "fixed"}, seen(task={"audits": [{"audit_result": "accepted", "audited_at": "2020-01-01"}, {"audit_result": "fixed", "audited_at": "2020-01-02"}]})),
        ({"completed"}, seen(task={"customer_review_status": "commented"})),
        ({"error"}, seen(response={"error": "no image"}, task={"status": "error"})),
        ({"error"}, seen(response={"error": "no image"})),
        ({"error"}, view({"task_id": "x", "status": "error"}, None)),
        ({"recalled"}, view({"task_id": "x", "status": "pending", "customer_review_status": "accepted"}, None, recalled=True)),
        (set(), view({"task_id": "x", "status": "pending"}, None)),
        (set(), seen(task={"status": "canceled"})),
    ],
)  # fmt: skip
def test_states_are_levels_that_say_how_a_result_stands(state: set[str], given: View) -> None:
    assert states(given) == state


def test_a_step_looks_at_completed_results_unless_it_says_otherwise() -> None:
    assert follows({})
    assert not follows({"state": "accepted"})
    assert follows({"state": ["accepted", "rejected"]}, review="rejected")
    assert not follows({}, response={"error": "no image"})
    assert follows({"state": "error"}, response={"error": "no image"})


def test_a_condition_decides() -> None:
    assert plan(seen(), workflow({"x": step(when="length(annotations) == `1`")}))
    assert not plan(seen(), workflow({"x": step(when="length(annotations) == `2`")}))


def test_a_condition_that_can_not_be_evaluated_leaves_a_skipped_follow_up_that_says_so() -> None:
    follow_up = one(plan(seen(), workflow({"x": step(when="length(task.missing) > `1`")})))
    assert (follow_up.state, follow_up.request) == ("skipped", {})
    assert follow_up.reason is not None
    assert follow_up.reason.startswith("when: `length(task.missing) > `1``")


def test_a_value_that_can_not_be_had_leaves_a_skipped_follow_up_that_says_so() -> None:
    params = {**REQUEST, "instruction": "Boxes in ${{ task.metadata.city }}"}
    follow_up = one(plan(seen(), workflow({"x": step(create={"type": "annotation", "params": params})})))
    assert (follow_up.state, follow_up.reason) == (
        "skipped",
        "`task.metadata.city` is null inside a text",
    )


def test_a_request_that_scale_would_refuse_is_not_sent() -> None:
    params = {**REQUEST, "attachment": "${{ task.params.video }}"}
    follow_up = one(plan(seen(), workflow({"x": step(create={"type": "annotation", "params": params})})))
    assert follow_up.state == "skipped"
    assert (
        follow_up.reason
        == "Scale would refuse the request: attachment: attachment is required for annotation"
    )


def asking_for(name: str, task_type: str = "imageannotation") -> Workflow:
    params = {"attachment": "a", "geometries": {"box": {}}, name: "${{ " + name + " }}"}
    return workflow({"x": step(after={"project": "p"}, create={"type": task_type, "params": params})})


MIXED = {
    "annotations": [
        {"type": "box", "left": 1, "top": 2, "width": 3, "height": 4},
        {"type": "point", "x": 1, "y": 2},
        {"type": "point", "x": 3, "y": 4},
    ]
}


def test_layers_are_sent_without_what_has_no_layer_and_the_reason_says_so() -> None:
    follow_up = one(plan(seen("imageannotation", MIXED, task={"project": "p"}), asking_for("layers")))
    assert follow_up.state == "planned"
    assert list(follow_up.request["layers"]) == ["boxes"]
    assert follow_up.reason == seen("imageannotation", MIXED).layer_notes[0]
    assert "2 point" in follow_up.reason


def test_nothing_is_sent_when_nothing_is_left_to_send() -> None:
    points = {"annotations": MIXED["annotations"][1:]}
    follow_up = one(plan(seen("imageannotation", points, task={"project": "p"}), asking_for("layers")))
    assert follow_up.state == "skipped"
    assert follow_up.reason is not None
    assert follow_up.reason.startswith("there is nothing to send: 2 point")
    follow_up = one(
        plan(
            seen("chat", {"text": "x"}, task={"project": "p", "status": "completed"}),
            asking_for("base_annotations"),
        )
    )
    assert (follow_up.state, follow_up.reason) == (
        "skipped",
        "there is nothing to send: this chat result cannot be sent as base_annotations",
    )


def test_an_empty_result_is_sent_on_without_layers() -> None:
    follow_up = one(
        plan(seen("imageannotation", {"annotations": []}, task={"project": "p"}), asking_for("layers"))
    )
    assert (follow_up.state, follow_up.reason) == ("planned", "sent without layers, because there are none")
    assert "layers" not in follow_up.request


def test_a_live_box_becomes_a_hypothesis_that_an_image_task_takes() -> None:
    live = {
        "annotations": [{"geometry": "box", "left": 1, "top": 2, "width": 3, "height": 4, "label": "car"}],
        "is_customer_fix": False,
    }
    follow_up = one(plan(seen("annotation", live, task={"project": "p"}), asking_for("hypothesis")))
    assert follow_up.request["hypothesis"] == {
        "annotations": [{"type": "box", "left": 1, "top": 2, "width": 3, "height": 4, "label": "car"}]
    }


def test_layers_of_a_video_are_a_file_that_is_still_to_be_made() -> None:
    params = {"attachments": ["a", "b"], "geometries": {"box": {}}, "layers": "${{ layers.only('car') }}"}
    loaded = workflow(
        {"x": step(after={"type": "videoannotation"}, create={"type": "videoannotation", "params": params})}
    )
    annotations = [{**box, "type": "box", "frame": 1} for box in boxes("car", "bus")["annotations"]]
    given = seen(
        "videoannotation", {"annotations": {"url": "https://results.example/a"}}, annotations=annotations
    )
    assert request_of(one(plan(given, loaded)))["layers"] == {
        "url": {"$file": {"make": "layers", "task_id": TASK_ID, "response": given.digest, "labels": ["car"]}}
    }


def test_a_step_takes_its_own_results_only_if_it_names_itself() -> None:
    after = {"type": ["polygonannotation", "annotation"]}
    own = seen("annotation", boxes("car"), source=made_by("x"))
    assert plan(seen(), workflow({"x": step(after=after)}))
    assert not plan(own, workflow({"x": step(after=after)}))
    naming = workflow({"x": step(after={**after, "step": "x"})})
    assert plan(own, naming)
    assert plan(seen(), naming)


def test_a_step_of_another_workflow_with_the_same_name_is_not_itself() -> None:
    other = Source("other", "x", "other.x.1", "1")
    assert plan(seen(source=other), workflow({"x": step()}))
    after_step = workflow({"x": step(), "y": step(after={"step": "x"})})
    assert [follow_up.step for follow_up in plan(seen(source=other), after_step)] == ["x"]


def test_a_step_follows_the_tasks_of_an_earlier_step() -> None:
    loaded = workflow({"x": step(), "y": step(after={"step": "x"})})
    found = plan(seen("annotation", boxes("car"), task_id="child", source=made_by("x")), loaded)
    assert [follow_up.unique_id for follow_up in found] == ["w.y.child"]


def test_held_steps_wait_and_dry_runs_are_recorded_as_skipped() -> None:
    assert (held := one(plan(seen(), workflow({"x": step(hold=True)})))).state == "held"
    assert held.reason == "waits for approval"
    dry = one(plan(seen(), workflow({"x": step(dry_run=True, hold=True)})))
    assert (dry.state, dry.reason) == ("skipped", "dry run")
    assert dry.request == REQUEST


def test_what_the_view_holds_back_is_held_with_its_reason() -> None:
    reason = Reason(ReasonCode.AGE, "the result was imported 9 days after it happened")
    follow_up = one(plan(seen(held=reason), workflow({"x": step()})))
    assert (follow_up.state, follow_up.reason_code, follow_up.reason) == ("held", *reason)


@pytest.mark.parametrize(
    ("depth", "keys", "state"),
    [
        (4, {}, "planned"),
        (5, {}, "held"),
        (1, {"limits": {"depth": 1}}, "held"),
        (5, {"limits": {"depth": 6}}, "planned"),
    ],
)
def test_a_chain_is_held_at_its_depth(depth: int, keys: Spec, state: str) -> None:
    assert one(plan(seen(depth=depth), workflow({"x": step(**keys)}))).state == state


def test_the_counters_that_a_follow_up_must_pass_are_those_of_its_workflow_and_its_step() -> None:
    def counters(step_limits: Spec | None = None, **of_workflow: int) -> set[tuple[str, str, int]]:
        keys = {"limits": step_limits} if step_limits else {}
        loaded = workflow({"x": step(**keys)}, **({"limits": of_workflow} if of_workflow else {}))
        return set(limits_for(loaded, named(loaded, "x")))

    assert counters() == {("w", "day", 10_000)}
    assert counters(per_day=20_000, total=7) == {("w", "day", 20_000), ("w", "ever", 7)}
    assert counters({"per_day": 50_000}) == {("w.x", "day", 50_000)}
    assert counters({"per_day": 5, "total": 9}, per_day=10) == {
        ("w", "day", 10),
        ("w.x", "day", 5),
        ("w.x", "ever", 9),
    }


def test_a_sample_is_fixed_by_the_task_and_has_about_its_size() -> None:
    loaded = workflow({"x": step(sample="5%"), "y": step(sample="5%")})
    drawn = {name: set() for name in "xy"}
    for number in range(4000):
        for follow_up in plan(seen(task_id=f"{number:024x}"), loaded):
            drawn[follow_up.step].add(number)
    assert all(150 < len(numbers) < 250 for numbers in drawn.values())
    assert len(drawn["x"] & drawn["y"]) < 30  # steps draw independently
    again = next(iter(drawn["x"]))
    assert plan(seen(task_id=f"{again:024x}"), loaded)


def test_the_prefix_stands_before_every_identity() -> None:
    assert one(plan(seen(), workflow({"x": step()}), "staging-")).unique_id == f"staging-w.x.{TASK_ID}"


def test_each_response_is_followed_again_only_when_the_step_repeats() -> None:
    other = {"annotations": [*POLYGON["annotations"], *POLYGON["annotations"]]}
    once, repeating = workflow({"x": step()}), workflow({"x": step(repeat="each_response")})
    assert one(plan(seen(), once)).unique_id == one(plan(seen(response=other), once)).unique_id
    first, second = (one(plan(seen(response=response), repeating)).unique_id for response in (POLYGON, other))
    assert first != second
    assert first == f"w.x.{TASK_ID}.{str(seen().digest)[:16]}"


def test_a_recall_cancels_only_where_the_step_says_so() -> None:
    loaded = workflow({"x": step(on_recall="cancel"), "y": step()})
    assert steps_to_cancel(view({"task_id": "1", "status": "pending"}, None, recalled=True), loaded) == ["x"]
    assert steps_to_cancel(seen(), loaded) == []


def handler_of_two(given: View) -> list[Spec]:
    return [
        {"type": "annotation", "params": {**REQUEST, "metadata": {"of": given.task_id}}, "key": key}
        for key in ("a", "b")
    ]


def handler_that_fails(given: View) -> list[Spec]:
    raise KeyError("colour")


def handler_without_keys(given: View) -> list[Spec]:
    return [{"type": "annotation", "params": REQUEST}, {"type": "annotation", "params": REQUEST}]


def handler_with_one_key_twice(given: View) -> list[Spec]:
    return [
        {"type": "annotation", "params": REQUEST, "key": "a"},
        {"type": "annotation", "params": {**REQUEST, "instruction": "Again"}, "key": "a"},
    ]


def handler_that_ends_the_process(given: View) -> list[Spec]:
    raise SystemExit(3)


def handler_of_one(given: View) -> Spec:
    return {"type": "annotation", "params": REQUEST}


def handler_without_type(given: View) -> list[Spec]:
    return [{"type": None, "params": REQUEST}]


def handler_without_params(given: View) -> list[Spec]:
    return [{"type": "annotation"}]


def handler_that_could_pay_twice(given: View) -> list[Spec]:
    return [{"type": "annotation", "params": {**REQUEST, "clear_unique_id_on_error": True}}]


def python(name: str) -> Workflow:
    return workflow(
        {
            "x": {
                "after": {"type": "polygonannotation"},
                "python": f"{__name__}:{name}",
                "mirror": "attachment",
            }
        }
    )


def test_a_python_function_gives_follow_ups_under_the_same_guarantees() -> None:
    first, second = plan(seen(), python("handler_of_two"))
    assert (first.unique_id, second.unique_id) == (f"w.x.{TASK_ID}.a", f"w.x.{TASK_ID}.b")
    assert first.request["metadata"] == {"of": TASK_ID}
    assert request_of(first)["attachment"] == {"$file": {"make": "mirror", "of": REQUEST["attachment"]}}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("handler_that_fails", "raised KeyError: 'colour'"),
        ("handler_without_keys", "each needs another `key`"),
        ("handler_with_one_key_twice", "each needs another `key`"),
        ("handler_that_ends_the_process", "raised SystemExit: 3"),
        ("handler_of_one", "expected a list of mappings with type, params and key; it contains 'type'"),
        ("handler_without_type", "expected a task type as `type`, not None"),
        ("handler_without_params", "expected a mapping as `params`, not None"),
        ("handler_that_could_pay_twice", "clear_unique_id_on_error is refused"),
    ],
)
def test_a_python_function_that_fails_stops_nothing_and_is_seen(name: str, said: str) -> None:
    follow_up = one(plan(seen(), python(name)))
    assert follow_up.state == "skipped"
    assert said in str(follow_up.reason)


def test_what_could_pay_twice_is_refused_also_where_an_expression_gives_it() -> None:
    again = workflow({"x": step(create={"type": "annotation", "params": "${{ task.params }}"})})
    follow_up = one(plan(seen(task={"params": {**REQUEST, "clear_unique_id_on_error": True}}), again))
    assert (follow_up.state, follow_up.reason) == (
        "skipped",
        "clear_unique_id_on_error is refused, because a retry would pay again; remove it",
    )


def handler_that_changes_what_it_sees(given: View) -> list[Spec]:
    given.task["params"]["attachment"] = "https://images.example/other.png"
    given.annotations.clear()
    return [{"type": "annotation", "params": REQUEST}]


def test_what_a_python_function_changes_is_its_own_copy() -> None:
    view = seen()
    before = deepcopy((view.task, view.annotations))
    assert one(plan(view, python("handler_that_changes_what_it_sees"))).state == "planned"
    assert (view.task, view.annotations) == before
