"""Filters of dataset versions: parsed, read back, refused."""

import pytest

from pipeline.datasets.filters import Unusable, parse_filters


def test_filters_read_back_what_they_show() -> None:
    given = {
        "type": ["annotation", "imageannotation"],
        "review": "accepted,fixed",
        "label": "a, b",
        "metadata": {"scene": 12},
        "since": "2026-01-01",
    }
    filters = parse_filters(given)
    assert filters.review == ("accepted", "fixed")
    assert filters.label == ("a, b",)
    assert parse_filters(filters.as_json()) == filters
    assert filters.as_json()["environment"] == "live"


@pytest.mark.parametrize(
    "given",
    [{"colour": "red"}, {"type": 3}, {"environment": "staging"}, {"since": "yesterday"}, {"metadata": "a=b"},
     {"tag": "a\0"}],
)  # fmt: skip
def test_filters_that_cannot_be_used_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(Unusable):
        parse_filters(given)
