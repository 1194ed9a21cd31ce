"""The fast path of planning writes the rows that the general path writes, for any plan on any state of the database."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, text, update

from config import Settings
from models import CreationPause, FollowUp, Job, Join, RateLimit, SpendCounter, Subscriber, Task
from pipeline.bootstrap import build_service
from pipeline.db.ids import new_id, utcnow
from pipeline.events import subscriptions
from pipeline.follow_ups import fast_plan, task_creation
from pipeline.follow_ups.limits import key_of
from pipeline.follow_ups.pauses import MissedBy, insert_creation_pauses
from pipeline.follow_ups.plan_task import Planned, TaskPlan, make_plan, plan_task, store_plan
from pipeline.jobs import queue
from pipeline.jobs.rate_limits import set_rate_limit
from pipeline.jobs.scale_limits import scope
from pipeline.service import Service
from tests.assertions import TimeSpan, empty, only, table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.jobs import claim, expire, finish
from tests.factories.pipelines import ROOT, asks
from tests.servers import wait_until
from workflows.definition.model import Limit
from workflows.planning.plan import PlannedFollowUp
from workflows.planning.reasons import ReasonCode

A_DAY = 3
WORKFLOW = {
    "workflow": "w",
    "steps": {"few": asks(limits={"per_day": A_DAY}), "many": asks(), "both": asks(limits={"total": 5})},
}
COUNTERS = {"w.few": "day", "w": "day", "w.both": "total"}

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
reasons = st.sampled_from([None, ReasonCode.HOLD, ReasonCode.INCOMPLETE, ReasonCode.INVALID])
follow_ups = st.builds(
    PlannedFollowUp,
    unique_id=st.integers(1, 6).map(lambda number: f"w.step.{ROOT}.{number}"),
    workflow=st.just("w"),
    digest=st.just("d"),
    step=st.sampled_from(["few", "few", "many", "both"]),
    source_task_id=st.just(ROOT),
    source_annotation=st.none() | texts,
    source_response=st.just("r"),
    task_type=st.just("categorization"),
    request=st.dictionaries(texts, values, max_size=3),
    state=st.sampled_from(["planned", "planned", "planned", "held", "skipped"]),
    reason_code=reasons,
    reason=st.none() | texts,
    depth=st.integers(1, 5),
    attempt=st.integers(1, 3),
    first_unique_id=st.none() | texts,
)
plans = st.lists(follow_ups, max_size=4, unique_by=lambda one: one.unique_id)
LIMITED = dict.fromkeys(COUNTERS, 0)
counters = st.just(LIMITED) | st.dictionaries(st.sampled_from([*COUNTERS]), st.integers(0, A_DAY))
Before = Callable[[Connection], object]


@pytest.fixture
def service(postgres_url: str, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "w.yaml").write_text(json.dumps(WORKFLOW))
    one = build_service(
        Settings(
            database_url=postgres_url,
            workflows_dir=str(tmp_path),
            secret_key="s",
            scale_api_key="live_key",
            public_url="http://127.0.0.1:9",
            subscriber_hosts=("receiver.example:80",),
        ),
        cache_seconds=0,
    )
    yield one
    one.engine.dispose()


def planned(
    service: Service, found: list[PlannedFollowUp] | None = None, before: Before = lambda connection: None
) -> tuple[queue.Job, TaskPlan]:
    """A task whose result has just come, the claimed job that plans it, and its plan: `found`, or what the workflow says."""
    empty(service)
    with service.engine.begin() as connection:
        for model in (FollowUp, SpendCounter, Join, CreationPause, RateLimit):
            connection.execute(delete(model))
    receive_callback(service, callback(boxes("car")))
    job = claim(service)
    with service.engine.begin() as connection:
        before(connection)
    plan = make_plan(service, ROOT)
    assert plan is not None
    if found is not None:
        (of_workflow,) = plan.planned
        plan.planned = [Planned(of_workflow.workflow, found, [])]
    return job, plan


def rows(service: Service) -> dict[str, list[str]]:
    """Every row that planning writes, without times, and only whether there is an id."""
    dropped = {"id", "planned_at", "run_at", "created_at", "changed_at", "lease_owner", "opened_at"}

    def plain(row: dict[str, Any]) -> str:
        kept = {name: value for name, value in row.items() if name not in dropped}
        return repr({name: "an id" if isinstance(value, UUID) else value for name, value in kept.items()})

    models = (FollowUp, Job, SpendCounter, Join)
    return {model.__tablename__: sorted(map(plain, table(service, model))) for model in models}


def store_generally(service: Service, job: queue.Job, plan: TaskPlan) -> int:
    return store_plan(service, plan, lambda: None, lambda connection, _: queue.finish(connection, job))


def grant(granted: dict[str, int]) -> Before:
    """A counter of each limit with what it has granted."""

    def insert_counters(connection: Connection) -> None:
        for counter, number in granted.items():
            _, period = key_of(Limit(counter, COUNTERS[counter], 9), utcnow())
            row = {"counter": counter, "period": period, "granted": number, "changed_at": utcnow()}
            connection.execute(insert(SpendCounter).values(row))

    return insert_counters


def test_the_fast_path_writes_what_the_general_path_writes(service: Service) -> None:
    taken: set[str] = set()

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(plans, counters)
    def compare(found: list[PlannedFollowUp], granted: dict[str, int]) -> None:
        job, plan = planned(service, found, grant(granted))
        before = rows(service)
        stored = fast_plan.store_usual_plan(service, job, plan)
        taken.add("general path" if stored is None else "fast path")
        if stored is None:
            assert rows(service) == before
            return
        fast = rows(service)
        assert (store_generally(service, *planned(service, found, grant(granted))), rows(service)) == (
            stored.created,
            fast,
        )

    compare()
    assert taken == {"general path", "fast path"}


def follow_up(step: str = "few", number: int = 1, **fields: Any) -> PlannedFollowUp:
    row = {
        "unique_id": f"w.{step}.{ROOT}.{number}",
        "workflow": "w",
        "digest": "d",
        "step": step,
        "source_task_id": ROOT,
        "source_annotation": None,
        "source_response": "r",
        "task_type": "categorization",
        "request": {},
        "state": "planned",
    }
    return PlannedFollowUp(**{**row, **fields})


@pytest.mark.parametrize(
    "found",
    [
        [],
        [follow_up()],
        [follow_up(number=number) for number in range(A_DAY)],
        [follow_up(state="held"), follow_up("many")],
    ],
    ids=["nothing", "one", "several", "one is held"],
)
def test_the_usual_plan_takes_the_fast_path(service: Service, found: list[PlannedFollowUp]) -> None:
    job, plan = planned(service, found, grant(LIMITED))
    assert fast_plan.store_usual_plan(service, job, plan) == (len(found), None)
    assert len(table(service, FollowUp)) == len(found)
    created = sum(one.state == "planned" for one in found)
    assert [row["kind"] for row in table(service, Job)] == ["create"] * created
    assert sum(row["granted"] for row in table(service, SpendCounter)) == created


def hold_for_a_file(connection: Connection) -> None:
    _insert_follow_up(connection, "w.old", state="held", reason_code="incomplete")


def store_the_same(connection: Connection) -> None:
    _insert_follow_up(connection, follow_up().unique_id, state="planned")


def _insert_follow_up(connection: Connection, unique_id: str, **columns: Any) -> None:
    row = {
        "unique_id": unique_id,
        "id": new_id(),
        "workflow": "w",
        "workflow_digest": "d",
        "step": "many",
        "environment": "live",
        "source_task_id": ROOT,
        "task_type": "categorization",
        "request": {},
        "planned_at": utcnow(),
        **columns,
    }
    connection.execute(insert(FollowUp).values(row))


@pytest.mark.parametrize(
    ("found", "granted", "before"),
    [
        ([follow_up(), follow_up("many")], LIMITED, None),
        ([follow_up("both")], LIMITED, None),
        ([follow_up()], {}, None),
        ([follow_up()], {"w.few": A_DAY}, None),
        ([follow_up(), follow_up(number=2)], {"w.few": A_DAY - 1}, None),
        ([follow_up("many")], LIMITED, hold_for_a_file),
        ([follow_up()], LIMITED, store_the_same),
    ],
    ids=["two limits", "two of one step", "first of a day", "used up", "one too many", "held", "stored"],
)
def test_an_unusual_plan_takes_the_general_path(
    service: Service, found: list[PlannedFollowUp], granted: dict[str, int], before: Before | None
) -> None:
    def prepare(connection: Connection) -> None:
        grant(granted)(connection)
        if before is not None:
            before(connection)

    job, plan = planned(service, found, prepare)
    stored = rows(service)
    assert fast_plan.store_usual_plan(service, job, plan) is None
    assert rows(service) == stored
    assert store_generally(service, job, plan) == len(found) - (before is store_the_same)


def test_a_plan_with_failures_or_paused_workflows_takes_the_general_path(service: Service) -> None:
    job, plan = planned(service, [follow_up()], grant(LIMITED))
    plan.failures.append(ValueError())
    assert fast_plan.store_usual_plan(service, job, plan) is None
    plan.failures.clear()
    plan.missed.add(MissedBy("workflow", "v"))
    assert fast_plan.store_usual_plan(service, job, plan) is None
    plan.missed.clear()
    assert fast_plan.store_usual_plan(service, job, plan) == (1, None)


def test_what_somebody_subscribes_to_takes_the_general_path(service: Service) -> None:
    job, plan = planned(service, [follow_up()], grant(LIMITED))
    for group in ("follow-up", "workflow"):
        with service.engine.begin() as connection:
            connection.execute(delete(Subscriber))
            subscriptions.add(connection, service.settings, "ana", "http://receiver.example:80/", [group])
        assert fast_plan.store_usual_plan(service, job, plan) is None
    assert table(service, FollowUp) == []


def test_a_task_that_has_changed_and_a_lost_lease_store_nothing(service: Service) -> None:
    job, plan = planned(service, [follow_up()], grant(LIMITED))
    with service.engine.begin() as connection:
        connection.execute(update(Task).values(status="canceled"))
    assert fast_plan.store_usual_plan(service, job, plan) is None
    job, plan = planned(service, [follow_up()], grant(LIMITED))
    expire(service)
    other = claim(service)
    assert fast_plan.store_usual_plan(service, job, plan) is None
    assert table(service, FollowUp) == []
    assert fast_plan.store_usual_plan(service, other, plan) == (1, None)


def test_a_job_that_was_enqueued_while_it_ran_runs_once_more(service: Service) -> None:
    job, _ = planned(service)
    with service.engine.begin() as connection:
        queue.enqueue(connection, job.kind, [job.subject])
    plan_task(service, job)
    (again,) = [row for row in table(service, Job) if row["kind"] == job.kind]
    assert again["state"] == "ready"


@pytest.mark.parametrize("limit_is_reached", [False, True])
def test_what_another_transaction_commits_meanwhile_rolls_everything_back(
    service: Service, limit_is_reached: bool
) -> None:
    """The statement waits for a row that another transaction has locked, and then finds it changed."""
    job, plan = planned(service, [follow_up()], grant(LIMITED))
    with ThreadPoolExecutor(1) as thread, service.engine.connect() as other:
        if limit_is_reached:
            other.execute(update(SpendCounter).values(granted=A_DAY))
        else:
            store_the_same(other)
        before = len(table(service, FollowUp)) + (not limit_is_reached)
        stored = thread.submit(fast_plan.store_usual_plan, service, job, plan)
        wait_until(lambda: waits_for_a_lock(service))
        other.commit()
        assert stored.result() is None
    assert len(table(service, FollowUp)) == before
    assert [row["id"] for row in table(service, Job)] == [job.id]


def waits_for_a_lock(service: Service) -> bool:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with service.reader.begin() as connection:
        return connection.scalar(text(waiting)) is not None


def test_the_only_creation_is_leased_to_a_worker_that_goes_on(service: Service) -> None:
    job, plan = planned(service, [follow_up()], grant(LIMITED))
    with TimeSpan() as then:
        stored = fast_plan.store_usual_plan(service, replace(job, goes_on=True), plan)
    assert stored is not None
    assert stored.next_job is not None
    row = only(service, Job)
    assert (row["kind"], row["state"], row["attempts"]) == ("create", "running", 1)
    assert row["run_at"] in then.shift(service.settings.lease_seconds)
    next_job = stored.next_job
    assert next_job.is_last_due
    assert (next_job.id, next_job.owner, next_job.queue) == (row["id"], row["lease_owner"], "live")
    assert queue.claim(service.engine, 60) is None
    finish(service, next_job)
    assert table(service, Job) == []


def test_a_leased_creation_has_what_it_would_read(service: Service) -> None:
    request = {"layers": {"boxes": [{"label": "ü", "left": 1.5, "attributes": None}]}, "priority": 3}
    job, plan = planned(service, [follow_up(request=request, source_annotation="a")], grant(LIMITED))
    stored = fast_plan.store_usual_plan(service, replace(job, goes_on=True), plan)
    assert stored is not None
    assert stored.next_job is not None
    assert task_creation._as_planned(stored.next_job) == task_creation._read(service, stored.next_job.subject)


def enqueue_other(kind: str) -> Before:
    return lambda connection: queue.enqueue(
        connection, kind, ["other"], queue="live" if kind == "create" else None
    )


def pause_creation(connection: Connection) -> None:
    insert_creation_pauses(connection, "ana")


def limit_rate(connection: Connection) -> None:
    set_rate_limit(connection, scope("live"), "Scale asks to slow down", 0)


@pytest.mark.parametrize(
    "before", [*map(enqueue_other, ["plan", "fetch", "create"]), pause_creation, limit_rate]
)
def test_a_creation_waits_its_turn(service: Service, before: Before) -> None:
    job, plan = planned(service, [follow_up()], grant(LIMITED))
    with service.engine.begin() as connection:
        before(connection)
    assert fast_plan.store_usual_plan(service, replace(job, goes_on=True), plan) == (1, None)
    assert {row["state"] for row in table(service, Job)} == {"ready"}


@pytest.mark.parametrize(("kind", "is_leased"), [("plan", True), ("fetch", True), ("create", False)])
def test_a_creation_in_another_thread_waits_for_older_creations_alone(
    service: Service, kind: str, is_leased: bool
) -> None:
    service.accepting.add("live")
    job, plan = planned(service, [follow_up()], grant(LIMITED))
    with service.engine.begin() as connection:
        enqueue_other(kind)(connection)
    stored = fast_plan.store_usual_plan(service, replace(job, goes_on=True), plan)
    assert stored is not None
    assert (stored.next_job is not None) == is_leased
    if stored.next_job is not None:
        assert not stored.next_job.is_last_due
        assert stored.next_job.fetch_is_due == (kind == "fetch")


def test_of_two_creations_none_is_leased(service: Service) -> None:
    job, plan = planned(service, [follow_up(), follow_up(number=2)], grant(LIMITED))
    assert fast_plan.store_usual_plan(service, replace(job, goes_on=True), plan) == (2, None)
    assert {row["state"] for row in table(service, Job)} == {"ready"}
