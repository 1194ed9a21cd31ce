"""Tests for unchecked requests: whatever their values, annotators make and fix a response that is JSON."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.annotators import (
    ANNOTATORS,
    AnnotatorContext,
    fix_response,
    make_error_response,
    make_response,
    task_fields,
)
from sandbox.examples import example
from scale.task_types import parse_response

TYPES = [name for annotator in ANNOTATORS for name in annotator.types]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-9, 300)
    | st.floats()
    | st.sampled_from(["", "car", "30", "true"])
)
NAMES = (
    "choice name label subchoices url annotations uuid type geometry left top width height x y vertices start end id frames "
    "fields field_id choices conditions label_condition attribute_conditions min max global allow_multiple cuboids box line "
    "polygon cuboid point objects_to_annotate min_vertices max_vertices can_rotate fx fy cx cy w location page attributes"
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4)
    ),
    max_leaves=12,
)
PARAMS = (
    "attachment attachments attachment_type objects_to_annotate labels instance_labels geometries annotation_attributes "
    "hypothesis base_annotations layers links padding min_width max_vertices min_annotations max_annotations categories "
    "category_ids choices fields repeatable_fields row_fields phrases text features frame_rate duration_time video_frame_rate "
    "events_to_annotate lidar_task_frames max_distance_meters meters_per_unit camera_intrinsics camera_rotation_quaternion "
    "stages messages template_variables responses_required relationships allow_multiple with_labels"
)


@settings(max_examples=400, deadline=None)
@given(
    type=st.sampled_from(TYPES),
    params=st.dictionaries(st.sampled_from(PARAMS.split()), values, max_size=7),
    current=values,
)
def test_any_request_gets_a_response_and_any_response_can_be_fixed(
    type: str, params: dict[str, Any], current: Any
) -> None:
    task = {"type": type, "params": params}
    content = json.dumps(current).encode()
    context = {
        "seed": 1,
        "put_file": lambda kept, _: f"https://f.example/{len(kept)}",
        "read_file": lambda url: content,
    }
    response = make_response(task, AnnotatorContext(image_size=lambda url: (40, 30), **context))
    json.dumps(response, allow_nan=False)
    parse_response(type, response, params)
    fix_response(task, response, AnnotatorContext(**context))
    fix_response(task, current, AnnotatorContext(**context))
    fix_response(
        task,
        {"annotations": current, "fields": current, "responses": current, "category": current},
        AnnotatorContext(**context),
    )
    task_fields(task, AnnotatorContext(**context))
    make_error_response(task, "attachments")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"5", b"[[]]"])
@pytest.mark.parametrize(
    "type_name", ["videoannotation", "lidarannotation", "lidarsegmentation", "sensorfusion"]
)
def test_a_hypothesis_file_with_any_content_gets_a_response(type_name: str, content: bytes):
    params = {**example(type_name), "hypothesis": {"annotations": {"url": "x"}}}
    current = make_response(
        {"type": type_name, "params": params},
        AnnotatorContext(seed=1, put_file=lambda *_: "y", read_file=lambda _: content),
    )
    json.dumps(current)
