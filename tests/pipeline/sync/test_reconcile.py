"""What no callback brought is taken from Scale's list, and only that; runs go on where they were interrupted."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from models import Annotation, Delivery, Job, Response, SyncRun, Task
from pipeline.db.ids import utcnow
from pipeline.jobs import queue
from pipeline.service import Service
from pipeline.sync import reconcile
from pipeline.sync.reconcile import NoKey, ReconcileRun, begin, enqueue_due_runs
from sandbox.pytest_plugin import ScaleSandbox
from scale.client import Throttled, TransientError, Unauthorized
from tests.assertions import TimeSpan, only, stored_rows, table
from tests.factories.callbacks import boxes, callback, receive_callback, task
from tests.fake_server import FakeServer, ReceivedRequest, reply
from workers.runner import run_due_jobs, run_job


def annotation(scale: ScaleSandbox, **fields: Any) -> dict[str, Any]:
    """A task that the sandbox has answered."""
    request = {
        "callback_url": scale.callback_url,
        "attachment": "https://example.com/a.png",
        "objects_to_annotate": ["car"],
        "with_labels": True,
    }
    created = scale.create("annotation", **request, **fields)
    return scale.wait_for(
        lambda: (found := scale.task(created["task_id"]))["status"] == "completed" and found
    )


@pytest.fixture
def service(open_service: Callable[..., Service], scale: ScaleSandbox) -> Service:
    return open_service(scale_api_url=scale.api_url, scale_api_key=scale.live_key)


def run(service: Service, **wanted: Any) -> ReconcileRun:
    """A whole run."""
    dry_run = wanted.pop("dry_run", False)
    last = begin(service, "live", **wanted)
    for page in reconcile.reconcile(service, last, dry_run=dry_run):
        last = page
    assert last.finished
    return last


def counts(of: ReconcileRun) -> tuple[int, int, int, int]:
    return of.seen, of.missing, of.stale, of.repaired


def test_tasks_whose_callback_never_came_are_taken_from_the_list_once(
    service: Service, scale: ScaleSandbox
) -> None:
    tasks = [annotation(scale) for _ in range(3)]
    assert counts(run(service, dry_run=True)) == (3, 3, 0, 0)
    assert table(service, Task) == []
    assert counts(run(service)) == (3, 3, 0, 3)
    assert {row["task_id"] for row in table(service, Task)} == {one["task_id"] for one in tasks}
    assert {(row["kind"], row["status"]) for row in table(service, Delivery)} == {("reconciled", "processed")}
    assert {row["status"] for row in table(service, Task)} == {"completed"}
    assert len(table(service, Annotation)) == sum(len(one["response"]["annotations"]) for one in tasks)
    before = stored_rows(service)
    assert counts(run(service)) == (3, 0, 0, 0)
    assert stored_rows(service) == before


def test_a_list_of_several_pages_is_looked_through_to_its_end(service: Service, scale: ScaleSandbox) -> None:
    for _ in range(205):
        scale.create(
            "categorization",
            instruction="What is it?",
            callback_url=scale.callback_url,
            attachment="a",
            attachment_type="text",
            categories=["x"],
        )
    scale.wait_for(lambda: not scale.tasks(status="pending"), 30)
    assert counts(run(service)) == (205, 205, 0, 205)


def test_what_callbacks_brought_is_not_received_again(service: Service, scale: ScaleSandbox) -> None:
    annotation(scale)
    came = scale.wait_for(scale.received)
    receive_callback(service, json.dumps(came[0]["body"]).encode())
    assert counts(run(service)) == (1, 0, 0, 0)
    assert only(service, Delivery)["kind"] == "callback"


def test_a_review_a_fix_and_a_recall_that_were_missed_are_made_up_for(
    service: Service, scale: ScaleSandbox
) -> None:
    accepted, fixed, recalled = (annotation(scale)["task_id"] for _ in range(3))
    run(service)
    scale.set_speed("manual")
    scale.audit(accepted, "accepted", "good")
    scale.audit(fixed, "fixed", response=boxes("car", "car"))
    scale.recall(recalled)
    assert counts(run(service)) == (3, 0, 3, 3)
    found = {row["task_id"]: row for row in table(service, Task)}
    assert (found[accepted]["review_status"], found[accepted]["review_comments"]) == ("accepted", ["good"])
    assert (found[fixed]["review_status"], found[fixed]["response_count"]) == ("fixed", 2)
    assert (found[recalled]["status"], found[recalled]["response_id"]) == ("pending", None)
    assert counts(run(service)) == (3, 0, 0, 0)


def test_pending_tasks_that_are_not_known_miss_no_callback(service: Service, scale: ScaleSandbox) -> None:
    scale.set_speed("manual")
    scale.create(
        "annotation",
        callback_url=scale.callback_url,
        attachment="https://example.com/a.png",
        objects_to_annotate=["car"],
    )
    assert counts(run(service)) == (1, 0, 0, 0)
    assert table(service, Task) == []


def test_a_project_and_a_time_can_be_chosen(service: Service, scale: ScaleSandbox) -> None:
    scale.call("POST", "/v1/projects", {"name": "streets", "type": "annotation"})
    inside = annotation(scale, project="streets")["task_id"]
    annotation(scale)
    assert counts(run(service, project="streets")) == (1, 1, 0, 1)
    assert only(service, Task)["task_id"] == inside
    assert run(service, since=utcnow() + timedelta(hours=1)).seen == 0
    assert run(service, since=utcnow() - timedelta(hours=1)).seen == 2


def test_files_of_reconciled_results_are_fetched_like_those_of_callbacks(
    open_service: Callable[..., Service], scale: ScaleSandbox
) -> None:
    service = open_service(
        scale_api_url=scale.api_url,
        scale_api_key=scale.live_key,
        artifact_hosts=(scale.url.removeprefix("http://"),),
    )
    created = scale.create(
        "segmentannotation",
        callback_url=scale.callback_url,
        attachment="https://example.com/a.png",
        labels=["car", "road"],
    )
    scale.wait_for(lambda: scale.task(created["task_id"])["status"] == "completed")
    run(service)
    run_due_jobs(service)
    masks = table(service, Annotation)
    assert {row["type"] for row in masks} == {"mask"}
    assert all("rle" in row["geometry"] for row in masks)


class Pages:
    """A server of a list of tasks, by tokens or by offsets. `answers` come first, each once."""

    def __init__(self, docs: list[dict[str, Any]], *, tokens: bool = True, size: int = 2) -> None:
        self.docs, self.tokens, self.size = docs, tokens, size
        self.answers: dict[int, bytes] = {}  # by the number of the request
        self.peer = FakeServer(self._answer)

    def _answer(self, asked: ReceivedRequest) -> bytes:
        number = len(self.peer.requests)
        if number in self.answers:
            return self.answers[number]
        query = asked.query
        start = int((query.get("next_token") or query.get("offset") or ["0"])[0].removeprefix("t"))
        end = start + self.size
        page: dict[str, Any] = {
            "docs": self.docs[start:end],
            "total": len(self.docs),
            "has_more": end < len(self.docs),
            "limit": self.size,
        }
        if self.tokens and page["has_more"]:
            page["next_token"] = f"t{end}"
        if not self.tokens:
            page["offset"] = start
        return reply(page)

    @property
    def requests(self) -> list[dict[str, list[str]]]:
        return [one.query for one in self.peer.requests]


@pytest.fixture
def pages() -> Iterator[Callable[..., Pages]]:
    opened: list[Pages] = []

    def serve(docs: list[dict[str, Any]], **how: Any) -> Pages:
        opened.append(Pages(docs, **how))
        return opened[-1]

    yield serve
    for one in opened:
        one.peer.__exit__()


Open = Callable[..., Service]
Serve = Callable[..., Pages]


def many(count: int) -> list[dict[str, Any]]:
    return [task(task_id=f"task-{n}", response=boxes("car")) for n in range(count)]


@pytest.mark.parametrize("tokens", [True, False])
def test_both_ways_of_paging_come_to_the_end(tokens: bool, open_service: Open, pages: Serve) -> None:
    server = pages(many(7), tokens=tokens)
    service = open_service(scale_api_url=server.peer.url, scale_api_key="k")
    assert counts(run(service)) == (7, 7, 0, 7)
    assert len(server.requests) == 4


@pytest.mark.parametrize("tokens", [True, False])
def test_an_interrupted_run_goes_on_behind_the_last_page(
    tokens: bool, open_service: Open, pages: Serve
) -> None:
    server = pages(many(7), tokens=tokens)
    service = open_service(scale_api_url=server.peer.url, scale_api_key="k")
    for page in reconcile.reconcile(service, begin(service, "live")):
        if page.seen == 4:
            break
    resumed = begin(service, "live")
    assert (resumed.seen, resumed.repaired) == (4, 4)
    assert counts(run(service)) == (7, 7, 0, 7)
    assert len(server.requests) == 4
    assert only(service, SyncRun)["finished_at"] is not None
    assert begin(service, "live").seen == 0


def test_a_run_of_another_time_or_project_starts_from_the_beginning(open_service: Open, pages: Serve) -> None:
    service = open_service(scale_api_url=pages(many(5)).peer.url, scale_api_key="k")
    since = utcnow() - timedelta(days=3)
    next(reconcile.reconcile(service, begin(service, "live", since=since)))
    assert begin(service, "live", since=since + timedelta(hours=2)).seen == 2
    for other in ({"since": since - timedelta(days=2)}, {}, {"since": since, "project": "p"}):
        assert begin(service, "live", **other).seen == 0  # type: ignore[arg-type]


def test_a_token_that_has_expired_starts_the_list_from_the_beginning(
    open_service: Open, pages: Serve
) -> None:
    server = pages(many(5))
    service = open_service(scale_api_url=server.peer.url, scale_api_key="k")
    next(reconcile.reconcile(service, begin(service, "live")))
    server.answers[2] = reply({"status_code": 400, "error": "next_token is not valid"}, status=400)
    run(service)
    assert len(table(service, Task)) == 5
    assert ["next_token" in one for one in server.requests] == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply({"error": "slow down"}, status=429, Retry_After="7"), Throttled),
        (reply({"error": "no"}, status=401), Unauthorized),
        (reply(b"<html>", status=502), TransientError),
    ],
)
def test_what_scale_refuses_in_the_middle_is_raised_and_the_run_can_go_on(
    answer: bytes, error: type[Exception], open_service: Open, pages: Serve
) -> None:
    server = pages(many(5))
    server.answers[2] = answer
    service = open_service(scale_api_url=server.peer.url, scale_api_key="k")
    with pytest.raises(error):
        run(service)
    assert len(table(service, Task)) == 2
    assert counts(run(service)) == (5, 5, 0, 5)


def test_without_an_api_key_there_is_no_run(open_service: Open) -> None:
    service = open_service()
    with pytest.raises(NoKey):
        run(service)


def test_objects_that_are_no_tasks_are_quarantined_and_the_others_taken(
    open_service: Open, pages: Serve
) -> None:
    server = pages([{"odd": 1}, task(response=boxes("car"))])
    service = open_service(scale_api_url=server.peer.url, scale_api_key="k")
    assert counts(run(service)) == (2, 1, 0, 1)
    assert sorted(row["status"] for row in table(service, Delivery)) == ["processed", "quarantined"]


@pytest.mark.parametrize(
    ("listed", "differs"),
    [
        ({}, False),
        ({"updated_at": "2026-01-01T10:00:00Z"}, False),  # the same moment, printed otherwise
        ({"metadata": {"new": 1}}, False),  # a clock that stands still says that nothing happened
        ({"updated_at": "2026-01-01T11:00:00Z"}, True),
        ({"status": "canceled"}, True),
        ({"customer_review_status": "accepted"}, True),
        ({"response": boxes("car", "car")}, True),
        ({"status": "pending", "response": None}, True),
        (
            {
                "updated_at": "2026-01-01T09:30:00Z",
                "completed_at": None,
                "customer_review_status": "rejected",
            },
            False,
        ),
        ({"updated_at": "2026-01-01T09:30:00Z", "completed_at": None, "response": boxes()}, True),
    ],
)
def test_only_clock_status_review_and_response_count(
    listed: dict[str, Any], differs: bool, open_service: Open, pages: Serve
) -> None:
    doc = {
        name: value for name, value in {**task(response=boxes("car")), **listed}.items() if value is not None
    }
    service = open_service(scale_api_url=pages([doc]).peer.url, scale_api_key="k")
    receive_callback(service, callback(boxes("car")))
    assert counts(run(service)) == (1, 0, int(differs), int(differs))
    assert counts(run(service))[2] == 0


def test_a_task_that_is_only_named_here_is_described_by_the_list(open_service: Open, pages: Serve) -> None:
    doc = task(response=boxes("car"))
    service = open_service(scale_api_url=pages([doc]).peer.url, scale_api_key="k")
    receive_callback(
        service,
        json.dumps({"task_id": doc["task_id"], "response": boxes("car"), "status": "completed"}).encode(),
    )
    assert counts(run(service)) == (1, 0, 1, 1)
    assert (only(service, Task)["type"], len(table(service, Response))) == ("imageannotation", 1)


def due(service: Service) -> list[str]:
    with service.engine.begin() as connection:
        enqueue_due_runs(connection, service)
    return [row["key"] for row in table(service, Job)]


def test_a_run_is_enqueued_when_its_time_has_come(open_service: Open) -> None:
    assert due(open_service(scale_api_key="k")) == []
    service = open_service(scale_api_key="k", reconcile_every_seconds=600)
    assert due(service) == ["reconcile:live"]
    with service.engine.begin() as connection:
        connection.execute(Job.__table__.delete())
    assert due(service) == []
    with service.engine.begin() as connection:
        connection.execute(
            update(SyncRun).values(started_at=utcnow() - timedelta(seconds=601), finished_at=utcnow())
        )
    assert due(service) == ["reconcile:live"]


def test_a_scheduled_run_looks_back_a_month_at_first_and_then_to_the_run_before(
    open_service: Open, pages: Serve
) -> None:
    server = pages(many(3))
    service = open_service(scale_api_url=server.peer.url, scale_api_key="k", reconcile_every_seconds=1)
    for _ in range(2):
        due(service)
        run_due_jobs(service)
        assert table(service, Job) == []
        with service.engine.begin() as connection:
            connection.execute(update(SyncRun).values(started_at=utcnow() - timedelta(seconds=5)))
    since = [
        datetime.fromisoformat(one["updated_after"][0]) for one in server.requests if "next_token" not in one
    ]
    assert abs(utcnow() - since[0] - timedelta(days=30)) < timedelta(minutes=5)
    assert abs(utcnow() - since[1] - timedelta(hours=1)) < timedelta(minutes=5)
    assert len(table(service, Task)) == 3


def test_a_scheduled_run_lets_others_run_after_some_pages_and_goes_on(
    open_service: Open, pages: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "PAGE_BATCH_SIZE", 2)
    service = open_service(
        scale_api_url=pages(many(9)).peer.url, scale_api_key="k", reconcile_every_seconds=60
    )
    due(service)
    seen = []
    while (job := queue.claim(service.engine, 60)) is not None:
        run_job(service, job)
        seen.append(len(table(service, Task)))
    assert seen == [4, 8, 9]
    assert table(service, Job) == []


def test_a_scheduled_run_waits_as_long_as_scale_asks_for(open_service: Open, pages: Serve) -> None:
    server = pages(many(5))
    server.answers[2] = reply({"error": "slow down"}, status=429, Retry_After="40")
    service = open_service(scale_api_url=server.peer.url, scale_api_key="k", reconcile_every_seconds=60)
    due(service)
    with TimeSpan() as then:
        run_due_jobs(service)
    job = only(service, Job)
    assert (job["state"], job["attempts"], job["last_error"]) == ("ready", 0, "Scale asks to slow down")
    assert job["run_at"] in then.shift(40)
    with service.engine.begin() as connection:
        queue.retry(connection, job["id"])
    run_due_jobs(service)
    assert len(table(service, Task)) == 5
    finished = only(service, SyncRun)
    assert finished["started_at"] < finished["finished_at"]
