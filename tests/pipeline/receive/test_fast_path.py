"""The fast path writes the rows that the general path writes, for any callback, with and without subscribers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from config import Settings
from models import Notification, Subscriber
from pipeline.bootstrap import build_service
from pipeline.db.ids import new_id, utcnow
from pipeline.events import subscriptions
from pipeline.receive import fast_path
from pipeline.receive.receive import parse_body, receive, receive_in_steps
from pipeline.receive.rows import DeliveryMeta
from pipeline.service import Service
from tests.assertions import empty, stored_rows, table
from tests.factories.callbacks import boxes, callback, receive_callback, task
from tests.factories.pipelines import asks

WORKFLOW = json.dumps({"workflow": "w", "steps": {"ask": asks()}})

texts = st.text(max_size=40)
numbers = st.integers(-(2**70), 2**70) | st.floats()
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
dates = st.sampled_from(
    [
        "2026-01-01T10:00:00.000Z",
        "2026-01-01T10:00:00+02:00",
        "1999-12-31",
        "9999-12-31T23:59:59Z",
        "yesterday",
        5,
        None,
    ]
)
annotations = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["box", "polygon", "point", "line", "cuboid", "unheard-of"]) | values,
        "label": texts | values,
        "uuid": texts | values,
        "left": numbers,
        "top": numbers,
        "width": numbers,
        "height": numbers,
        "vertices": st.lists(st.fixed_dictionaries({"x": numbers, "y": numbers}), max_size=4) | values,
        "attributes": values,
        "frame": numbers,
    },
)
responses = st.one_of(
    st.fixed_dictionaries({"annotations": st.lists(annotations, max_size=4)}, optional={"error": values}),
    st.fixed_dictionaries({"category": texts | st.lists(texts, max_size=3)}),
    st.dictionaries(texts, values, max_size=3),
    values,
)
tasks = st.fixed_dictionaries(
    {
        "task_id": st.text("abc-_1", min_size=1, max_size=20) | texts,
        "type": st.sampled_from(
            ["imageannotation", "categorization", "annotation", "polygonannotation", "newtype"]
        ),
    },
    optional={
        "status": st.sampled_from(["completed", "pending", "error", "canceled"]) | values,
        "params": st.dictionaries(texts, values, max_size=3) | values,
        "metadata": values,
        "tags": st.lists(texts, max_size=3) | values,
        "project": texts | values,
        "batch": texts | values,
        "instruction": texts,
        "urgency": texts,
        "priority": numbers | values,
        "is_test": st.booleans(),
        "created_at": dates,
        "updated_at": dates,
        "completed_at": dates,
        "customer_review_status": st.sampled_from(["accepted", "fixed", "rejected"]) | values,
        "customer_review_comments": values,
        "unheard_of": values,
    },
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A callback that may take the fast path."""
    described = draw(tasks)
    body: dict[str, Any] = {"task": described, "task_id": described["task_id"]}
    if draw(st.booleans()):
        body["response"] = draw(responses)
    return json.dumps(body).encode("utf-8", "surrogatepass")


@pytest.fixture
def service(postgres_url: str, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    one = build_service(
        Settings(
            database_url=postgres_url,
            workflows_dir=str(tmp_path),
            secret_key="s",
            subscriber_hosts=("receiver.example:80",),
        ),
        cache_seconds=0,
    )
    yield one
    one.engine.dispose()


def subscribe(service: Service) -> None:
    with service.engine.begin() as connection:
        url, groups = "http://receiver.example:80/", ["delivery", "task", "response", "follow-up"]
        subscriptions.add(connection, service.settings, "ana", url, groups)


def received(service: Service, body: bytes, *, fast: bool) -> dict[str, Any] | None:
    """Return the rows after one delivery on an empty database, None if the fast path gave up."""
    empty(service)
    with service.engine.begin() as connection:
        connection.execute(delete(Notification))
    delivery = DeliveryMeta(new_id(), "callback", "live", utcnow())
    parsed = parse_body(body, "live")
    if not fast:
        receive_in_steps(service, delivery, body, {}, parsed)
    elif not fast_path.applies(parsed, "postgresql"):
        return None
    elif fast_path.insert_first_callback(service, delivery, body, {}, parsed) is None:
        assert not any(stored_rows(service).values())
        return None
    events = [
        (
            row["event"],
            (row["payload"] or {}).get("data", {}).get("task_id"),
            row["delivery_id"] == delivery.id,
        )
        for row in table(service, Notification)
    ]
    return {**stored_rows(service, receipt=True), "notifications": sorted(map(repr, events))}


@pytest.mark.parametrize("subscribed", [False, True])
def test_the_fast_path_writes_what_the_general_path_writes(service: Service, subscribed: bool) -> None:
    if subscribed:
        subscribe(service)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(bodies())
    def compare(body: bytes) -> None:
        fast = received(service, body, fast=True)
        event("fast path" if fast else "general path")
        if fast is not None:
            assert fast == received(service, body, fast=False)

    compare()
    assert len(table(service, Subscriber)) == subscribed


@pytest.mark.parametrize("subscribed", [False, True])
def test_the_first_callback_of_a_task_takes_the_fast_path(service: Service, subscribed: bool) -> None:
    if subscribed:
        subscribe(service)
    rows = received(service, callback(boxes("car")), fast=True)
    assert rows is not None
    assert (len(rows["annotations"]), len(rows["jobs"])) == (1, 1 + 3 * subscribed)


def test_what_needs_more_than_one_statement_takes_the_general_path(service: Service) -> None:
    url = "https://scaleapi-results.s3.amazonaws.com/a.json"
    points_to_a_file = callback({"annotations": {"url": url}}, type="videoannotation")
    for body in (points_to_a_file, callback(boxes("car"), unique_id="w.s.1"), b"no JSON"):
        assert received(service, body, fast=True) is None
    described = json.dumps({"task_id": task()["task_id"], "status": "completed"}).encode()
    assert received(service, described, fast=True) is None


def test_a_second_callback_of_a_task_writes_nothing_by_the_fast_path(service: Service) -> None:
    receive_callback(service, callback(boxes("car")))
    before = stored_rows(service)
    body = callback(boxes("bus"))
    delivery = DeliveryMeta(new_id(), "callback", "live", utcnow())
    parsed = parse_body(body, "live")
    assert fast_path.applies(parsed, "postgresql")
    assert fast_path.insert_first_callback(service, delivery, body, {}, parsed) is None
    assert stored_rows(service) == before
    assert receive(service, body, "live").status == "processed"
