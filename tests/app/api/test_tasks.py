"""Tasks in the API: what stands of each, and which ones a list finds."""

import itertools
import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import event, text

from pipeline.service import Service
from tests.app.api.conftest import Deliver
from tests.factories.callbacks import callback, receive_callback
from tests.factories.pipelines import ROOT

Get = Callable[..., Any]

ACCEPTED = "5f10aa0700c4e10017d2aa07"


def ids(answer: dict[str, Any]) -> list[str]:
    return [task["task_id"] for task in answer["data"]]


def test_a_task_says_all_that_the_contract_names(deliver: Deliver, get: Get) -> None:
    deliver("annotation/accepted")
    task = get(f"/tasks/{ACCEPTED}")
    assert task["type"] == "annotation"
    assert task["status"] == "completed"
    assert task["environment"] == "live"
    assert task["project"] == "meadow"
    assert task["params"]["objects_to_annotate"] == ["tractor", "sheep"]
    assert task["created_at"] == "2021-05-11T08:00:00.250Z"
    assert task["updated_at"] == "2021-05-12T10:00:00.090Z"
    assert task["completed_at"] == "2021-05-11T09:30:00.000Z"
    assert task["review"]["status"] == "accepted"
    assert task["review"]["comments"] == ["tight boxes"]
    assert task["error"] is None
    assert task["answer"] == {"global_attributes": {"weather": "rain"}, "is_customer_fix": False}
    assert task["global_attributes"] == {"weather": "rain"}
    assert (task["response_number"], task["response_count"], task["annotation_count"]) == (1, 1, 2)
    assert task["source"] is None
    assert task["follow_ups"] == []
    assert task["artifacts"] == []
    for name in ("batch", "unique_id", "metadata"):
        assert name in task


def test_copies_of_attachments_and_earlier_responses_are_shown_as_scale_names_them(
    service: Service, get: Get
) -> None:
    downloads = [{"url": "https://s3.example/a.png", "expires": "2026-01-01"}]
    prior = [{"annotations": [{"label": "car"}]}]
    receive_callback(
        service, callback({"annotations": []}, attachmentS3Downloads=downloads, prior_responses=prior)
    )
    task = get(f"/tasks/{ROOT}")
    assert (task["attachmentS3Downloads"], task["prior_responses"]) == (downloads, prior)


def test_a_task_without_a_response_has_no_number_and_no_annotations(deliver: Deliver, get: Get) -> None:
    deliver("annotation/recalled", task_id="t")
    task = get("/tasks/t")
    assert task["status"] == "pending"
    assert (task["response_number"], task["response_count"], task["annotation_count"]) == (None, 0, 0)
    assert get("/tasks/t/annotations") == {"data": [], "next_cursor": None}
    assert get("/tasks/t/responses") == {"data": [], "next_cursor": None}


def test_an_error_is_shown_whatever_the_status_says(deliver: Deliver, get: Get) -> None:
    deliver("annotation/error_though_completed", task_id="t")
    assert get("/tasks/t")["error"]["error"]


def test_the_files_of_the_current_response_are_listed_with_the_task(deliver: Deliver, get: Get) -> None:
    deliver("videoplaybackannotation/two_files", task_id="t")
    files = get("/tasks/t")["artifacts"]
    assert [file["state"] for file in files] == ["pending", "pending"]
    assert {"id", "role", "url", "state", "size_bytes", "sha256", "reason"} <= files[0].keys()
    assert [file["id"] for file in get("/artifacts", task_id="t", state="pending")["data"]] == [
        file["id"] for file in reversed(files)
    ]


def test_tasks_are_listed_newest_first_and_page_by_page(deliver: Deliver, get: Get) -> None:
    for number in range(5):
        deliver("annotation/accepted", task_id=f"t{number}")
    first = get("/tasks", limit=2)
    second = get("/tasks", limit=2, cursor=first["next_cursor"])
    last = get("/tasks", limit=2, cursor=second["next_cursor"])
    assert ids(first) + ids(second) + ids(last) == ["t4", "t3", "t2", "t1", "t0"]
    assert last["next_cursor"] is None
    assert get("/tasks", limit=5)["next_cursor"] is None


def test_each_filter_finds_its_tasks(deliver: Deliver, get: Get) -> None:
    deliver("annotation/accepted", task_id="plain", updated_at="2021-01-01T00:00:00Z")
    deliver(
        "annotation/accepted",
        task_id="other",
        type="imageannotation",
        status="canceled",
        project="p",
        batch="b",
        unique_id="u",
        tags=["night", "rain"],
        is_test=True,
        updated_at="2022-01-01T00:00:00Z",
    )
    for query in (
        {"type": "imageannotation"},
        {"status": "canceled"},
        {"project": "p"},
        {"batch": "b"},
        {"unique_id": "u"},
        {"environment": "test"},
        {"tag": "rain"},
        {"updated_since": "2021-06-01T00:00:00Z"},
        {"type": "imageannotation", "project": "p", "status": ""},
    ):
        assert ids(get("/tasks", **query)) == ["other"], query
    assert ids(get("/tasks", updated_before="2021-06-01T00:00:00Z")) == ["plain"]
    assert ids(get("/tasks", tag="rai")) == []
    assert ids(get("/tasks", type="")) == ["other", "plain"]


def test_a_filter_of_more_than_64_characters_is_compared_to_its_end(deliver: Deliver, get: Get) -> None:
    long = "p" * 70
    deliver("annotation/accepted", task_id="a", project=long + "a")
    deliver("annotation/accepted", task_id="b", project=long + "b")
    assert ids(get("/tasks", project=long + "a")) == ["a"]


def test_the_filters_by_text_use_their_index(service: Service, deliver: Deliver, get: Get) -> None:
    deliver("annotation/accepted")
    said: list[tuple[str, Any]] = []
    event.listen(
        service.engine, "before_cursor_execute", lambda *it: said.append((it[2], it[3])), named=False
    )
    columns = ("type", "project", "batch", "unique_id")
    for name, value in itertools.product(columns, ("value", "value" * 20)):
        said.clear()
        get("/tasks", **{name: value})
        statement, parameters = next(it for it in said if "substr" in it[0])
        with service.engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            else:
                connection.execute(text("SET LOCAL enable_seqscan = off"))
                plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            words = "\n".join(str(row) for row in plan)
        assert re.search(rf"ix_tasks_{name}\b", words), words


def test_a_task_that_nobody_knows_is_a_problem(client: Any) -> None:
    answer = client.get("/api/v1/tasks/nobody")
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"
    assert answer.json["title"] == "Not Found"
    assert "nobody" in answer.json["detail"]
