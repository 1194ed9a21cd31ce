"""What must hold of plan() for any workflow and any result."""

import copy
import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workflows.kit import REQUEST, TASK_ID, Spec, made_by
from workflows.definition.loader import parse
from workflows.definition.model import InvalidWorkflow, Workflow
from workflows.planning.explain import explain
from workflows.planning.joins import joins_for
from workflows.planning.plan import plan
from workflows.planning.view import View, view

words = st.sampled_from(["car", "bus", "person", "ä", "a.b/c", ""])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 500)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | words
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
number = st.integers(-20, 300) | st.floats(-20, 300, width=32)

points = st.fixed_dictionaries({"x": number, "y": number})
annotations = st.one_of(
    st.fixed_dictionaries(
        {"label": words, "left": number, "top": number, "width": number, "height": number},
        optional={"uuid": words | st.uuids().map(str), "attributes": junk, "type": st.just("box")},
    ),
    st.fixed_dictionaries(
        {"vertices": st.lists(points, max_size=4)},
        optional={"label": words, "type": st.sampled_from(["polygon", "line", "new"])},
    ),
    st.fixed_dictionaries({"type": st.just("point"), "x": number, "y": number}),
    junk,
)
responses = st.one_of(
    st.fixed_dictionaries({"annotations": st.lists(annotations, max_size=6)}),
    st.fixed_dictionaries({"error": words}),
    st.fixed_dictionaries({"category": words}),
    junk,
)
types = st.sampled_from(
    [
        "annotation",
        "imageannotation",
        "polygonannotation",
        "categorization",
        "videoannotation",
        "something-new",
    ]
)
tasks = st.fixed_dictionaries(
    {"task_id": st.just(TASK_ID) | words, "type": types},
    optional={
        "status": st.sampled_from(["completed", "pending", "error", "canceled"]) | junk,
        "params": st.fixed_dictionaries({"attachment": st.just("a.png")}) | junk,
        "metadata": junk,
        "tags": junk,
        "project": st.just("p") | junk,
        "audits": junk,
        "customer_review_status": st.sampled_from(["accepted", "rejected"]) | junk,
    },
)


@st.composite
def views(draw: st.DrawFn) -> View:
    source = draw(st.none() | st.sampled_from(["a", "b"]).map(lambda name: made_by(name, request=REQUEST)))
    return view(
        draw(tasks),
        draw(responses),
        source=source,
        recalled=draw(st.booleans()),
        depth=draw(st.integers(0, 7)),
    )


values = st.sampled_from(
    [
        "${{ layers }}",
        "${{ layers.only('car') }}",
        "${{ hypothesis }}",
        "${{ task.metadata }}",
        "${{ annotations[?width > `10`].label }}",
        "see ${{ task.project }}",
        "${{ length(task.tags) }}",
        "${{ answer.category || 'none' }}",
        7,
    ]
)  # fmt: skip
conditions = st.sampled_from(
    [
        "annotations",
        "length(annotations) > `1`",
        "task.params.attachment",
        "sum(annotations[].width) > `9`",
        "error || `true`",
    ]
)


@st.composite
def steps(draw: st.DrawFn) -> Spec:
    params: Spec = {
        **REQUEST,
        **draw(
            st.dictionaries(
                st.sampled_from(["layers", "metadata", "instruction", "batch"]), values, max_size=3
            )
        ),
    }
    after: Spec = draw(
        st.fixed_dictionaries(
            {"type": st.lists(types, min_size=1, max_size=6, unique=True)},
            optional={
                "state": st.sampled_from(["completed", "error", "recalled", "accepted"]),
                "project": st.just("p"),
                "tags": words.filter(bool),
                "metadata": st.dictionaries(words, scalars, max_size=2),
            },
        )
    )
    step: Spec = {"after": after, "create": {"type": "annotation", "params": params}}
    if each := draw(
        st.sampled_from([None, "annotation", "label", "frame", "response.annotations", "task.tags"])
    ):
        step["for_each"] = each
        if draw(st.booleans()):
            step["where"] = "item"
        if each == "annotation" and draw(st.booleans()):
            step["crop"] = {
                "padding": draw(st.sampled_from([0, 7, "10%"])),
                "min_size": draw(st.integers(1, 70)),
            }
    for key, strategy in {
        "when": conditions,
        "copies": st.integers(1, 3),
        "sample": st.sampled_from(["50%", 1]),
        "repeat": st.just("each_response"),
        "hold": st.booleans(),
        "dry_run": st.booleans(),
        "limits": st.just({"depth": 2}),
        "on_error": st.just({"retry": 2}),
        "mirror": st.just("attachment"),
    }.items():  # fmt: skip
        if draw(st.integers(0, 3)) == 0:
            step[key] = draw(strategy)
    return step


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    found = {
        "a": draw(steps()),
        "b": draw(steps()),
        "c": {"after": {"step": "a"}, "join": {}, "create": {"type": "annotation", "params": REQUEST}},
    }
    loaded = parse(json.dumps({"workflow": "w", "steps": found}), "w.yaml")
    if isinstance(
        loaded, InvalidWorkflow
    ):  # layers of a result that has none: refused, and not what is asked here
        for step in ("a", "b"):
            found[step]["create"]["params"] = REQUEST
        loaded = parse(json.dumps({"workflow": "w", "steps": found}), "w.yaml")
    assert isinstance(loaded, Workflow), loaded.errors
    return loaded


MANY = settings(max_examples=75, deadline=None)


@MANY
@given(workflows(), views())
def test_plan_never_gives_two_follow_ups_one_identity_and_each_identity_is_of_its_form(
    loaded: Workflow, seen: View
) -> None:
    found = plan(seen, loaded, "p-")
    assert len({follow_up.unique_id for follow_up in found}) == len(found)
    for follow_up in found:
        assert re.fullmatch(r"(p-)?w\.[ab]\.[A-Za-z0-9._-]{1,110}", follow_up.unique_id)
        assert follow_up.state in ("planned", "held", "skipped")
        assert follow_up.reason or follow_up.state == "planned"
        json.dumps(follow_up.request)


@MANY
@given(workflows(), views())
def test_plan_is_deterministic_and_changes_nothing_that_it_was_given(loaded: Workflow, seen: View) -> None:
    task, response = copy.deepcopy(seen.task), copy.deepcopy(seen.response)
    first = copy.deepcopy(plan(seen, loaded))
    assert (seen.task, seen.response) == (task, response)
    again = view(task, response, source=seen.source, recalled=seen.recalled, depth=seen.depth)
    assert plan(again, loaded) == first == plan(seen, loaded)


@MANY
@given(workflows(), views(), st.randoms())
def test_the_order_of_keys_and_of_annotations_changes_no_unique_id(
    loaded: Workflow, seen: View, random: Any
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(inner)) for key, inner in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(inner) for inner in value] if isinstance(value, list) else value

    other = view(
        shuffled(seen.task),
        shuffled(seen.response),
        source=seen.source,
        recalled=seen.recalled,
        depth=seen.depth,
    )
    assert {follow_up.unique_id for follow_up in plan(seen, loaded)} == {
        follow_up.unique_id for follow_up in plan(other, loaded)
    }


@MANY
@given(workflows(), views())
def test_an_explanation_and_a_plan_are_the_same_decisions(loaded: Workflow, seen: View) -> None:
    explanations = explain(seen, loaded)
    assert [follow_up for one in explanations for follow_up in one.follow_ups] == plan(seen, loaded)
    for one in explanations:
        fails = any(not condition.held for condition in one.conditions)
        follows = [
            follow_up
            for follow_up in one.follow_ups
            if "retry" not in follow_up.unique_id and follow_up.state != "skipped"
        ]
        assert not (fails and follows)


@MANY
@given(workflows(), views())
def test_every_follow_up_of_a_joined_step_is_waited_for_once(loaded: Workflow, seen: View) -> None:
    opened = joins_for(
        [follow_up for follow_up in plan(seen, loaded) if "retry" not in follow_up.unique_id], loaded
    )
    children = [child for opening in opened for child in opening.children]
    asked = [
        follow_up.unique_id
        for follow_up in plan(seen, loaded)
        if follow_up.step == "a" and "retry" not in follow_up.unique_id
    ]
    assert sorted(children) == sorted(asked)


@MANY
@given(junk)
def test_no_yaml_value_makes_loading_raise(value: Any) -> None:
    assert isinstance(parse(json.dumps(value), "w.yaml"), InvalidWorkflow)


@MANY
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "after",
                "when",
                "create",
                "for_each",
                "where",
                "crop",
                "join",
                "copies",
                "sample",
                "on_error",
                "limits",
                "mirror",
                "python",
                "hold",
            ]
        ),
        junk,
        max_size=6,
    ),
    junk,
)
def test_no_step_makes_loading_raise(step: Spec, examples: Any) -> None:
    loaded = parse(json.dumps({"workflow": "w", "steps": {"a": step}, "examples": examples}), "w.yaml")
    assert isinstance(loaded, InvalidWorkflow)
    assert all(problem.line >= 1 and problem.message for problem in loaded.errors)


@MANY
@given(st.text(max_size=200))
def test_no_text_makes_loading_raise(text: str) -> None:
    assert isinstance(parse(text, "w.yaml"), InvalidWorkflow)
