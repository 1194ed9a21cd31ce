"""how a join ended, as lists, events and the end of a run show it."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from models import Join, Notification
from pipeline.db.dialect import from_now
from pipeline.events import subscriptions
from pipeline.operations.queries.joins import get_join, list_joins
from pipeline.operations.queries.tasks import list_tasks
from tests.assertions import table
from tests.factories.callbacks import boxes
from tests.factories.pipelines import EACH, ROOT, Pipeline
from tests.pipeline.follow_ups.test_joins import joins


@pytest.fixture
def subscribed(open_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """A pipeline whose joins and runs have a subscriber."""
    pipeline = open_pipeline(subscriber_hosts=("example.com",))
    with pipeline.service.engine.begin() as connection:
        settings = pipeline.service.settings
        subscriptions.add(connection, settings, "test", "https://example.com", ["join", "workflow"])
    return pipeline


def payloads(pipeline: Pipeline, event: str) -> list[dict[str, Any]]:
    return [row["payload"]["data"] for row in table(pipeline.service, Notification) if row["event"] == event]


@pytest.mark.parametrize(
    ("answers", "verdict"), [(("yes", "yes", "yes"), "agreed"), (("yes", "yes", "no"), "disagreed")]
)
def test_a_join_shows_its_members_its_verdict_and_its_reduced_value(
    subscribed: Pipeline, answers: tuple[str, ...], verdict: str
) -> None:
    subscribed.workflow({"each": EACH, "all": {**joins(), "when": "reduced.agreement > `2`"}})
    subscribed.receive(boxes("car", "car", "car"))
    with subscribed.service.reader.begin() as connection:
        (waiting,) = list_joins(connection, {"outcome": "waiting"}).rows
    assert (waiting["outcome"], waiting["verdict"]) == (None, None)
    for child, answer in zip(list(subscribed.children("each")), answers, strict=True):
        subscribed.finish(child, {"category": answer})
    with subscribed.service.reader.begin() as connection:
        join = get_join(connection, f"w.all.{ROOT}")
        assert [row["id"] for row in list_joins(connection, {"verdict": verdict}).rows] == [join["id"]]
        assert list_joins(connection, {"verdict": "deadline"}).rows == []
    assert (join["outcome"], join["verdict"]) == ("fire", verdict)
    assert join["result"]["answer"] == {"category": "yes"}
    assert [member["state"] for member in join["members"]] == ["completed"] * 3
    (event,) = payloads(subscribed, "join.finished")
    assert (event["verdict"], event["result"], len(event["members"])) == (verdict, join["result"], 3)
    run = payloads(subscribed, "workflow.finished")[-1]
    assert [(one["id"], one["outcome"], one["verdict"]) for one in run["joins"]] == [
        (join["id"], "fire", verdict)
    ]


def test_a_join_that_could_not_wait_for_all_ended_at_its_deadline(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH, "all": joins(within="1d", on_deadline="continue")})
    pipeline.receive(boxes("car", "car"))
    first, _ = pipeline.children("each")
    pipeline.finish(first, {"category": "yes"})
    with pipeline.service.engine.begin() as connection:
        connection.execute(update(Join).values(deadline=from_now()))
    pipeline.skip_waiting()
    with pipeline.service.reader.begin() as connection:
        join = get_join(connection, f"w.all.{ROOT}")
    assert (join["outcome"], join["verdict"]) == ("fire", "deadline")


def test_joins_are_paged_by_when_they_were_opened(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH, "all": joins()})
    for number in range(3):
        pipeline.receive(boxes("car"), task_id=f"{number:024x}")
    with pipeline.service.reader.begin() as connection:
        first = list_joins(connection, {}, limit=2)
        rest = list_joins(connection, {}, limit=2, cursor=first.next_cursor)
    assert [row["source_task_id"][-1] for row in (*first.rows, *rest.rows)] == ["2", "1", "0"]


def test_tasks_are_found_by_what_made_them_and_what_they_say(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH})
    pipeline.receive(boxes("car"), completed_at="2026-01-02T00:00:00.000Z")
    (child,) = pipeline.children("each")

    def found(**filters: Any) -> list[str]:
        with pipeline.service.reader.begin() as connection:
            return [row["task_id"] for row in list_tasks(connection, filters).rows]

    assert found(workflow="w") == found(workflow="w", step="each") == [child]
    assert found(workflow="w", step="other") == []
    assert found(label="car") == [ROOT]
    assert found(label="bus") == found(review="rejected") == []
    with pipeline.service.reader.begin() as connection:
        sources = {row["task_id"]: row["source"] for row in list_tasks(connection, {}).rows}
    assert sources[ROOT] is None
    assert sources[child] is not None
    assert sources[child]["step"] == "each"
