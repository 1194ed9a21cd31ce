"""Tests for sandbox.annotators.segmentation: PNGs that agree with each other and with the labelMapping."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sandbox.annotators import AnnotatorContext, fix_response, make_response
from tests.sandbox.annotators.conftest import IMAGE, FileStore

LABELS = ["road", "sky", {"choice": "things", "subchoices": ["car", "person"], "instance_label": True}]


def pixels(store: FileStore, url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(store.files[url])))


def segmented(
    params: dict[str, Any], store: FileStore, *, seed: int = 1, size: Any = (64, 48)
) -> dict[str, Any]:
    task = {"type": "segmentannotation", "params": IMAGE | params}
    return make_response(
        task,
        AnnotatorContext(
            seed=seed, put_file=store.put, image_size=lambda url: size, read_file=store.files.get
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
def test_all_images_of_a_segmentation_agree(size, seed, labels, unlabeled, fixed) -> None:
    store = FileStore()
    params = {"labels": labels, "allow_unlabeled": unlabeled}
    response = segmented(params, store, seed=seed, size=size)
    if fixed:
        task = {"type": "segmentannotation", "params": IMAGE | params}
        response = fix_response(
            task,
            response,
            AnnotatorContext(
                seed=seed, put_file=store.put, image_size=lambda url: size, read_file=store.files.get
            ),
        )
    combined = response["annotations"]["combined"]
    index = pixels(store, combined["indexedImage"])
    assert index.shape == (size[1], size[0])
    extended = pixels(store, combined["extendedIndexedImage"]).astype(int)
    assert (extended[..., 0] + 256 * extended[..., 1] + 65536 * extended[..., 2] == index).all()
    image = pixels(store, combined["image"])
    assert ((image[..., 3] == 0) == (index == 0)).all()

    known = {0}
    for _, entry, url in entries(response):
        inside = index == entry["index"]
        known.add(entry["index"])
        assert entry["numPixels"] == inside.sum()
        assert (url is None) == (not inside.any())
        if url:
            assert ((pixels(store, url) > 0) == inside).all()
            color = tuple(bytes.fromhex(entry["color"][1:]))
            assert (image[inside][:, :3] == color).all()
    assert set(np.unique(index)) <= known
    assert len(known) == len(entries(response)) + 1
    nothing = response["annotations"]["unlabeled"]
    assert (nothing is not None) == bool((index == 0).any())
    if nothing:
        assert unlabeled
        assert ((pixels(store, nothing) > 0) == (index == 0)).all()


def test_labels_of_instances_are_arrays_and_the_others_single(store: FileStore) -> None:
    response = segmented({"labels": LABELS, "instance_labels": ["dog"]}, store, size=(200, 200))
    for place in (response["labelMapping"], response["annotations"]["labeled"]):
        assert {label for label, value in place.items() if isinstance(value, list)} == {
            "car",
            "person",
            "dog",
        }
    assert response["instances"] == {}


def test_only_instances_have_attributes(store: FileStore) -> None:
    defined = {"moving": {"choices": ["Yes", "No"]}}
    response = segmented({"labels": LABELS, "annotation_attributes": defined}, store, size=(200, 200))
    for label, entry, _ in entries(response):
        assert bool(entry["attributes"]) == (label in ("car", "person"))


def test_a_label_without_pixels_has_a_null_mask() -> None:
    absent = []
    for seed in range(12):
        response = segmented({"labels": ["a", "b", "c", "d", "e"]}, FileStore(), seed=seed)
        absent += [entry["numPixels"] for _, entry, url in entries(response) if url is None]
    assert absent
    assert set(absent) == {0}


def test_more_than_255_segments_need_a_16_bit_image(store: FileStore) -> None:
    response = segmented({"labels": [f"label {n}" for n in range(300)]}, store, size=(40, 600))
    index = pixels(store, response["annotations"]["combined"]["indexedImage"])
    assert index.max() > 255
    assert index.max() <= 300


def test_a_hypothesis_comes_back_with_its_labels_and_some_pixels_changed(store: FileStore) -> None:
    first = segmented({"labels": LABELS}, store)
    second = segmented({"labels": LABELS, "hypothesis": first}, store, seed=2)
    old, new = (
        pixels(store, current["annotations"]["combined"]["indexedImage"]) for current in (first, second)
    )
    assert second["labelMapping"].keys() == first["labelMapping"].keys()
    color_of = [
        {e["index"]: (label, e["color"]) for label, e, _ in entries(current)} for current in (first, second)
    ]
    changed = [color_of[0][a] != color_of[1][b] for a, b in zip(old.ravel(), new.ravel(), strict=True)]
    assert 0 < sum(changed) < old.size / 20


def test_a_label_that_is_not_in_the_hypothesis_has_no_pixels(store: FileStore) -> None:
    first = segmented({"labels": ["road", "sky"]}, store)
    response = segmented({"labels": ["road", "sky", "sea"], "hypothesis": first}, store)
    assert response["labelMapping"]["sea"]["numPixels"] == 0
    assert response["annotations"]["labeled"]["sea"] is None


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_an_unreadable_hypothesis_is_replaced_by_a_new_scene(content, store: FileStore) -> None:
    hypothesis = {
        "annotations": {"combined": {"indexedImage": "https://example.com/mask.png"}},
        "labelMapping": {"road": {"index": 1}},
    }
    task = {"type": "segmentannotation", "params": IMAGE | {"labels": LABELS, "hypothesis": hypothesis}}
    response = make_response(
        task, AnnotatorContext(seed=1, put_file=store.put, read_file=lambda url: content)
    )
    assert response["labelMapping"].keys() == {"road", "sky", "car", "person"}


def test_an_image_of_impossible_size_is_not_generated(store: FileStore) -> None:
    response = segmented({"labels": ["road"]}, store, size=(10**6, 10**6))
    assert pixels(store, response["annotations"]["combined"]["indexedImage"]).shape == (540, 960)
