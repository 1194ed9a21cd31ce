"""The fast path of a creation writes the rows that the general path writes, for any answer of Scale."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, update

from config import Settings
from models import FollowUp, Job, Subscriber, Task
from pipeline.bootstrap import build_service
from pipeline.db.ids import new_id, utcnow
from pipeline.events import subscriptions
from pipeline.follow_ups import fast_creation
from pipeline.follow_ups.task_creation import created_task_row, record_created
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from tests.assertions import empty, table
from tests.factories.jobs import ask, claim, expire
from tests.factories.pipelines import ROOT
from workflows.planning.reasons import ReasonCode

THIS = f"w.ask.{ROOT}"

texts = st.text(max_size=20)
reasons = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=20
)  # what a text column holds
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
dates = st.sampled_from(["2026-01-01T10:00:00.000Z", "1999-12-31", "yesterday", 5, None])
answers = st.fixed_dictionaries(
    {"task_id": st.text("abc-_1", min_size=1, max_size=20)},
    optional={
        "type": st.just("categorization") | values,
        "status": st.sampled_from(["pending", "completed", "error", "canceled"]) | values,
        "created_at": dates,
        "updated_at": dates,
        "params": values,
        "metadata": values,
        "tags": st.lists(texts, max_size=3) | values,
        "project": texts | values,
        "priority": st.integers() | values,
        "unique_id": st.just(THIS) | values,
        "is_test": st.booleans(),
        "unheard_of": values,
    },
)
columns = st.fixed_dictionaries(
    {"state": st.sampled_from(["planned", "planned", "planned", "canceled", "held"])},
    optional={
        "reason": reasons,
        "reason_code": st.sampled_from([None, ReasonCode.HOLD]),
        "environment": st.sampled_from(["live", "live", "test"]),
    },
)
PENDING = {"task_id": "t1", "type": "categorization", "status": "pending", "unique_id": THIS}


@pytest.fixture
def service(postgres_url: str) -> Iterator[Service]:
    one = build_service(
        Settings(database_url=postgres_url, secret_key="s", subscriber_hosts=("receiver.example:80",)),
        cache_seconds=0,
    )
    yield one
    one.engine.dispose()


def asked(service: Service, answer: dict[str, Any], **row: Any) -> tuple[queue.Job, dict[str, Any]]:
    """A follow-up for which Scale has just been asked, the claimed job that asked, and the row of the task in the answer."""
    empty(service)
    with service.engine.begin() as connection:
        connection.execute(delete(FollowUp))
        planned = {
            "unique_id": THIS,
            "id": new_id(),
            "workflow": "w",
            "workflow_digest": "d",
            "step": "ask",
            "state": "planned",
            "environment": "live",
            "source_task_id": ROOT,
            "task_type": "categorization",
            "request": {},
            "planned_at": utcnow(),
            **row,
        }
        connection.execute(insert(FollowUp).values(planned))
    ask(service, THIS, kind=kinds.CREATE)
    return claim(service), created_task_row(THIS, "live", answer)


def rows(service: Service) -> dict[str, list[str]]:
    """Every row that a creation writes, without ids, and only whether there is a time."""

    def plain(row: dict[str, Any]) -> str:
        kept = {name: "an id" if isinstance(value, UUID) else value for name, value in row.items()}
        kept |= {name: kept[name] is not None for name in ("run_at", "created_at") if name in kept}
        return repr(
            {name: value for name, value in kept.items() if name not in ("planned_at", "lease_owner")}
        )

    return {model.__tablename__: sorted(map(plain, table(service, model))) for model in (Task, FollowUp, Job)}


def record_generally(service: Service, job: queue.Job, task_row: dict[str, Any]) -> None:
    with service.engine.begin() as connection:
        record_created(connection, task_row, None)
        queue.finish(connection, job)


def test_the_fast_path_writes_what_the_general_path_writes(service: Service) -> None:
    taken = set()

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(answers, columns)
    def compare(answer: dict[str, Any], row: dict[str, Any]) -> None:
        job, task_row = asked(service, answer, **row)
        before = rows(service)
        is_recorded = fast_creation.record_usual_creation(service, job, task_row)
        taken.add(is_recorded)
        if not is_recorded:
            assert rows(service) == before
            return
        fast = rows(service)
        record_generally(service, *asked(service, answer, **row))
        assert rows(service) == fast

    compare()
    assert taken == {False, True}


def test_the_usual_creation_takes_the_fast_path(service: Service) -> None:
    job, task_row = asked(service, PENDING)
    assert fast_creation.record_usual_creation(service, job, task_row)
    (follow_up,) = table(service, FollowUp)
    assert (follow_up["state"], follow_up["task_id"]) == ("created", "t1")
    assert [row["follow_up_unique_id"] for row in table(service, Task)] == [THIS]
    assert table(service, Job) == []


def callback_came_first(service: Service) -> None:
    with service.engine.begin() as connection:
        connection.execute(insert(Task).values(task_id="t1", id=new_id(), environment="live"))


def is_canceled(service: Service) -> None:
    with service.engine.begin() as connection:
        connection.execute(update(FollowUp).values(state="canceled"))


def lease_is_lost(service: Service) -> None:
    expire(service)
    claim(service)


def is_enqueued_again(service: Service) -> None:
    ask(service, THIS, kind=kinds.CREATE)


def somebody_subscribes(service: Service) -> None:
    with service.engine.begin() as connection:
        connection.execute(delete(Subscriber))
        subscriptions.add(connection, service.settings, "ana", "http://receiver.example:80/", ["follow-up"])


@pytest.mark.parametrize(
    "meanwhile", [callback_came_first, is_canceled, lease_is_lost, is_enqueued_again, somebody_subscribes]
)
def test_an_unusual_creation_takes_the_general_path(
    service: Service, meanwhile: Callable[[Service], None]
) -> None:
    job, task_row = asked(service, PENDING)
    meanwhile(service)
    before = rows(service)
    assert not fast_creation.record_usual_creation(service, job, task_row)
    assert rows(service) == before


@pytest.mark.parametrize("status", ["canceled", "error"])
def test_a_task_that_has_ended_already_takes_the_general_path(service: Service, status: str) -> None:
    job, task_row = asked(service, {**PENDING, "status": status})
    assert not fast_creation.record_usual_creation(service, job, task_row)
    record_generally(service, job, task_row)
    assert [row["state"] for row in table(service, FollowUp)] == [status]
