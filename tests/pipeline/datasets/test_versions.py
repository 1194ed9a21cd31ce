"""Dataset versions over a real database: members, moments, classes, differences, verification and holds."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from models import Artifact
from pipeline.datasets import versions
from pipeline.datasets.filters import Unusable
from pipeline.datasets.records import read_tasks
from pipeline.datasets.splits import parse_shares
from pipeline.datasets.verify import verify
from pipeline.datasets.versions import Request, UnknownDataset
from pipeline.service import Service
from tests.factories.datasets import Post, box, create, members


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


def test_tasks_of_one_image_are_in_one_split(service: Service, post: Post) -> None:
    for n in range(40):
        post(f"t{n:02}", [box(f"u{n}")], attachment=f"https://x/{n % 20}.jpg")
    version = versions.create(service, "street", Request(shares=parse_shares("train=0.5,val=0.5")), "ana")
    splits = {task.task_id: task.split for task in read_tasks(service.reader, version.id)}
    assert all(splits[f"t{n:02}"] == splits[f"t{n + 20:02}"] for n in range(20))
    assert sorted(set(splits.values())) == ["train", "val"]
    assert verify(service, "street")["problems"] == []
    assert create(service).counts["splits"] == version.counts["splits"]


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
