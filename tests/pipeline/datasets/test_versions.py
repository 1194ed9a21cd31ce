"""Dataset versions over a real database: members, moments, classes, differences, verification and holds."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text, update

from models import Annotation, Artifact, Delivery
from pipeline.datasets import diff, holds, versions
from pipeline.datasets.filters import Unusable, parse_filters
from pipeline.datasets.records import read_tasks
from pipeline.datasets.splits import parse_shares
from pipeline.datasets.verify import verify
from pipeline.datasets.versions import Request, UnknownDataset, Version
from pipeline.receive.receive import receive
from pipeline.service import Service

Post = Callable[..., None]


def box(uuid: str, label: str = "car", left: float = 1, **more: Any) -> dict[str, Any]:
    return {"uuid": uuid, "label": label, "left": left, "top": 2, "width": 3, "height": 4, **more}


@pytest.fixture
def post(service: Service) -> Post:
    """`post("t1", [box("a")])` receives a completed task; keywords change its task object."""

    def one(
        task_id: str,
        boxes: list[dict[str, Any]] | None,
        *,
        at: str = "2026-01-02T00:00:00.000Z",
        attachment: str | None = None,
        environment: str = "live",
        **task: Any,
    ) -> None:
        body = {
            "task": {
                "task_id": task_id,
                "type": "annotation",
                "status": "completed",
                "metadata": {},
                "params": {
                    "attachment_type": "image",
                    "attachment": attachment or f"https://x/{task_id}.jpg",
                },
                "created_at": "2026-01-01T00:00:00.000Z",
                "completed_at": at,
                "updated_at": at,
                **task,
            },
            "task_id": task_id,
        }
        if boxes is not None:
            body["response"] = {"annotations": boxes}
        receive(service, json.dumps(body).encode(), environment)

    return one


def create(service: Service, name: str = "street", **filters: Any) -> Version:
    return versions.create(service, name, Request(filters=parse_filters(filters) if filters else None), "ana")


def members(service: Service, version: Version) -> list[str]:
    return [task.task_id for task in read_tasks(service.reader, version.id)]


def test_the_default_is_every_completed_live_task_with_a_result(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", None)
    post("t3", [box("b")], status="pending")
    post("t4", [box("c")], environment="test")
    version = create(service)
    assert members(service, version) == ["t1"]
    assert (version.full_name, version.tasks) == ("street@1", 1)
    assert version.counts["annotations"] == {"total": 1, "by_type": {"box": 1}, "by_label": {"car": 1}}
    assert version.counts["splits"] == {"train": 1}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"project": "p1"}, ["t1", "t3"]),
        ({"batch": ["b1", "b2"]}, ["t1", "t2"]),
        ({"tag": "night"}, ["t2"]),
        ({"review": "accepted,fixed"}, ["t1"]),
        ({"label": "bus"}, ["t2"]),
        ({"metadata": {"scene": "12"}}, ["t3"]),
        ({"since": "2026-01-03"}, ["t2", "t3"]),
        ({"until": "2026-01-03"}, ["t1"]),
        ({"type": "polygonannotation"}, []),
        ({"environment": "test"}, ["t4"]),
        ({"project": "p1", "metadata": {"scene": "12"}}, ["t3"]),
    ],
)
def test_filters_choose_tasks(
    service: Service, post: Post, filters: dict[str, Any], expected: list[str]
) -> None:
    post("t1", [box("a")], project="p1", batch="b1", customer_review_status="accepted")
    post("t2", [box("b", "bus")], batch="b2", tags=["night"], at="2026-01-03T00:00:00.000Z")
    post("t3", [box("c")], project="p1", metadata={"scene": 12}, at="2026-01-04T00:00:00.000Z")
    post("t4", [box("d")], environment="test")
    assert members(service, create(service, **filters)) == expected


def test_a_version_keeps_its_members_and_the_next_repeats_its_filters(service: Service, post: Post) -> None:
    post("t1", [box("a")], project="p1")
    first = create(service, project="p1")
    post("t2", [box("b", "bus")], project="p1")
    post("t3", [box("c")], project="p2")
    second = create(service)
    assert members(service, first) == ["t1"]
    assert members(service, second) == ["t1", "t2"]
    assert second.filters == first.filters
    assert (first.classes, second.classes) == (["car"], ["car", "bus"])


def test_a_later_answer_does_not_change_a_version(service: Service, post: Post) -> None:
    post("t1", [box("a", left=1)], project="p1")
    version = create(service)
    post("t1", [box("a", left=9)], project="p2", at="2026-01-05T00:00:00.000Z")
    (task,) = read_tasks(service.reader, version.id)
    assert task.annotations[0].geometry["left"] == 1
    assert (task.project, task.response_number) == ("p1", 1)


def test_equal_content_has_an_equal_digest_whatever_its_name(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    first, second, other = create(service), create(service), create(service, "other")
    assert first.digest == second.digest == other.digest
    post("t2", [box("b")])
    assert create(service).digest != first.digest


def test_as_of_gives_what_was_known_by_receipt(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", [box("b")], project="p1")
    first = create(service)
    moment = datetime.now(UTC)
    post("t2", [box("b", left=7)], project="p2", at="2026-01-09T00:00:00.000Z")
    post("t1", None, status="pending", at="2026-01-09T00:00:00.000Z")
    post("t0", [box("c")], at="2026-01-01T12:00:00.000Z")  # older by Scale's clock, received later
    again = versions.create(service, "again", Request(as_of=moment), "ana")
    assert again.digest == first.digest
    assert members(service, again) == ["t1", "t2"]
    assert [task.project for task in read_tasks(service.reader, again.id)] == [None, "p1"]
    by_project = Request(filters=parse_filters({"project": "p1"}), as_of=moment)
    assert members(service, versions.create(service, "past", by_project, "ana")) == ["t2"]
    assert members(service, create(service, "now")) == ["t0", "t2"]


def test_as_of_does_not_know_a_file_that_came_later(service: Service, post: Post) -> None:
    post("t1", None, type="videoannotation", response={"annotations": {"url": "https://x/result.json"}})
    post("t2", [box("a")])
    moment = datetime.now(UTC)
    at_the_moment = versions.create(service, "street", Request(as_of=moment), "ana")
    with service.engine.begin() as connection:
        connection.execute(update(Artifact).values(state="stored", stored_at=datetime.now(UTC)))
    again = versions.create(service, "again", Request(as_of=moment), "ana")
    assert members(service, at_the_moment) == members(service, again) == ["t2"]
    assert again.digest == at_the_moment.digest
    assert again.counts["incomplete"] == at_the_moment.counts["incomplete"]
    assert members(service, create(service, "now")) == ["t1", "t2"]
    later = Request(as_of=datetime.now(UTC))
    assert members(service, versions.create(service, "later", later, "ana")) == ["t1", "t2"]


def test_a_moment_in_the_future_is_refused(service: Service) -> None:
    with pytest.raises(Unusable, match="future"):
        versions.create(service, "street", Request(as_of=datetime(2100, 1, 1, tzinfo=UTC)), "ana")


def test_tasks_of_one_image_are_in_one_split(service: Service, post: Post) -> None:
    for n in range(40):
        post(f"t{n:02}", [box(f"u{n}")], attachment=f"https://x/{n % 20}.jpg")
    version = versions.create(service, "street", Request(shares=parse_shares("train=0.5,val=0.5")), "ana")
    splits = {task.task_id: task.split for task in read_tasks(service.reader, version.id)}
    assert all(splits[f"t{n:02}"] == splits[f"t{n + 20:02}"] for n in range(20))
    assert sorted(set(splits.values())) == ["train", "val"]
    assert verify(service, "street")["problems"] == []
    assert create(service).counts["splits"] == version.counts["splits"]


def test_differences(service: Service, post: Post) -> None:
    post("t1", [box("a"), box("b"), box("c", attributes={"n": 1})])
    post("t2", [box("d", "bus")])
    create(service)
    post(
        "t1",
        [box("a", left=9), box("c", attributes={"n": 2}), box("e")],
        at="2026-01-05T00:00:00.000Z",
    )
    post("t3", [box("f", "van")])
    post("t2", None, status="pending", at="2026-01-05T00:00:00.000Z")
    create(service)
    found = diff.compare(service.reader, "street@1", "street@2")
    assert found["tasks"] == {"added": ["t3"], "removed": ["t2"], "changed": ["t1"]}
    assert found["labels"] == {"added": ["van"], "removed": ["bus"]}
    uuids = {how: [shape["uuid"] for shape in shapes] for how, shapes in found["boxes"].items()}
    assert uuids == {"added": ["e", "f"], "removed": ["b", "d"], "changed": ["a", "c"]}
    same = diff.compare(service.reader, "street@2", "street@2")
    assert not any(items for changes in same.values() for items in changes.values())


def test_verify_finds_what_was_changed(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", [box("b")])
    create(service)
    assert verify(service, "street")["problems"] == []
    with service.engine.begin() as connection:
        connection.execute(update(Delivery).where(Delivery.task_id == "t1").values(body=b'{"task_id": "t1"}'))
        connection.execute(update(Annotation).where(Annotation.uuid == "b").values(label="bus"))
    problems = verify(service, "street")["problems"]
    assert [problem.split(":")[0] for problem in problems] == ["Task t1", "Task t2"]


def test_a_forced_purge_is_recorded_in_the_version(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", [box("b")])
    create(service)
    with service.engine.begin() as connection:
        assert holds.versions_with(connection, ["t1", "unknown"]) == {"street@1": ["t1"]}
        holds.record_damage(connection, ["t1"])
        connection.execute(text("DELETE FROM responses WHERE task_id = 't1'"))
    with service.reader.begin() as connection:
        assert "t1" in (versions.find(connection, "street@1").damage or "")
    assert len(verify(service, "street")["problems"]) >= 2


def test_a_number_is_never_used_again(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    create(service)
    create(service)
    with service.engine.begin() as connection:
        versions.delete_version(connection, "street@2", "ana")
    assert create(service).full_name == "street@3"
    with service.reader.begin() as connection, pytest.raises(UnknownDataset):
        versions.find(connection, "street@2")
    with service.engine.begin() as connection, pytest.raises(Unusable):
        versions.delete_version(connection, "street", "ana")


def test_other_splits_and_classes_for_one_export(service: Service, post: Post) -> None:
    for n in range(20):
        post(f"t{n:02}", [box(f"u{n}")])
    base = create(service)
    request = Request(shares=parse_shares("train=0.5,val=0.5"), classes=["bus", "car"])
    made = versions.derive(service, base, request)
    assert made.full_name == "street@1"
    assert made.classes == ["bus", "car"]
    assert sum(made.counts["splits"].values()) == 20
    assert members(service, made) == members(service, base)
    versions.discard(service, made.id)
    with service.reader.begin() as connection:
        assert [version.full_name for version in versions.versions(connection)] == ["street@1"]
