"""What a purge empties, what it leaves behind, and what late callbacks of purged tasks do."""

import io
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from models import (
    Annotation,
    Artifact,
    Base,
    Delivery,
    DeliveryBody,
    FollowUp,
    Notification,
    PurgeLeftover,
    Response,
    RetentionRun,
    Task,
)
from pipeline.artifacts.retry import ArtifactPurged
from pipeline.artifacts.retry import retry as retry_artifact
from pipeline.datasets import versions
from pipeline.datasets.records import read_tasks
from pipeline.datasets.verify import verify
from pipeline.db.ids import first_id_at, new_id, utcnow
from pipeline.events import subscriptions
from pipeline.follow_ups import decisions
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.jobs import kinds, queue
from pipeline.operations.queries import Gone
from pipeline.operations.queries.deliveries import stream_body
from pipeline.operations.queries.responses import list_annotations
from pipeline.receive.replay import BodyPurged, replay
from pipeline.retention import leftovers, schedule
from pipeline.retention.purge import Progress, expand, purge
from pipeline.retention.selection import ARTIFACTS, BODIES, CLASSES, ROWS, Selection
from pipeline.service import Service
from pipeline.sync.reconcile import receive_differences
from tests.assertions import bodies, only, table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.callbacks import task as task_object
from tests.factories.pipelines import ROOT, Pipeline, asks
from workers.runner import run_due_jobs

CANARY = "canary-7391"


def run(service: Service, *classes: str, dry_run: bool = False, **filters: Any) -> Progress:
    *_, done = purge(service, Selection(classes or CLASSES, **filters), "ana", dry_run=dry_run)
    return done


def receive(service: Service, response: Any = None, **fields: Any) -> None:
    receive_callback(service, callback(response, **fields))


def texts(service: Service) -> str:
    """Every value of every row of the database."""
    return "\n".join(repr(row) for mapper in Base.registry.mappers for row in table(service, mapper.class_))


def test_a_purged_body_leaves_its_digest_and_is_still_recognised(service: Service) -> None:
    receive(service, boxes("car"))
    before = only(service, Delivery)
    assert run(service, BODIES, environment="live").counts[BODIES].bytes == before["size_bytes"]
    after = only(service, Delivery)
    assert bodies(service) == {}
    assert {name for name in before if before[name] != after[name]} == {"purged_at"}
    assert receive_callback(service, callback(boxes("car"))).status == "duplicate"
    assert only(service, Delivery)["duplicates"] == 1
    with pytest.raises(BodyPurged, match="nothing is left to replay"):
        replay(service, before["id"], "ana")
    with pytest.raises(Gone, match="purged"):
        stream_body(service.reader, before["id"])
    assert len(table(service, Annotation)) == 1


def test_a_dry_run_counts_the_same_and_changes_nothing(service: Service) -> None:
    receive(service, boxes("car", "tree"))
    receive(service, boxes("bus"), task_id="other")
    before = texts(service)
    counted = run(service, dry_run=True, environment="live")
    assert texts(service) == before
    assert counted.counts == run(service, environment="live").counts
    rows = counted.counts[ROWS]
    assert (rows.count, rows.responses, rows.annotations) == (2, 2, 3)


def test_nothing_is_selected_twice_and_filters_narrow(service: Service) -> None:
    receive(service, boxes("car"), project="streets")
    receive(service, boxes("bus"), task_id="other")
    assert run(service, project="streets").counts[ROWS].count == 1
    assert run(service, environment="test").counts[BODIES].count == 0
    assert run(service, before=utcnow() - timedelta(days=1)).counts[ROWS].count == 0
    assert run(service, environment="live").counts[ROWS].count == 1
    assert run(service, environment="live").counts[ROWS].count == 0


def test_what_waits_or_is_not_understood_keeps_its_body(service: Service) -> None:
    receive_callback(service, b"not json")
    receive_callback(service, callback(boxes("car")), inline_bytes=10)  # only stored, for the worker
    assert run(service, BODIES, environment="live").counts[BODIES].count == 0
    assert len(bodies(service)) == 2


def test_every_trace_of_the_content_is_gone_and_the_identity_stays(
    open_pipeline: Callable[..., Pipeline],
) -> None:
    pipeline = open_pipeline(subscriber_hosts=("hooks.example",))
    service = pipeline.service
    with service.engine.begin() as connection:
        subscriptions.add(
            connection, service.settings, "ana", "https://hooks.example/x", ["task", "response"]
        )
    pipeline.workflow({"ask": asks()})
    pipeline.receive(
        {
            "annotations": [{**boxes(CANARY)["annotations"][0], "attributes": {"note": CANARY}}],
            "note": CANARY,
        },
        instruction=CANARY,
        metadata={"who": CANARY},
        tags=[CANARY],
        params={"attachment": f"https://example.com/{CANARY}.png"},
        customer_review_comments=[CANARY],
        unknown_key=CANARY,
    )
    (child,) = pipeline.children("ask")
    pipeline.finish(child, {"annotations": {"question": [CANARY]}})
    with service.engine.begin() as connection:
        connection.execute(update(Notification).values(state="delivered"))
        tasks = expand(connection, [ROOT], runs=True)
    assert set(tasks) == {ROOT, child}
    assert CANARY in texts(service)
    kept = {name: pipeline.follow_ups()[name]["state"] for name in pipeline.follow_ups()}
    digests = {row["digest"] for row in table(service, Response)}
    run(service, task_ids=tasks)
    assert CANARY not in texts(service)
    assert pipeline.states() == kept
    assert {row["digest"] for row in table(service, Response)} == digests
    assert {row["task_id"]: row["status"] for row in table(service, Task)} == dict.fromkeys(
        tasks, "completed"
    )
    assert table(service, Annotation) == []


def test_late_callbacks_of_a_purged_task_bring_nothing_back_and_create_nothing(pipeline: Pipeline) -> None:
    service = pipeline.service
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    (child,) = pipeline.children("ask")
    pipeline.finish(child)
    run(service, ROWS, task_ids=(ROOT, child))
    at_scale = pipeline.at_scale().keys()

    accepted = {"customer_review_status": "accepted", "updated_at": "2026-02-01T00:00:00.000Z"}
    pipeline.receive(boxes("car"), **accepted)
    (task,) = (row for row in table(service, Task) if row["task_id"] == ROOT)
    assert (task["review_status"], task["response_count"], task["params"]) == ("accepted", 1, None)

    pipeline.receive(boxes("bus", "tree"), updated_at="2026-03-01T00:00:00.000Z")
    (task,) = (row for row in table(service, Task) if row["task_id"] == ROOT)
    assert (task["response_count"], task["metadata"], task["instruction"]) == (2, None, None)
    of_root = [row for row in table(service, Response) if row["task_id"] == ROOT]
    assert sorted((row["number"], row["response"], row["annotation_count"]) for row in of_root) == [
        (1, None, 1),
        (2, None, 2),
    ]
    assert table(service, Annotation) == []
    pipeline.tell(child)
    pipeline.work()
    assert pipeline.at_scale().keys() == at_scale
    assert pipeline.jobs() == []
    newest = max(table(service, Delivery), key=lambda row: row["id"])
    assert newest["status"] == "processed"
    with pytest.raises(BodyPurged, match="would not bring its content back"):
        replay(service, newest["id"], "ana")


def test_reconcile_finds_nothing_missing_after_a_purge(service: Service) -> None:
    receive(service, boxes("car"))
    run(service, environment="live")
    listed = {**task_object(), "response": boxes("car")}
    assert receive_differences(service, [listed], "live", kind="reconciled") == []


def test_a_follow_up_is_not_created_from_a_purged_source(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    (child,) = pipeline.children("ask")
    pipeline.finish(child)
    with pipeline.service.engine.begin() as connection:
        connection.execute(update(FollowUp).values(state="failed"))
    run(pipeline.service, ROWS, task_ids=(ROOT,))
    unique_id = next(iter(pipeline.follow_ups()))
    with pytest.raises(InvalidTransition, match="purged"), pipeline.service.engine.begin() as connection:
        decisions.retry(connection, unique_id, "ana")


def test_a_child_of_a_purged_parent_plans_nothing(pipeline: Pipeline) -> None:
    step = asks(after={"step": "ask", "state": "accepted"})
    step["create"]["params"] = {**step["create"]["params"], "attachment": "${{ parent.task.task_id }}"}
    pipeline.workflow({"ask": asks(), "again": step})
    pipeline.receive(boxes("car"))
    (child,) = pipeline.children("ask")
    pipeline.finish(child)
    run(pipeline.service, ROWS, task_ids=(ROOT,))
    later = (utcnow() + timedelta(hours=1)).isoformat()
    accepted = {"customer_review_status": "accepted", "updated_at": later}
    receive_callback(pipeline.service, callback(**{**pipeline.sandbox.task(child), **accepted}))
    pipeline.work()
    assert len(pipeline.follow_ups()) == 1
    assert pipeline.jobs() == []


def test_a_run_that_goes_on_is_left_alone(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    done = run(pipeline.service, ROWS, ARTIFACTS, task_ids=(ROOT,))
    assert (done.counts[ROWS].count, done.counts[ROWS].open) == (0, 1)
    (child,) = pipeline.children("ask")
    pipeline.finish(child)
    assert run(pipeline.service, ROWS, task_ids=(ROOT,)).counts[ROWS].count == 1


def test_a_pending_task_is_left_alone(service: Service) -> None:
    receive(service, None, status="pending")
    done = run(service, task_ids=(ROOT,))
    assert (done.counts[ROWS].count, done.counts[ROWS].open) == (0, 1)
    assert only(service, Task)["params"] is not None


def test_a_task_with_a_job_to_plan_it_is_left_alone(service: Service) -> None:
    receive(service, boxes("car"))
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, [ROOT])
    assert run(service, ROWS, environment="live").counts[ROWS].open == 1


def stored_file(service: Service, task_id: str, content: bytes) -> Any:
    """A file of the task's first response, stored as the fetch job does."""
    sha256, size = service.store.put(io.BytesIO(content))
    with service.engine.begin() as connection:
        response_id = connection.scalar(select(Response.id).where(Response.task_id == task_id))
        row = {
            "id": new_id(),
            "response_id": response_id,
            "task_id": task_id,
            "ordinal": 1,
            "role": "image",
            "url": "https://example.com/x",
            "state": "stored",
            "sha256": sha256,
            "size_bytes": size,
        }
        connection.execute(Artifact.__table__.insert().values(row))
    return row


def test_a_content_goes_with_the_last_file_that_refers_to_it(service: Service) -> None:
    for task_id in ("one", "two"):
        receive(service, boxes("car"), task_id=task_id)
        file = stored_file(service, task_id, b"pixels")
    counted = run(service, ARTIFACTS, task_ids=("one",)).counts[ARTIFACTS]
    assert (counted.count, counted.bytes) == (1, 6)
    assert service.store.exists(file["sha256"])
    run(service, ARTIFACTS, task_ids=("two",))
    assert not service.store.exists(file["sha256"])
    rows = table(service, Artifact)
    assert {(row["state"], row["sha256"], row["size_bytes"]) for row in rows} == {
        ("stored", file["sha256"], 6)
    }
    assert all(row["purged_at"] for row in rows)
    with pytest.raises(ArtifactPurged, match="not fetched again"), service.engine.begin() as connection:
        retry_artifact(connection, rows[0]["id"], "ana")


def test_a_purge_that_was_killed_is_finished_by_the_next(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(service, boxes("car", "tree"))
    file = stored_file(service, ROOT, b"pixels")

    def killed(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "finish", killed)
        for name in (ROWS, ARTIFACTS):
            with pytest.raises(SystemExit):
                run(service, name, environment="live")
            patch.setattr(leftovers, "pending", lambda _: [])
    assert len(table(service, Annotation)) == 2
    assert service.store.exists(file["sha256"])
    with pytest.raises(Gone), service.reader.begin() as connection:
        list_annotations(connection, ROOT, {})
    run(service, BODIES, environment="test")
    assert table(service, Annotation) == []
    assert not service.store.exists(file["sha256"])
    assert table(service, PurgeLeftover) == []


def test_a_dataset_version_protects_its_members_until_it_is_forced(service: Service) -> None:
    receive(service, boxes("car"))
    receive(service, boxes("bus"), task_id="other", project="other")
    version = versions.create(service, "street", versions.Request(filters=None), "ana")
    assert len(list(read_tasks(service.reader, version.id))) == 2
    done = run(service, environment="live")
    assert {name: dict(one.protected) for name, one in done.counts.items()} == {
        BODIES: {"street@1": 2},
        ARTIFACTS: {},
        ROWS: {"street@1": 2},
    }
    assert not any(one.count for one in done.counts.values())
    counted = run(service, task_ids=("other",), force=True, dry_run=True)
    assert counted.counts[ROWS].damaged == {"street@1": 1}
    assert verify(service, "street@1")["problems"] == []
    run(service, task_ids=("other",), force=True)
    problems = verify(service, "street@1")["problems"]
    assert any("deleted on purpose" in one for one in problems)
    assert any("Task other: it was purged on" in one for one in problems)
    assert versions.create(service, "street", versions.Request(), "ana").tasks == 1


@pytest.fixture
def make_old(service: Service) -> Callable[[], None]:
    def age() -> None:
        """Everything that is stored was received ten days ago."""
        with service.engine.begin() as connection:
            for key in (Task.id, Delivery.id, DeliveryBody.delivery_id, Artifact.id):
                first = first_id_at(utcnow() - timedelta(days=10)).int
                for number, row_id in enumerate(connection.scalars(select(key).order_by(key)).all()):
                    aged = {key.key: type(row_id)(int=first + number)}
                    connection.execute(update(key.class_).where(key == row_id).values(aged))

    return age


def test_the_worker_purges_by_the_settings_once_a_day(
    open_service: Callable[..., Service], make_old: Callable[[], None]
) -> None:
    service = open_service(retain_bodies_days=5, retain_rows_days=20)
    receive(service, boxes("car"))
    make_old()
    receive(service, boxes("bus"), task_id="new")
    for _ in range(2):
        with service.engine.begin() as connection:
            schedule.enqueue_due_purge(connection, service)
        run_due_jobs(service)
    assert [
        bool(row["purged_at"]) for row in sorted(table(service, Delivery), key=lambda row: row["id"])
    ] == [
        True,
        False,
    ]
    assert not any(row["purged_at"] for row in table(service, Task))
    runs = {row["name"]: row for row in table(service, RetentionRun)}
    assert {name: row["counts"]["count"] for name, row in runs.items()} == {BODIES: 1, ROWS: 0}
    assert all(row["finished_at"] for row in runs.values())
    with service.engine.begin() as connection:
        assert queue.due(connection, 10) == []


def test_without_the_settings_nothing_is_ever_purged(service: Service) -> None:
    with service.engine.begin() as connection:
        schedule.enqueue_due_purge(connection, service)
        assert queue.due(connection, 10) == []


def test_a_purge_of_many_pages_is_resumed_where_it_was(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.retention.selection.PAGE_SIZE", 2)
    for number in range(5):
        receive(service, boxes("car"), task_id=f"task-{number}")
    pages = purge(service, Selection((BODIES,), environment="live"), "ana", dry_run=False)
    first = next(pages)
    assert first.counts[BODIES].count == 2
    pages.close()
    *_, done = purge(
        service,
        Selection((BODIES,), environment="live"),
        "ana",
        dry_run=False,
        start=first.position,
        counts=first.counts,
    )
    assert done.counts[BODIES].count == 5
    assert done.position is None


def test_callbacks_and_purges_at_once_leave_every_task_whole_or_purged(service: Service) -> None:
    for number in range(40):
        receive(service, boxes("car"), task_id=f"task-{number}")
    faults: list[Exception] = []

    def guarded(act: Callable[[], object]) -> Callable[[], None]:
        def called() -> None:
            try:
                act()
            except Exception as fault:
                faults.append(fault)

        return called

    def answer_again() -> None:
        for number in range(40):
            later = {"task_id": f"task-{number}", "updated_at": "2026-02-01T00:00:00.000Z"}
            receive(service, boxes("bus", "tree"), **later)

    acts = (answer_again, lambda: run(service, environment="live"), lambda: run(service, environment="live"))
    threads = [threading.Thread(target=guarded(act)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    run(service, environment="live")
    tasks = table(service, Task)
    assert len(tasks) == 40
    assert all(row["purged_at"] and row["params"] is None and row["response_count"] == 2 for row in tasks)
    assert table(service, Annotation) == []
    assert all(row["response"] is None for row in table(service, Response))
    assert len(table(service, Delivery)) == 80
