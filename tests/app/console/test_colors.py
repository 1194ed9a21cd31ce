"""The colors of labels."""

from typing import Any

import pytest

from app.console.colors import PALETTE, color_of, label_places


@pytest.mark.parametrize(
    "params",
    [
        {"objects_to_annotate": ["car", {"choice": "vehicles", "subchoices": [{"choice": "van"}]}]},
        {"labels": ["car", ["vehicles"]], "instance_labels": [{"name": "van"}, 5]},
        {
            "geometries": {
                "box": {"objects_to_annotate": ["car", "vehicles"]},
                "line": {"objects_to_annotate": ["van"]},
            }
        },
        {
            "features": [{"type": "block", "label": "car"}, {"label": "vehicles"}],
            "events_to_annotate": ["van"],
        },
    ],
)
def test_each_label_of_a_request_has_a_color_of_its_own(params: dict[str, Any]) -> None:
    assert label_places(params) == {"car": 0, "vehicles": 1, "van": 2}


@pytest.mark.parametrize(
    "params", [{}, {"labels": "x", "geometries": 3}, {"geometries": {"box": None}, "labels": {"a": 1}}]
)
def test_a_request_of_another_form_has_colors_too(params: dict[str, Any]) -> None:
    assert all(
        0 <= color_of(label, label_places(params)) < len(PALETTE) for label in (None, "", "car", "\ud800")
    )


def test_a_label_that_is_not_in_the_request_takes_no_color_of_one_that_is() -> None:
    places = {str(number): number for number in range(len(PALETTE) - 1)}
    assert {color_of(f"other {number}", places) for number in range(50)} == {len(PALETTE) - 1}
    many = {str(number): number for number in range(len(PALETTE) + 1)}
    assert color_of(str(len(PALETTE)), many) == 0
    assert 0 <= color_of("other", many) < len(PALETTE)
