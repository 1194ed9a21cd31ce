"""Limits in tasks and in money: of a step, a workflow and the installation, together, across processes and days."""

import multiprocessing
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from config import Settings
from models import SpendCounter
from pipeline.bootstrap import build_service
from pipeline.db.ids import utcnow
from pipeline.follow_ups import submit
from pipeline.follow_ups.limits import claim, limits_of, read_used, reserve
from pipeline.follow_ups.preview import Preview
from pipeline.follow_ups.recording import release_limited
from pipeline.jobs.queue import RetryLater
from pipeline.operations.queries.spend import limits_used, spend
from pipeline.operations.queries.views import get_view
from tests.assertions import table
from tests.factories.callbacks import callback, receive_callback
from tests.factories.pipelines import Pipeline, asks

PRICES = """
prices:
  - {type: categorization, task: 0.4}
  - {type: imageannotation, task: 1}
"""
Open = Callable[..., Pipeline]


@pytest.fixture
def limited(open_pipeline: Open, tmp_path: Path) -> Callable[[str], Pipeline]:
    """`limited("per_day: $2")` → a pipeline with prices and with these limits of the installation."""

    def limited(limits: str = "{}", prices: str = PRICES) -> Pipeline:
        (tmp_path / "prices.yaml").write_text(prices)
        (tmp_path / "limits.yaml").write_text(limits)
        return open_pipeline(
            prices_file=str(tmp_path / "prices.yaml"), limits_file=str(tmp_path / "limits.yaml")
        )

    return limited


def root(number: int) -> str:
    return f"{number:024x}"


def receive(pipeline: Pipeline, tasks: int) -> None:
    for number in range(tasks):
        body = callback({"annotations": []}, type="imageannotation", task_id=root(number))
        receive_callback(pipeline.service, body)


def next_day(pipeline: Pipeline) -> None:
    """What was counted today was counted yesterday."""
    today = f"{utcnow():%Y-%m-%d}"
    before = f"day {len(table(pipeline.service, SpendCounter))}"
    with pipeline.service.engine.begin() as connection:
        connection.execute(update(SpendCounter).where(SpendCounter.period == today).values(period=before))


def release(pipeline: Pipeline) -> int:
    with pipeline.service.engine.begin() as connection:
        released = release_limited(connection, pipeline.service)
    pipeline.work()
    return released


def test_all_limits_hold_together_across_workers(limited: Callable[..., Pipeline]) -> None:
    pipeline = limited("per_day: [12, $4]")
    pipeline.workflow({"a": asks(limits={"per_day": "$2"})}, "v", limits={"per_day": 100})
    pipeline.workflow({"b": asks()}, "w", limits={"total": [8, "$100"]})
    receive(pipeline, 10)
    pipeline.work_with(4)
    states = Counter((row["workflow"], row["state"]) for row in pipeline.follow_ups().values())
    assert states["v", "created"] <= 5
    assert states["w", "created"] <= 8
    assert states["v", "created"] + states["w", "created"] == 10  # $4 at $0.40 a task
    assert len(pipeline.at_scale()) == 10
    counted = {row["counter"]: row["granted"] for row in table(pipeline.service, SpendCounter)}
    assert counted["*"] == 10
    assert counted["*/USD"] == 4_000_000


def test_what_a_limit_holds_says_what_is_left_and_goes_on_the_next_day_in_order(
    limited: Callable[..., Pipeline],
) -> None:
    pipeline = limited("per_day: $1")
    pipeline.workflow({"a": asks()})
    receive(pipeline, 5)
    pipeline.work()
    tomorrow = f"{utcnow() + timedelta(days=1):%Y-%m-%d}"
    rows = list(pipeline.follow_ups().values())
    assert [row["state"] for row in rows] == ["created"] * 2 + ["held"] * 3
    assert rows[2]["reason"] == (
        "held by the limit of $1.00 a day of all workflows; $0.20 is left;"
        f" released from {tomorrow} 00:00 UTC on"
    )
    assert release(pipeline) == 0
    next_day(pipeline)
    assert release(pipeline) == 2
    assert list(pipeline.states().values()) == ["created"] * 4 + ["held"]
    next_day(pipeline)
    assert release(pipeline) == 1
    assert len(pipeline.at_scale()) == 5


def test_what_has_no_price_is_held_by_a_limit_in_money_until_it_has_one(
    limited: Callable[..., Pipeline], tmp_path: Path
) -> None:
    pipeline = limited("per_day: $1", "prices: [{type: annotation, task: 1}]")
    pipeline.workflow({"a": asks()})
    receive(pipeline, 1)
    pipeline.work()
    (row,) = pipeline.follow_ups().values()
    assert row["state"] == "held"
    assert row["reason"].endswith("no price is set for categorization")
    (tmp_path / "prices.yaml").write_text(PRICES)
    assert release(pipeline) == 1


def test_limits_with_errors_create_nothing_until_they_are_corrected(
    limited: Callable[..., Pipeline], tmp_path: Path
) -> None:
    pipeline = limited("per_day: many")
    pipeline.workflow({"a": asks()})
    receive(pipeline, 1)
    pipeline.work()
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["reason_code"]) == ("held", "limit")
    assert "limits.yaml:1: per_day: expected a whole number" in row["reason"]
    (tmp_path / "limits.yaml").write_text("per_day: 5")
    assert release(pipeline) == 1


def test_a_limit_in_another_currency_than_the_price_list_holds(limited: Callable[..., Pipeline]) -> None:
    pipeline = limited("per_day: 5 EUR")
    pipeline.workflow({"a": asks()})
    receive(pipeline, 1)
    pipeline.work()
    (row,) = pipeline.follow_ups().values()
    assert row["reason"] == "held by the limit of €5.00 a day of all workflows: the price list is in USD"


def test_submitted_tasks_count_and_what_was_not_created_does_not(
    limited: Callable[..., Pipeline],
) -> None:
    pipeline = limited("per_day: [2, $100]")
    request = {
        "instruction": "Good?",
        "attachment_type": "text",
        "attachment": "x",
        "categories": ["yes", "no"],
    }

    def one(priority: int) -> submit.Outcome:
        row = submit.Row(1, {**request, "priority": priority})
        task = submit.task_for_row(row, "f", "", type_name="categorization")
        assert task.fault is None
        return submit.submit_once(pipeline.service, "live", task)

    assert one(10).outcome == "created"
    assert one(10).outcome == "already_exists"
    assert one(20).outcome == "created"
    with pytest.raises(RetryLater, match="held by the limit of 2 tasks a day of all workflows"):
        one(30)
    counted = {row["counter"]: row["granted"] for row in table(pipeline.service, SpendCounter)}
    assert counted == {"*": 2, "*/USD": 800_000}


def test_a_preview_spends_what_is_left_in_order(limited: Callable[..., Pipeline]) -> None:
    pipeline = limited("per_day: $1")
    receive(pipeline, 1)
    pipeline.work()
    pipeline.workflow({"a": asks(copies=3)})
    with pipeline.service.reader.begin() as connection:
        view = get_view(connection, root(0))
    planned = list(Preview(pipeline.service, pipeline.service.workflows.loaded).of(view))
    assert [one["state"] for one in planned] == ["created", "created", "held"]
    assert "$0.20 is left" in planned[2]["reason"]


def test_spend_is_planned_committed_and_spent_by_group(limited: Callable[..., Pipeline]) -> None:
    pipeline = limited("per_day: [100, $50]")
    pipeline.workflow({"a": asks(), "b": asks(hold=True)})
    pipeline.receive({"annotations": []}, type="imageannotation", project="street")
    pipeline.receive({"annotations": []}, type="imageannotation", project="street", task_id=root(1))
    pipeline.finish(next(pipeline.children("a")))

    def amounts(by: str) -> dict[Any, tuple[float, ...]]:
        with pipeline.service.reader.begin() as connection:
            rows, total = spend(connection, pipeline.service.prices, by)
        assert total["spent"]["amount"] == 2.4
        return {
            row[by]: tuple(row[stage]["amount"] for stage in ("planned", "committed", "spent"))
            for row in rows
        }

    assert amounts("workflow") == {None: (0, 0, 2), "w": (0.8, 0.4, 0.4)}
    assert amounts("step") == {None: (0, 0, 2), "a": (0, 0.4, 0.4), "b": (0.8, 0, 0)}
    assert amounts("project") == {"street": (0, 0, 2), None: (0.8, 0.4, 0.4)}
    with pipeline.service.reader.begin() as connection:
        rows, _ = spend(connection, pipeline.service.prices, since=utcnow() + timedelta(days=1))
        used = limits_used(connection, pipeline.service.workflows)
    assert rows == []
    assert {(one["scope"], one["unit"]): (one["used"], one["left"]) for one in used} == {
        ("installation", "tasks"): (2, 98),
        ("installation", "USD"): (0.8, 49.2),
        ("workflow", "tasks"): (2, 9998),
    }


# Processes of their own: no lock of Python can help them.

BUDGET = "per_day: [500, $200]"
WORKERS, TRANSACTIONS, IN_ONE = 4, 60, 5


def claim_many(settings: dict[str, Any], number: int) -> int:
    """Claim WORKERS-th of the tasks in many transactions, with the limits that the files define. Returns the granted."""
    service = build_service(Settings(**settings), cache_seconds=0)
    workflows = service.workflows
    limits = limits_of(workflows, "vw"[number % 2], "a")
    granted = 0
    for _ in range(TRANSACTIONS):
        task_type = "categorization" if number < 2 else "imageannotation"
        with service.engine.begin() as connection:
            asked = [claim(limits, workflows.prices, task_type, None)] * IN_ONE
            granted += reserve(connection, workflows, asked).count(None)
    service.engine.dispose()
    return granted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prices", "most"),
    [
        ("{type: categorization, task: 0.1}", 500),
        ("{type: categorization, task: 0.8}", 250),
    ],
)
def test_500_tasks_and_200_dollars_a_day_are_never_exceeded_by_four_processes(
    database_url: str, tmp_path: Path, limited: Callable[..., Pipeline], prices: str, most: int
) -> None:
    both = f"prices: [{prices}, {prices.replace('categorization', 'imageannotation')}]"
    pipeline = limited(BUDGET, both)
    for name in ("v", "w"):
        pipeline.workflow({"a": asks()}, name)
    settings = {
        "database_url": database_url,
        "workflows_dir": str(tmp_path / "workflows"),
        "prices_file": str(tmp_path / "prices.yaml"),
        "limits_file": str(tmp_path / "limits.yaml"),
        "artifact_store": str(tmp_path / "artifacts"),
        "secret_key": "secret",
    }
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        granted = pool.starmap(claim_many, [(settings, number) for number in range(WORKERS)])
    assert sum(granted) == most
    workflows = pipeline.service.workflows
    with pipeline.service.reader.begin() as connection:
        used = read_used(connection, workflows.limits.counters)
    cost = workflows.prices.cost("categorization") or Decimal(0)
    assert sorted(used.values()) == sorted([most, int(most * cost * 1_000_000)])
