"""Cost before and after: of a preview, of an explanation, of a selection and of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.follow_ups.lineage import lineage
from pipeline.follow_ups.preview import Preview, explanations
from pipeline.follow_ups.prices import cost_of_follow_ups
from pipeline.operations.queries.views import get_view
from tests.factories.pipelines import ROOT, Pipeline, asks

PRICES = """
prices:
  - {type: categorization, task: 0.02}
  - {type: imageannotation, annotation: 0.5, expected_annotations: 4}
"""


@pytest.fixture
def priced(open_pipeline: Callable[..., Pipeline], tmp_path: Path) -> Pipeline:
    (tmp_path / "prices.yaml").write_text(PRICES)
    return open_pipeline(prices_file=str(tmp_path / "prices.yaml"))


def run_cost(pipeline: Pipeline) -> dict[str, Any]:
    with pipeline.service.reader.begin() as connection:
        found = lineage(connection, ROOT, pipeline.service.prices)
    assert found is not None
    return {stage: cost["amount"] for stage, cost in found["run"]["cost"].items()}


def test_a_run_costs_what_is_spent_committed_and_planned(priced: Pipeline) -> None:
    priced.workflow({"a": asks(), "b": asks(hold=True)})
    priced.receive({"annotations": []}, type="imageannotation")
    assert run_cost(priced) == {"spent": 0.0, "committed": 0.02, "planned": 0.02}
    priced.finish(next(priced.children("a")))
    assert run_cost(priced) == {"spent": 0.02, "committed": 0.0, "planned": 0.02}


def test_a_preview_and_an_explanation_show_the_cost(priced: Pipeline) -> None:
    priced.workflow({"a": asks()})
    priced.receive({"annotations": []}, type="imageannotation")
    workflows = priced.service.workflows.loaded
    with priced.service.reader.begin() as connection:
        view = get_view(connection, ROOT)
        explained = explanations(connection, priced.service, view, workflows)
    (planned,) = Preview(priced.service, workflows).of(view)
    assert planned["cost"] == {
        "amount": 0.02,
        "currency": "USD",
        "unpriced_tasks": 0,
        "summary": "$0.02",
    }
    assert explained[0]["follow_ups"][0]["cost"] == planned["cost"]


def test_a_selection_counts_what_has_no_price(priced: Pipeline, tmp_path: Path) -> None:
    priced.workflow({"a": asks(hold=True), "b": asks(hold=True, copies=2)})
    priced.receive({"annotations": []}, type="imageannotation")
    unique_ids = list(priced.follow_ups())
    with priced.service.reader.begin() as connection:
        assert cost_of_follow_ups(connection, priced.service.prices, unique_ids).summary == "$0.06"
        (tmp_path / "prices.yaml").write_text("prices: [{type: annotation, task: 1}]")
        cost = cost_of_follow_ups(connection, priced.service.prices, unique_ids)
    assert cost.summary == "no price is set for categorization"
    assert cost.to_json()["amount"] is None
    assert cost.to_json()["unpriced_tasks"] == 3


def test_a_broken_price_list_stops_nothing_and_is_read_again_when_it_is_corrected(
    priced: Pipeline, tmp_path: Path
) -> None:
    priced.workflow({"a": asks()})
    (tmp_path / "prices.yaml").write_text("prices: [")
    priced.receive({"annotations": []}, type="imageannotation")
    assert list(priced.states().values()) == ["created"]
    assert priced.service.prices.problems
    assert priced.service.prices.cost("categorization") is None
    (tmp_path / "prices.yaml").write_text(PRICES)
    assert str(priced.service.prices.cost("categorization")) == "0.02"
