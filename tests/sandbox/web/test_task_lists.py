"""Tests for `GET /v1/tasks` over 260 random tasks: every filter, both paginations, compared with a list."""

import base64
import io
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import requests
import scaleapi
from scaleapi.exceptions import ScaleInvalidRequest
from scaleapi.tasks import TaskReviewStatus, TaskStatus, TaskType

from sandbox.examples import EXAMPLES, example
from sandbox.pytest_plugin import ScaleSandbox
from tests.sandbox.conftest import arbitrary_name, sdk

COUNT = 260
TYPES = ("annotation", "categorization", "transcription", "chat", "lineannotation")


class Filled(NamedTuple):
    """A sandbox with tasks, and what the test knows of them: `tasks` are oldest first."""

    client: scaleapi.ScaleClient
    tasks: list[dict[str, Any]]
    projects: list[str]
    batches: list[str]
    tags: list[str]
    unique_ids: list[str]


@pytest.fixture(scope="module")
def filled(sandbox_process: ScaleSandbox) -> Iterator[Filled]:
    """260 tasks of every state; another account has tasks of its own."""
    sandbox, chance = sandbox_process, random.Random(7)
    sandbox.reset()
    sandbox.set_speed("manual")
    client = sdk(sandbox, sandbox.live_key)
    projects = [arbitrary_name(chance) for _ in range(4)]
    tags = [arbitrary_name(chance) for _ in range(6)]
    for name in projects:
        client.create_project(name, TaskType.Annotation)
        sdk(sandbox, sandbox.test_key).create_project(name, TaskType.Annotation)
    batches = [(arbitrary_name(chance), chance.choice(projects)) for _ in range(8)]
    for name, project in batches:
        client.create_batch(project, name)
    tasks = []
    for number in range(COUNT):
        batch, project = chance.choice([*batches, *[(None, name) for name in projects], (None, None)])
        kept: dict[str, Any] = {
            "type": chance.choice(TYPES),
            "batch": batch,
            "project": project,
            "unique_id": arbitrary_name(chance) if chance.random() < 0.5 else None,
            "tags": chance.sample(tags, chance.randint(1, 5)) if chance.random() < 0.6 else None,
            "metadata": {"number": number, "word": arbitrary_name(chance)},
            "status": "pending",
            "review": None,
        }
        sent = {name: kept[name] for name in ("unique_id", "tags", "metadata") if kept[name] is not None}
        where = {"batch": batch} if batch else {"project": project} if project else {}
        task = client.create_task(TaskType(kept["type"]), **example(kept["type"]), **sent, **where)
        kept["task_id"] = task.id
        tasks.append(kept)
    for task in tasks:
        fate = chance.random()
        if fate < 0.5:
            sandbox.complete(task["task_id"])
            task["status"] = "completed"
            if chance.random() < 0.6:
                task["review"] = chance.choice(["accepted", "rejected", "fixed", "commented"])
                sandbox.audit(task["task_id"], task["review"])
        elif fate < 0.65:
            client.cancel_task(task["task_id"])
            task["status"] = "canceled"
        elif fate < 0.75:
            sandbox.fail(task["task_id"], chance.choice(["attachments", "message"]))
            task["status"] = "error"
    for task in tasks:
        now = client.get_task(task["task_id"]).as_dict()
        task |= {name: _moment(now.get(name)) for name in ("created_at", "updated_at", "completed_at")}
    for _ in range(30):
        sandbox.create("chat", key=sandbox.test_key, project=projects[0], tags=tags[:2])
    yield Filled(
        client,
        tasks,
        projects,
        [name for name, _ in batches],
        tags,
        [task["unique_id"] for task in tasks if task["unique_id"]],
    )
    sandbox.reset()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


Wanted = Callable[[dict[str, Any]], bool]


def expected(filled: Filled, wanted: Wanted = lambda _: True) -> list[str]:
    """Ids of the tasks that a list should have, newest first."""
    return [task["task_id"] for task in reversed(filled.tasks) if wanted(task)]


def all_pages(client: scaleapi.ScaleClient, limit: int = 100, **filters: Any) -> tuple[list[str], int]:
    """Ids from all pages by next_token, and the total, which every page must repeat."""
    found: list[str] = []
    totals, token = set(), None
    while True:
        page = client.tasks(limit=limit, next_token=token, **filters)
        assert page.limit == limit
        assert len(page.docs) <= limit
        found += [task.id for task in page.docs]
        totals.add(page.total)
        if not page.has_more:
            assert page.next_token is None
            (total,) = totals
            return found, total
        assert len(page.docs) == limit
        token = page.next_token


def same(filled: Filled, wanted: Wanted, **filters: Any) -> None:
    """The list under these filters has exactly the wanted tasks, in order, and says how many there are."""
    should = expected(filled, wanted)
    assert all_pages(filled.client, **filters) == (should, len(should))


def test_without_filters_the_list_is_all_tasks_of_the_key_newest_first(filled: Filled):
    same(filled, lambda task: True)


@pytest.mark.parametrize("limit", [1, 7, 26, 99, 100])
def test_pages_of_any_size_are_the_same_list(filled: Filled, limit: int):
    should = expected(filled)[: 40 if limit == 1 else COUNT]
    found: list[str] = []
    token = None
    while len(found) < len(should):
        page = filled.client.tasks(limit=limit, next_token=token)
        found += [task.id for task in page.docs]
        token = page.next_token
    assert found == should


def test_an_offset_in_addition_to_a_token_has_no_effect(filled: Filled):
    params: dict[str, Any] = {"limit": 40, "offset": 10}
    found: list[str] = []
    while True:
        page = filled.client.api.get_request("tasks", params=params)
        found += [task["task_id"] for task in page["docs"]]
        if not page["has_more"]:
            break
        params["next_token"] = page["next_token"]
    assert found == expected(filled)[10:]


@pytest.mark.parametrize("limit", [33, 65, 100])
def test_an_offset_selects_a_page(filled: Filled, limit: int):
    should = expected(filled)
    found: list[str] = []
    for offset in range(0, COUNT + limit, limit):
        page = filled.client.api.get_request("tasks", params={"limit": limit, "offset": offset})
        assert (page["offset"], page["limit"], page["total"]) == (offset, limit, COUNT)
        assert page["has_more"] == (offset + limit < COUNT)
        found += [task["task_id"] for task in page["docs"]]
    assert found == should


def test_an_empty_list_has_all_its_fields(filled: Filled):
    page = filled.client.api.get_request("tasks", params={"batch": "there is none"})
    assert page == {"docs": [], "total": 0, "limit": 100, "offset": 0, "has_more": False}


def test_each_project_batch_type_and_status_is_a_filter(filled: Filled):
    for name in filled.projects:
        same(filled, lambda task, name=name: task["project"] == name, project=name)
    for name in filled.batches:
        same(filled, lambda task, name=name: task["batch"] == name, batch=name)
    for name in TYPES:
        same(filled, lambda task, name=name: task["type"] == name, type=name)
    for status in ("pending", "completed", "canceled", "error"):
        same(filled, lambda task, status=status: task["status"] == status, status=status)


def test_review_states_are_a_filter_one_or_several(filled: Filled):
    states = [status.value for status in TaskReviewStatus if status is not TaskReviewStatus.Pending]
    for state in states:
        same(filled, lambda task, state=state: task["review"] == state, customer_review_status=state)
    same(
        filled, lambda task: task["review"] in ("accepted", "fixed"), customer_review_status="accepted,fixed"
    )
    same(filled, lambda task: task["review"] is not None, customer_review_status=",".join(states))


def test_unique_ids_are_a_filter_one_or_several(filled: Filled):
    for unique_id in filled.unique_ids[:10]:
        same(filled, lambda task, unique_id=unique_id: task["unique_id"] == unique_id, unique_id=unique_id)
    some = filled.unique_ids[::5]
    same(filled, lambda task: task["unique_id"] in some, unique_id=some)
    same(filled, lambda task: task["unique_id"] == some[0], unique_id=[some[0], "there is none"])


def test_tags_are_a_filter_and_any_of_several_matches(filled: Filled):
    for tag in filled.tags:
        same(filled, lambda task, tag=tag: tag in (task["tags"] or ()), tags=tag)
    two = filled.tags[1:3]
    same(filled, lambda task: bool({*two} & {*(task["tags"] or ())}), tags=two)


@pytest.mark.parametrize(
    ("field", "after", "before"),
    [
        ("created_at", "start_time", "end_time"),
        ("updated_at", "updated_after", "updated_before"),
        ("completed_at", "completed_after", "completed_before"),
    ],
)
def test_each_date_is_a_filter_to_the_millisecond(filled: Filled, field: str, after: str, before: str):
    chance = random.Random(field)
    moments = sorted(task[field] for task in filled.tasks if task[field] is not None)
    for _ in range(6):
        low, high = sorted(chance.sample(moments, 2))
        # What lies exactly on a bound is in; half a millisecond further it is out.
        for shift in (timedelta(0), timedelta(microseconds=500)):
            start, end = low + shift, high + shift
            for form in (_plain, _with_space, _with_zone):
                same(
                    filled,
                    lambda task, start=start, end=end: (
                        task[field] is not None and start <= task[field] <= end
                    ),
                    **{after: form(start), before: form(end)},
                )
    same(filled, lambda task: task[field] is not None and task[field] >= low, **{after: _plain(low)})
    same(filled, lambda task: task[field] is not None and task[field] <= low, **{before: _plain(low)})


def _plain(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def _with_space(moment: datetime) -> str:
    return str(moment.replace(tzinfo=None))


def _with_zone(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def test_a_bare_date_is_its_first_moment(filled: Filled):
    today = filled.tasks[0]["created_at"].date()
    tomorrow = today + timedelta(days=2)
    same(filled, lambda task: True, start_time=str(today), end_time=str(tomorrow))
    same(filled, lambda task: False, start_time=str(tomorrow))


def test_all_filters_must_match(filled: Filled):
    chance = random.Random(11)
    for _ in range(25):
        task = chance.choice(filled.tasks)
        filters = {
            name: task[name] for name in ("type", "status", "project", "batch") if task[name] is not None
        }
        filters = {
            name: filters[name] for name in chance.sample(sorted(filters), chance.randint(1, len(filters)))
        }
        since = chance.choice(filled.tasks)["created_at"]
        same(
            filled,
            lambda task, filters=filters, since=since: (
                all(task[name] == value for name, value in filters.items()) and task["created_at"] >= since
            ),
            start_time=_plain(since),
            **filters,
        )


def test_the_clients_own_generator_and_counter_agree_with_the_list(filled: Filled):
    for project in filled.projects:
        for status in TaskStatus:
            wanted = expected(
                filled,
                lambda task, project=project, status=status: (
                    (task["project"], task["status"]) == (project, status.value)
                ),
            )
            found = filled.client.get_tasks(project_name=project, status=status, limit=9)
            assert [task.id for task in found] == wanted
            assert filled.client.get_tasks_count(project_name=project, status=status) == len(wanted)
    reviews = [TaskReviewStatus.Rejected, TaskReviewStatus.Commented]
    found = filled.client.get_tasks(
        batch_name=filled.batches[0], review_status=reviews, task_type=TaskType.Annotation
    )
    assert [task.id for task in found] == expected(
        filled,
        lambda task: (
            task["batch"] == filled.batches[0]
            and task["type"] == "annotation"
            and task["review"] in ("rejected", "commented")
        ),
    )


def test_listed_tasks_are_those_that_are_read_one_by_one(filled: Filled):
    for task in filled.client.tasks(limit=20).docs:
        assert task.as_dict() == filled.client.get_task(task.id).as_dict()
        kept = next(kept for kept in filled.tasks if kept["task_id"] == task.id)
        for name in ("type", "status", "project", "batch", "unique_id", "tags", "metadata"):
            assert task.as_dict().get(name) == kept[name]


def test_a_limited_response_has_four_fields(filled: Filled):
    found = list(filled.client.get_tasks(project_name=filled.projects[0], limited_response=True))
    assert [task.id for task in found] == expected(filled, lambda task: task["project"] == filled.projects[0])
    for task in found:
        kept = next(kept for kept in filled.tasks if kept["task_id"] == task.id)
        assert task.as_dict() == {name: kept[name] for name in ("task_id", "status", "metadata", "project")}


@pytest.mark.parametrize(
    "filters",
    [
        {"limit": 0},
        {"limit": 101},
        {"limit": -1},
        {"limit": "many"},
        {"start_time": "yesterday"},
        {"end_time": "2024-13-01"},
        {"completed_after": "5 o'clock"},
        {"updated_before": "24-1-1"},
        {"limit": "--5"},
        {"next_token": "bm90aGluZw=="},
        {"next_token": "NQ=="},
        {"next_token": base64.b64encode(b"before -1").decode()},
        {"next_token": base64.b64encode(b"before 1_0").decode()},
        {"next_token": base64.b64encode(b"before 99999999999999999999").decode()},
    ],
)
def test_an_invalid_filter_is_400(filled: Filled, filters: dict[str, Any]):
    with pytest.raises(ScaleInvalidRequest):
        filled.client.tasks(**filters)


def test_unknown_and_empty_parameters_are_ignored(filled: Filled):
    params = {
        "limit": 5,
        "bogus": 1,
        "project": "",
        "status": "",
        "start_time": "",
        "include_attachment_url": True,
    }
    page = filled.client.api.get_request("tasks", params=params)
    assert [task["task_id"] for task in page["docs"]] == expected(filled)[:5]
    assert page["total"] == COUNT


def test_a_token_continues_after_its_page_although_tasks_were_added(
    sandbox: ScaleSandbox, live: scaleapi.ScaleClient
):
    made = [sandbox.create("chat")["task_id"] for _ in range(12)]
    found: list[str] = []
    token = None
    while True:
        page = live.tasks(limit=5, next_token=token)
        found += [task.id for task in page.docs]
        token = page.next_token
        if token is None:
            break
        sandbox.create("chat")
    assert found == made[::-1]


def test_an_uploaded_attachment_is_shown_with_where_to_read_it(
    sandbox: ScaleSandbox, live: scaleapi.ScaleClient
):
    file = live.upload_file(io.BytesIO(b"some bytes"), project_name="p")
    task = live.create_task(
        TaskType.Annotation, **{**EXAMPLES["annotation"], "attachment": file.attachment_url}
    )
    (listed,) = live.tasks(include_attachment_url=True).docs
    (shown,) = listed.as_dict()["attachmentS3Downloads"]
    assert requests.get(shown["s3URL"], timeout=5).content == b"some bytes"
    assert "attachmentS3Downloads" not in live.get_task(task.id).as_dict()
