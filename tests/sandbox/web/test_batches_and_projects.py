"""Tests for projects and batches in both versions of the API, compared with a simple model."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests
import scaleapi
from scaleapi.api_client.v2.models.batch_operation_request import BatchOperationRequest
from scaleapi.api_client.v2.models.create_batch_request import CreateBatchRequest
from scaleapi.api_client.v2.models.expandable_enum_batch import ExpandableEnumBatch
from scaleapi.api_client.v2.models.set_batch_metadata_request import SetBatchMetadataRequest
from scaleapi.batches import BatchStatus
from scaleapi.exceptions import ScaleDuplicateResource, ScaleInvalidRequest, ScaleResourceNotFound
from scaleapi.tasks import TaskType

from sandbox.examples import example
from sandbox.pytest_plugin import ScaleSandbox
from tests.sandbox.callback_receiver import CallbackReceiver
from tests.sandbox.conftest import arbitrary_name, sdk

Ask = Callable[..., requests.Response]
ODD_NAMES = [
    "a b/c",
    "ends/status",
    "ends/finalize",
    "%2F",
    "100 %",
    "straße 漢字 🚗",
    "what?#&+",
    "  x  ",
]


def chat(client: scaleapi.ScaleClient, **changes: Any) -> scaleapi.Task:
    return client.create_task(TaskType.Chat, **changes)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_with_any_characters_find_their_project_and_batch(live: scaleapi.ScaleClient, name: str):
    live.create_project("plain", TaskType.Chat)
    live.create_project(name, TaskType.Chat)
    live.create_batch(name, name, metadata={"its": name})
    assert live.get_project(name).name == name
    assert live.update_project(name, instruction="i").name == name
    assert live.get_batch(name).as_dict()["metadata"] == {"its": name}
    assert live.batch_status(name) == {"status": "in_progress"}
    assert live.set_batch_metadata(name, {"now": 1}).metadata == {"now": 1}
    assert live.finalize_batch(name).name == name
    chat(live, batch=name)
    assert [task.project for task in live.get_tasks(batch_name=name)] == [name]
    assert live.create_project_group(name, ["a@example.com"], name).name == name
    assert live.update_project_group(name, name, ["b@example.com"], []).numWorkers == 2


def test_a_name_with_a_slash_is_not_confused_with_its_first_part(live: scaleapi.ScaleClient):
    live.create_project("a", TaskType.Chat)
    live.create_batch("a", "b/status")
    with pytest.raises(ScaleResourceNotFound):
        live.batch_status("b")
    assert live.get_batch("b/status").name == "b/status"


def test_a_project_has_a_history_of_params(live: scaleapi.ScaleClient):
    made = live.create_project("p", TaskType.Annotation, {"instruction": "one", "min_width": 5}).as_dict()
    assert (made["name"], made["type"]) == ("p", "annotation")
    (first,) = made["param_history"]
    assert (first["instruction"], first["min_width"], first["version"]) == ("one", 5, 0)
    assert first["created_at"] == made["created_at"]
    patched = live.update_project("p", patch=True, min_width=6)
    assert (patched.version, patched.instruction, patched.params["min_width"]) == (1, "one", 6)
    replaced = live.update_project("p", patch=False, min_height=7)
    assert (replaced.version, replaced.instruction) == (2, None)
    assert replaced.params.keys() == {"min_height", "version", "created_at"}
    assert [entry["version"] for entry in live.get_project("p").as_dict()["param_history"]] == [0, 1, 2]
    assert live.get_project("p").as_dict()["param_history"][:2] == patched.as_dict()["param_history"]


def test_without_patch_the_params_are_replaced(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Annotation, {"instruction": "one"})
    assert live.update_project("p", min_width=1).instruction is None


def test_a_taken_project_name_is_409_and_an_unknown_one_404(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat)
    with pytest.raises(ScaleDuplicateResource):
        live.create_project("p", TaskType.Annotation)
    for ask in (lambda: live.get_project("q"), lambda: live.update_project("q", instruction="i")):
        with pytest.raises(ScaleResourceNotFound):
            ask()


@pytest.mark.parametrize(
    "body", [{}, {"name": "p"}, {"type": "chat"}, {"name": "p", "type": "none"}, {"name": 5, "type": "chat"}]
)
def test_a_project_needs_a_name_and_a_type_that_scale_knows(
    http: Ask, sandbox: ScaleSandbox, body: dict[str, Any]
):
    assert http("POST", "/v1/projects", json=body).status_code == 400


def test_projects_are_listed_as_a_bare_array_of_the_keys_own(
    live: scaleapi.ScaleClient, sandbox: ScaleSandbox
):
    names = ["p1", "p2", "p3"]
    for name in names:
        live.create_project(name, TaskType.Chat)
    sdk(sandbox, sandbox.test_key).create_project("elsewhere", TaskType.Chat)
    assert sorted(project.name for project in live.get_projects()) == names
    assert sorted(project.name for project in live.v2.get_projects().projects) == names


def test_params_of_the_project_are_defaults_for_its_tasks(live: scaleapi.ScaleClient):
    request = example("annotation")
    objects = request.pop("objects_to_annotate")
    instruction = request.pop("instruction")
    live.create_project(
        "p", TaskType.Annotation, {"objects_to_annotate": objects, "min_width": 1, "instruction": "Theirs."}
    )
    inherits = live.create_task(TaskType.Annotation, **request, project="p").as_dict()
    assert (inherits["params"]["objects_to_annotate"], inherits["instruction"]) == (objects, "Theirs.")
    assert inherits["params"]["min_width"] == 30
    both = live.create_task(TaskType.Annotation, **request, project="p", instruction=instruction).as_dict()
    assert both["instruction"] == f"{instruction}\nTheirs."
    with pytest.raises(ScaleInvalidRequest, match="objects_to_annotate"):
        live.create_task(TaskType.Annotation, **request)


def test_a_null_parameter_is_not_inherited(live: scaleapi.ScaleClient, http: Ask):
    params = {"instruction": None, "unique_id": None, "categories": ["a"]}
    made = http("POST", "/v1/projects", json={"name": "p", "type": "categorization", "params": params}).json()
    assert made["param_history"][0].keys() == {"categories", "version", "created_at"}
    task = live.create_task(TaskType.Categorization, project="p", attachment="x", instruction="Own.")
    assert task.as_dict()["instruction"] == "Own."


def test_a_task_may_inherit_from_an_older_version_or_from_none(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat, {"instruction": "old", "extra": 1})
    live.update_project("p", instruction="new")
    assert chat(live, project="p").instruction == "new"
    old = chat(live, project="p", project_param_version=0).as_dict()
    assert (old["instruction"], old["params"]["extra"]) == ("old", 1)
    assert "instruction" not in chat(live, project="p", project_param_version=-1).as_dict()
    with pytest.raises(ScaleInvalidRequest):
        chat(live, project="p", project_param_version=7)


def test_the_params_of_a_batchs_project_count_too(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat, {"instruction": "theirs"})
    live.create_batch("p", "b")
    assert chat(live, batch="b").instruction == "theirs"


def test_only_text_collections_and_chats_have_a_template(live: scaleapi.ScaleClient):
    live.create_project("texts", TaskType.TextCollection, {"instruction": "i"})
    live.create_project("boxes", TaskType.Annotation)
    template = live.get_project("texts").get_template()
    assert template.version == 0
    assert template.get_template_variables() == {"instruction": "i"}
    with pytest.raises(ScaleInvalidRequest):
        live.get_project_template("boxes")
    with pytest.raises(ScaleResourceNotFound):
        live.get_project_template("none")


def test_a_batch_of_an_ordinary_project_is_in_progress_at_once(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat)
    batch = live.create_batch("p", "b", callback="team@example.com", metadata={"k": {"v": 1}})
    assert batch.status == "in_progress"
    assert (batch.name, batch.project, batch.metadata) == ("b", "p", {"k": {"v": 1}})
    assert batch.as_dict()["callback"] == "team@example.com"
    assert live.get_batch("b").as_dict() == batch.as_dict()
    assert live.create_batch("p", "bare").metadata == {}
    assert live.finalize_batch("b").status == "in_progress"
    assert live.finalize_batch("b").status == "in_progress"


@pytest.mark.parametrize("kind", ["rapid", "studio"])
def test_a_batch_of_a_self_serve_project_is_staged_until_it_is_finalized(
    live: scaleapi.ScaleClient, sandbox: ScaleSandbox, kind: str
):
    sandbox.set_speed("instant")
    live.create_project("p", TaskType.Chat, **{kind: True})
    batch = live.create_batch("p", "b")
    assert batch.status == BatchStatus.Staging.value
    task = chat(live, batch="b")
    assert live.get_task(task.id).status == "pending"
    batch.finalize()
    assert batch.status == BatchStatus.InProgress.value
    sandbox.wait_for(lambda: live.get_task(task.id).status == "completed")
    sandbox.wait_for(lambda: live.get_batch("b").status == BatchStatus.Completed.value)


def test_a_taken_batch_name_is_409_and_an_unknown_project_or_batch_404(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat)
    live.create_batch("p", "b")
    with pytest.raises(ScaleDuplicateResource):
        live.create_batch("p", "b")
    for ask in (
        lambda: live.create_batch("q", "c"),
        lambda: live.get_batch("c"),
        lambda: live.batch_status("c"),
        lambda: live.finalize_batch("c"),
        lambda: live.set_batch_metadata("c", {"a": 1}),
    ):
        with pytest.raises(ScaleResourceNotFound):
            ask()


def test_the_status_of_a_batch_counts_its_tasks_by_state(live: scaleapi.ScaleClient, sandbox: ScaleSandbox):
    live.create_project("p", TaskType.Chat)
    batch = live.create_batch("p", "b")
    tasks = [chat(live, batch="b") for _ in range(9)]
    for task in tasks[:4]:
        sandbox.complete(task.id)
    for task in tasks[4:6]:
        live.cancel_task(task.id)
    sandbox.fail(tasks[6].id)
    chat(live, project="p")
    assert live.batch_status("b") == {
        "status": "in_progress",
        "completed": 4,
        "canceled": 2,
        "error": 1,
        "pending": 2,
    }
    batch.get_status()
    assert (batch.tasks_completed, batch.tasks_error, batch.tasks_pending) == (4, 1, 2)


def test_a_finalized_batch_completes_with_its_last_task_and_calls_back_once(
    live: scaleapi.ScaleClient, sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    live.create_project("p", TaskType.Chat)
    live.create_batch("p", "b", callback=receiver.url)
    tasks = [chat(live, batch="b", callback_url="nobody@example.com") for _ in range(3)]
    sandbox.complete(tasks[0].id)
    live.finalize_batch("b")
    sandbox.fail(tasks[1].id)
    assert live.get_batch("b").status == "in_progress"
    live.cancel_task(tasks[2].id)
    (arrived,) = receiver.wait_for(1)
    assert arrived.json["batch"] == "b"
    assert "task_id" not in arrived.json
    assert arrived.headers["scale-callback-auth"] == sandbox.live_callback_key
    batch = live.get_batch("b").as_dict()
    assert batch["status"] == "completed"
    assert batch["completed_at"]
    assert len(receiver.arrived) == 1


def test_a_batch_without_tasks_stays_in_progress(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat)
    live.create_batch("p", "b")
    live.finalize_batch("b")
    assert live.get_batch("b").status == "in_progress"


def test_batches_page_by_offset_and_filter_by_everything(live: scaleapi.ScaleClient, chance: random.Random):
    projects = [arbitrary_name(chance) for _ in range(3)]
    for number, name in enumerate(projects):
        live.create_project(name, TaskType.Chat, studio=number == 0)
    model = []
    for _ in range(230):
        name, project = arbitrary_name(chance), chance.choice(projects)
        batch = live.create_batch(project, name, metadata={"name": name}).as_dict()
        model.append({**batch, "moment": datetime.fromisoformat(batch["created_at"])})
    newest_first = model[::-1]

    def names(**filters: Any) -> list[str]:
        return [batch.name for batch in live.get_batches(**filters)]

    assert names() == [batch["name"] for batch in newest_first]
    assert names(exclude_archived=True) == names()
    for project in projects:
        should = [batch["name"] for batch in newest_first if batch["project"] == project]
        assert names(project_name=project) == should
        assert live.batches(project=project, limit=1).total == len(should)
    for status in BatchStatus:
        should = [batch["name"] for batch in newest_first if batch["status"] == status.value]
        assert names(batch_status=status) == should
    low, high = newest_first[170]["moment"], newest_first[40]["moment"]
    form = lambda moment: moment.replace(tzinfo=None).isoformat()  # noqa: E731
    assert names(created_after=form(low), created_before=form(high)) == [
        batch["name"] for batch in newest_first if low <= batch["moment"] <= high
    ]
    assert names(created_after=form(model[-1]["moment"] + timedelta(microseconds=500))) == []
    page = live.batches(limit=33, offset=66)
    assert [batch.name for batch in page.docs] == [batch["name"] for batch in newest_first[66:99]]
    assert (page.limit, page.offset, page.total, page.has_more) == (33, 66, 230, True)
    last = live.batches(limit=100, offset=200)
    assert (len(last.docs), last.has_more) == (30, False)
    raw = live.api.get_request("batches", params={"limit": 1})
    assert (raw["totalDocs"], raw["total"]) == (230, 230)

    # The same ones through version 2, by token.
    found, token = [], None
    while True:
        page2 = live.v2.get_batches(limit=47, next_token=token)
        found += [(batch.name, batch.status.value, batch.metadata) for batch in page2.batches]
        token = page2.next_token
        if token is None:
            break
    assert found == [(batch["name"], batch["status"], batch["metadata"]) for batch in newest_first]


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 101}, {"offset": -1}, {"offset": "--1"}, {"start_time": "soon"}]
)
def test_an_invalid_query_for_batches_is_400(live: scaleapi.ScaleClient, params: dict[str, Any]):
    with pytest.raises(ScaleInvalidRequest):
        live.batches(**params)


def test_a_batch_can_be_given_priority(live: scaleapi.ScaleClient, http: Ask):
    live.create_project("p", TaskType.Chat)
    live.create_batch("p", "b")
    assert http("POST", "/v1/batches/b/prioritize", json={"priority": 20}).json()["priority"] == 20
    assert http("POST", "/v1/batches/b/prioritize", json={}).status_code == 400
    assert http("POST", "/v1/batches/b/prioritize", json={"priority": 2**63}).status_code == 400


def test_a_flag_may_be_sent_as_text(http: Ask):
    project = {"name": "p", "type": "chat", "studio": "false", "rapid": "true"}
    made = http("POST", "/v1/projects", data=project).json()
    assert (made["studio"], made["rapid"]) == (False, True)
    batch = {"name": "b", "project": "p", "calibration_batch": "True", "self_label_batch": "False"}
    made = http("POST", "/v1/batches", data=batch).json()
    assert (made["calibration_batch"], made["self_label_batch"]) == (True, False)


@pytest.mark.parametrize("name", [{}, ["p"], 5, True])
def test_a_name_that_is_not_text_is_400_everywhere(http: Ask, name: Any):
    request = {"attachment": "x", "categories": ["a"], "instruction": "i", "expected_response": 1}
    for path, field, body in (
        ("/v1/task/categorization", "project", request),
        ("/v1/task/categorization", "batch", request),
        ("/v1/evaluation_tasks/categorization", "project", request),
        ("/v1/batches", "project", {"name": "b"}),
        ("/v1/projects", "datasetId", {"name": "p", "type": "chat"}),
        ("/v2/batch", "project_name", {"name": "b"}),
        ("/v2/batch/pause", "batch_id", {}),
    ):
        answer = http("POST", path, json={**body, field: name})
        assert (answer.status_code, answer.json()["status_code"]) == (400, 400), (path, field)


def test_version_2_finds_by_name_and_by_id_and_expands(live: scaleapi.ScaleClient):
    project = live.create_project("p", TaskType.Chat).as_dict()
    batch = live.create_batch("p", "b", callback="team@example.com", metadata={"a": 1}).as_dict()
    for found in (live.v2.get_project(project_name="p"), live.v2.get_project(project_id=project["id"])):
        assert (found.id, found.name, found.types) == (project["id"], "p", ["chat"])
    for shown in (live.v2.get_batch(batch_name="b"), live.v2.get_batch(batch_id=batch["id"])):
        assert (shown.id, shown.name, shown.metadata) == (batch["id"], "b", {"a": 1})
        assert (shown.project.actual_instance, shown.callback) == (project["id"], "team@example.com")
    whole = live.v2.get_batch(batch_id=batch["id"], expand=[ExpandableEnumBatch.PROJECT])
    assert whole.project.actual_instance.name == "p"


def test_version_2_lists_the_batches_of_one_project(live: scaleapi.ScaleClient):
    ids = {name: live.create_project(name, TaskType.Chat).as_dict()["id"] for name in ("p", "q")}
    for number in range(6):
        live.create_batch("pq"[number % 2], f"b{number}")
    for filters in ({"project_name": "p"}, {"project_id": ids["p"]}):
        assert [batch.name for batch in live.v2.get_batches(**filters).batches] == ["b4", "b2", "b0"]
    first = live.v2.get_batches(project_name="q", limit=2)
    assert [batch.name for batch in first.batches] == ["b5", "b3"]
    rest = live.v2.get_batches(project_name="q", limit=2, next_token=first.next_token)
    assert ([batch.name for batch in rest.batches], rest.next_token) == (["b1"], None)


def test_version_2_creates_batches_by_name_or_id_also_staged_ones(live: scaleapi.ScaleClient):
    project = live.create_project("p", TaskType.Chat).as_dict()
    plain = live.v2.create_batch(CreateBatchRequest(name="b", project_name="p"))
    staged = live.v2.create_batch(
        CreateBatchRequest(name="s", project_id=project["id"], staging_batch=True, metadata={"m": 1})
    )
    assert (plain.status.value, plain.metadata) == ("in_progress", {})
    assert (staged.status.value, staged.metadata) == ("staging", {"m": 1})
    assert live.v2.finalize_batch(BatchOperationRequest(batch_name="s")).status.value == "in_progress"
    assert live.get_batch("s").status == "in_progress"


def test_metadata_is_merged_deep_or_replaced(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat)
    live.create_batch("p", "b", metadata={"a": {"b": {"c": 1, "d": [1, 2]}, "e": 1}, "f": 1, "g": {"h": 1}})

    def set_metadata(metadata: dict[str, Any], merge: bool) -> dict[str, Any]:
        request = SetBatchMetadataRequest(batch_name="b", metadata=metadata, merge=merge)
        answered = live.v2.set_batch_metadata(set_batch_metadata_request=request).metadata
        assert live.get_batch("b").metadata == answered
        return answered

    merged = set_metadata({"a": {"b": {"d": [3], "x": None}, "y": 2}, "g": 5, "z": {"new": 1}}, True)
    assert merged == {
        "a": {"b": {"c": 1, "d": [3], "x": None}, "e": 1, "y": 2},
        "f": 1,
        "g": 5,
        "z": {"new": 1},
    }
    assert set_metadata({"only": 1}, False) == {"only": 1}


def test_pausing_a_batch_stops_its_tasks_and_resuming_continues_them(
    live: scaleapi.ScaleClient, sandbox: ScaleSandbox
):
    live.create_project("p", TaskType.Chat)
    live.create_batch("p", "b")
    request = BatchOperationRequest(batch_name="b")
    assert live.v2.pause_batch(request).batch.status.value == "paused"
    assert live.v2.pause_batch(request).batch.status.value == "paused"
    sandbox.set_speed("instant")
    task = chat(live, batch="b")
    assert live.get_task(task.id).status == "pending"
    assert live.v2.resume_batch(request).batch.status.value == "in_progress"
    sandbox.wait_for(lambda: live.get_task(task.id).status == "completed")


def test_a_cancelled_batch_cancels_its_tasks_and_stays_so(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat)
    live.create_batch("p", "b")
    task, request = chat(live, batch="b"), BatchOperationRequest(batch_name="b")
    answer = live.v2.cancel_batch(request)
    assert answer.batch.status.value == "cancelled"
    assert isinstance(answer.message, str)
    assert live.v2.cancel_batch(request).batch.status.value == "cancelled"
    assert live.get_task(task.id).status == "canceled"
    for action in (live.v2.resume_batch, live.v2.pause_batch, live.v2.finalize_batch):
        with pytest.raises(Exception, match="400"):
            action(request)
    with pytest.raises(ScaleInvalidRequest):
        chat(live, batch="b")


def test_version_2_refuses_in_the_same_form(http: Ask):
    for method, path, body, status in (
        ("GET", "/v2/project", None, 400),
        ("GET", "/v2/project?project_name=none", None, 404),
        ("GET", "/v2/batch?batch_id=none", None, 404),
        ("GET", "/v2/batches?project_name=none", None, 404),
        ("GET", "/v2/batches?limit=0", None, 400),
        ("POST", "/v2/batch", {"name": "b"}, 400),
        ("POST", "/v2/batch/cancel", {}, 400),
        ("POST", "/v2/batch/metadata", {"batch_name": "none", "metadata": {}}, 404),
        ("POST", "/v2/batch/metadata", {"batch_name": "none"}, 400),
        ("GET", "/v2/nothing", None, 404),
    ):
        answer = http(method, path, json=body)
        assert (answer.status_code, answer.json()["status_code"]) == (status, status)
        assert answer.json()["error"]
