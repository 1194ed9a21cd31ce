"""Splits: stable when tasks are added, and never one image or one key in two of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.filters import Unusable
from pipeline.datasets.splits import Member, assign, check_split_by, leaks, parse_shares, split
from pipeline.datasets.versions import check_name, choose_classes, parse_classes, parse_reference

SHARES = parse_shares("train=0.8,val=0.1,test=0.1")


def members(count: int, images: int | None = None) -> list[Member]:
    return [
        Member(f"t{n}", f"https://x/{n % (images or count)}", (f"https://x/{n % (images or count)}",))
        for n in range(count)
    ]


def test_shares_are_about_those_that_were_given() -> None:
    placed = split(members(10_000), SHARES)
    assert 7_800 < placed.count("train") < 8_200
    assert 850 < placed.count("val") < 1_150


@given(st.sets(st.integers(0, 200), min_size=1), st.integers(0, 200))
def test_adding_tasks_never_moves_one(first: set[int], more: int) -> None:
    everything = members(200 + more, 90)
    some = [everything[n] for n in sorted(first) if n < len(everything)]
    before = dict(zip(some, split(some, SHARES), strict=True))
    after = dict(zip(everything, split(everything, SHARES), strict=True))
    assert all(after[member] == name for member, name in before.items())


def test_shared_images_join_what_other_keys_part() -> None:
    found = [
        Member("a", "metadata:1", ("https://x/shared",)),
        Member("b", "metadata:2", ("https://x/own", "https://x/shared")),
        *(Member(f"c{n}", f"metadata:{n}", ()) for n in range(3, 40)),
    ]
    placed = split(found, SHARES)
    assert placed[0] == placed[1]
    images = [(one.task_id, name, (one.key, *one.images)) for one, name in zip(found, placed, strict=True)]
    assert leaks(images) == {}


def test_a_child_with_an_image_of_its_own_does_not_move_its_parent() -> None:
    parent = Member("p", "https://x/m.jpg", ("https://x/m.jpg",))
    alone = split([parent], SHARES)
    child = Member("c", "https://x/m.jpg", ("https://x/a.jpg",))
    assert split([parent, child], SHARES) == [alone[0], alone[0]]


def test_without_shares_everything_is_train() -> None:
    assert split(members(3), None) == ["train"] * 3


def test_the_split_of_a_key_is_fixed_for_all_time() -> None:
    assert [assign(f"https://x/{n}", SHARES) for n in range(12)] == [
        "val", "train", "train", "val", "val", "test", "train", "train", "train", "train", "train", "train",
    ]  # fmt: skip


def test_leaks_are_found() -> None:
    assert leaks([("a", "train", ["x", "y"]), ("b", "val", ["y"])]) == {"y": ["train", "val"]}


@pytest.mark.parametrize(
    "text",
    ["train=0.8", "train=0.8,val=0.3", "train", "train=x,val=1", "train=1,val=0", "a=0.5,a=0.5", "con=1", "../x=1", "=1",
     "train=nan,val=1", ""],
)  # fmt: skip
def test_shares_that_cannot_be_used_are_refused(text: str) -> None:
    with pytest.raises(Unusable):
        parse_shares(text)


@pytest.mark.parametrize("name", ["", "Street", "a b", "a@1", "../a", "a/b", "-a", "ä", "a" * 101])
def test_names_that_cannot_be_used_are_refused(name: str) -> None:
    with pytest.raises(Unusable):
        check_name(name)


def test_references() -> None:
    assert parse_reference("street") == ("street", None)
    assert parse_reference("street@12") == ("street", 12)
    for text in ("street@", "street@0", "street@x", "@1", "street@1@2"):
        with pytest.raises(Unusable):
            parse_reference(text)


def test_split_by() -> None:
    assert check_split_by("metadata.scene") == "metadata.scene"
    for text in ("metadata.", "scene", ""):
        with pytest.raises(Unusable):
            check_split_by(text)


def test_classes_are_sorted_at_first_and_then_appended() -> None:
    first, _ = choose_classes(["a", "B", "é"], None, [], [])
    assert first == sorted(["a", "B", "é"])
    assert choose_classes(["A", "b"], None, first, []) == ([*first, "A", "b"], [])


def test_given_classes_are_taken_as_they_are() -> None:
    classes, excluded = choose_classes(["a", "b", "c"], ["c", "a", "z"], ["a"], [])
    assert (classes, excluded) == (["c", "a", "z"], ["b"])
    assert choose_classes(["a", "b", "c", "d"], None, classes, excluded) == (["c", "a", "z", "d"], ["b"])


def test_a_list_of_classes() -> None:
    assert parse_classes("\ufeffcar\r\nroad sign\n\n") == ["car", "road sign"]
    for text in ("", "\n \n", "a\na"):
        with pytest.raises(Unusable):
            parse_classes(text)
