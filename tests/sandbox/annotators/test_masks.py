"""Segmentation: real PNGs that agree with each other and with the labelMapping."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sandbox.annotators import AnnotatorContext, fix_response, make_response
from tests.sandbox.annotators.conftest import IMAGE, Shelf

LABELS = ["road", "sky", {"choice": "things", "subchoices": ["car", "person"], "instance_label": True}]


def pixels(shelf: Shelf, url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(shelf.files[url])))


def segmented(params: dict[str, Any], shelf: Shelf, *, seed: int = 1, size: Any = (64, 48)) -> dict[str, Any]:
    task = {"type": "segmentannotation", "params": IMAGE | params}
    return make_response(
        task,
        AnnotatorContext(
            seed=seed, put_file=shelf.put, image_size=lambda url: size, read_file=shelf.files.get
        ),
    )


def entries(response: dict[str, Any]) -> list[tuple[str, dict[str, Any], Any]]:
    """(label, its entry in labelMapping, its mask) of each index."""
    found = []
    for label, entry in response["labelMapping"].items():
        masks = response["annotations"]["labeled"][label]
        listed = isinstance(entry, list)
        found += [
            (label, e, m)
            for e, m in zip(entry if listed else [entry], masks if listed else [masks], strict=True)
        ]
    return found


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 999),
    labels=st.sampled_from(
        [LABELS, ["road"], [{"choice": "car", "instance_label": True}], ["a", "b", "c", "d", "e", "f"]]
    ),
    unlabeled=st.booleans(),
    fixed=st.booleans(),
)
def test_all_pictures_of_a_segmentation_say_the_same(size, seed, labels, unlabeled, fixed) -> None:
    shelf = Shelf()
    params = {"labels": labels, "allow_unlabeled": unlabeled}
    response = segmented(params, shelf, seed=seed, size=size)
    if fixed:
        task = {"type": "segmentannotation", "params": IMAGE | params}
        response = fix_response(
            task,
            response,
            AnnotatorContext(
                seed=seed, put_file=shelf.put, image_size=lambda url: size, read_file=shelf.files.get
            ),
        )
    combined = response["annotations"]["combined"]
    index = pixels(shelf, combined["indexedImage"])
    assert index.shape == (size[1], size[0])
    extended = pixels(shelf, combined["extendedIndexedImage"]).astype(int)
    assert (extended[..., 0] + 256 * extended[..., 1] + 65536 * extended[..., 2] == index).all()
    image = pixels(shelf, combined["image"])
    assert ((image[..., 3] == 0) == (index == 0)).all()

    known = {0}
    for _, entry, url in entries(response):
        inside = index == entry["index"]
        known.add(entry["index"])
        assert entry["numPixels"] == inside.sum()
        assert (url is None) == (not inside.any())
        if url:
            assert ((pixels(shelf, url) > 0) == inside).all()
            color = tuple(bytes.fromhex(entry["color"][1:]))
            assert (image[inside][:, :3] == color).all()
    assert set(np.unique(index)) <= known
    assert len(known) == len(entries(response)) + 1
    nothing = response["annotations"]["unlabeled"]
    assert (nothing is not None) == bool((index == 0).any())
    if nothing:
        assert unlabeled
        assert ((pixels(shelf, nothing) > 0) == (index == 0)).all()


def test_labels_of_instances_are_arrays_and_the_others_single(shelf: Shelf) -> None:
    response = segmented({"labels": LABELS, "instance_labels": ["dog"]}, shelf, size=(200, 200))
    for place in (response["labelMapping"], response["annotations"]["labeled"]):
        assert {label for label, value in place.items() if isinstance(value, list)} == {
            "car",
            "person",
            "dog",
        }
    assert response["instances"] == {}


def test_only_instances_have_attributes(shelf: Shelf) -> None:
    defined = {"moving": {"choices": ["Yes", "No"]}}
    response = segmented({"labels": LABELS, "annotation_attributes": defined}, shelf, size=(200, 200))
    for label, entry, _ in entries(response):
        assert bool(entry["attributes"]) == (label in ("car", "person"))


def test_a_label_that_is_not_in_the_picture_has_null_for_its_mask() -> None:
    absent = []
    for seed in range(12):
        response = segmented({"labels": ["a", "b", "c", "d", "e"]}, Shelf(), seed=seed)
        absent += [entry["numPixels"] for _, entry, url in entries(response) if url is None]
    assert absent
    assert set(absent) == {0}


def test_more_labels_than_a_byte_holds_need_a_deeper_image(shelf: Shelf) -> None:
    response = segmented({"labels": [f"label {n}" for n in range(300)]}, shelf, size=(40, 600))
    index = pixels(shelf, response["annotations"]["combined"]["indexedImage"])
    assert index.max() > 255
    assert index.max() <= 300


def test_a_hypothesis_comes_back_with_its_labels_and_some_pixels_changed(shelf: Shelf) -> None:
    first = segmented({"labels": LABELS}, shelf)
    second = segmented({"labels": LABELS, "hypothesis": first}, shelf, seed=2)
    old, new = (pixels(shelf, said["annotations"]["combined"]["indexedImage"]) for said in (first, second))
    assert second["labelMapping"].keys() == first["labelMapping"].keys()
    color_of = [
        {e["index"]: (label, e["color"]) for label, e, _ in entries(said)} for said in (first, second)
    ]
    changed = [color_of[0][a] != color_of[1][b] for a, b in zip(old.ravel(), new.ravel(), strict=True)]
    assert 0 < sum(changed) < old.size / 20


def test_a_label_that_a_hypothesis_does_not_know_comes_back_without_pixels(shelf: Shelf) -> None:
    first = segmented({"labels": ["road", "sky"]}, shelf)
    response = segmented({"labels": ["road", "sky", "sea"], "hypothesis": first}, shelf)
    assert response["labelMapping"]["sea"]["numPixels"] == 0
    assert response["annotations"]["labeled"]["sea"] is None


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_hypothesis_that_cannot_be_read_is_segmented_anew(content, shelf: Shelf) -> None:
    hypothesis = {
        "annotations": {"combined": {"indexedImage": "https://example.com/mask.png"}},
        "labelMapping": {"road": {"index": 1}},
    }
    task = {"type": "segmentannotation", "params": IMAGE | {"labels": LABELS, "hypothesis": hypothesis}}
    response = make_response(
        task, AnnotatorContext(seed=1, put_file=shelf.put, read_file=lambda url: content)
    )
    assert response["labelMapping"].keys() == {"road", "sky", "car", "person"}


def test_an_image_of_impossible_size_is_not_painted(shelf: Shelf) -> None:
    response = segmented({"labels": ["road"]}, shelf, size=(10**6, 10**6))
    assert pixels(shelf, response["annotations"]["combined"]["indexedImage"]).shape == (540, 960)
