"""Canonical JSON and its digest."""

from scale.canonical import canonical_json, digest


def test_the_order_of_keys_and_the_spacing_do_not_matter() -> None:
    assert canonical_json({"b": [1, {"d": 1, "c": 2}], "a": None}) == b'{"a":null,"b":[1,{"c":2,"d":1}]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_lone_surrogate_and_a_huge_integer_have_a_form_too() -> None:
    assert canonical_json({"a": "\ud800"}) == b'{"a":"\\ud800"}'
    assert canonical_json(2**70) == str(2**70).encode()
