"""Scale's own calls, what no callback brought, and files behind responses, from a terminal and against the sandbox."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from models import Annotation, Artifact, AuditEntry, Job, Task
from pipeline.service import Service
from sandbox.pytest_plugin import ScaleSandbox, running_sandbox
from scale.client import ScaleError
from tests.app.commands.conftest import Run, commands_of
from tests.fake_server import FakeServer, reply
from workers.runner import run_due_jobs

PAYLOADS = Path(__file__).parents[2] / "payloads"
REQUEST = {
    "attachment": "https://example.com/a.png",
    "objects_to_annotate": ["car"],
    "with_labels": True,
    "instruction": "Draw boxes",
}


@pytest.fixture(scope="module")
def sandbox_process() -> Iterator[ScaleSandbox]:
    with running_sandbox(Path(__file__).parents[3], None, "--memory") as one:
        yield one


@pytest.fixture
def scale(sandbox_process: ScaleSandbox) -> ScaleSandbox:
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def app(make_app: Callable[..., Flask], scale: ScaleSandbox) -> Flask:
    return make_app(
        SCALE_API_URL=scale.api_url,
        SCALE_API_KEY=scale.live_key,
        SCALE_TEST_API_KEY=scale.test_key,
        ARTIFACT_HOSTS=scale.url.removeprefix("http://"),
    )


@pytest.fixture
def call(weighbridge: Run) -> Callable[..., Any]:
    """`call("retrieve", task_id)`: what `weighbridge scale retrieve …` prints, as JSON."""
    return lambda *args: json.loads(weighbridge("scale", *args).stdout)


Call = Callable[..., Any]


def a_task(scale: ScaleSandbox, *, pending: bool = False, **fields: Any) -> str:
    scale.set_speed("manual" if pending else "instant")
    made = scale.create("annotation", callback_url=scale.callback_url, **REQUEST, **fields)
    task_id: str = made["task_id"]
    if not pending:
        scale.wait_for(lambda: scale.task(task_id)["status"] == "completed")
    return task_id


# weighbridge scale


def test_a_task_is_retrieved_listed_and_canceled(call: Call, weighbridge: Run, scale: ScaleSandbox) -> None:
    task_id = a_task(scale, pending=True, unique_id="u1")
    assert call("retrieve", task_id)["params"]["attachment"] == REQUEST["attachment"]
    assert [one["task_id"] for one in call("list", "--status", "pending", "--unique-id", "u1", "--json")] == [
        task_id
    ]
    assert task_id in weighbridge("scale", "list", "--type", "annotation").stdout
    assert json.loads(weighbridge("scale", "list", "--project", "none", "--json").stdout) == []
    assert call("cancel", task_id, "--clear-unique-id")["status"] == "canceled"
    assert "unique_id" not in call("retrieve", task_id)


def test_a_list_ends_at_its_limit(call: Call, scale: ScaleSandbox) -> None:
    made = [a_task(scale, pending=True) for _ in range(3)]
    found = call("list", "--limit", "2", "--json")
    assert [one["task_id"] for one in found] == made[:0:-1]


def test_unique_id_tags_and_metadata_are_changed(call: Call, scale: ScaleSandbox, tmp_path: Path) -> None:
    task_id = a_task(scale)
    assert call("unique-id", "set", task_id, "night/1")["unique_id"] == "night/1"
    assert "unique_id" not in call("unique-id", "clear", task_id)
    assert call("tags", "set", task_id, "a", "b")["tags"] == ["a", "b"]
    assert call("tags", "add", task_id, "c")["tags"] == ["a", "b", "c"]
    assert call("tags", "remove", task_id, "a", "c")["tags"] == ["b"]
    assert call("metadata", task_id, '{"k": 1}')["metadata"] == {"k": 1}
    (tmp_path / "m.json").write_text('{"from": "a file"}')
    assert call("metadata", task_id, f"@{tmp_path / 'm.json'}")["metadata"] == {"from": "a file"}


def test_a_task_is_audited_and_its_callback_sent_again(
    call: Call, weighbridge: Run, scale: ScaleSandbox
) -> None:
    task_id = a_task(scale)
    weighbridge("scale", "audit", task_id, "reject", "--comments", "too loose")
    assert call("retrieve", task_id)["customer_review_status"] == "rejected"
    before = len(scale.wait_for(lambda: len(came := scale.received()) == 2 and came))
    weighbridge("scale", "resend", task_id)
    scale.wait_for(lambda: len(scale.received()) == before + 1)


def test_projects_have_versions_of_their_parameters(call: Call, weighbridge: Run) -> None:
    made = call("projects", "create", "street scenes", "annotation", "--params", '{"instruction": "one"}')
    assert made["name"] == "street scenes"
    patched = call("projects", "set-params", "street scenes", '{"min_width": 30}', "--patch")
    version = patched["param_history"][-1]["version"]
    assert call("projects", "get", "street scenes", "--version", str(version))["instruction"] == "one"
    replaced = call("projects", "set-params", "street scenes", '{"min_width": 30}')
    assert "instruction" not in replaced["param_history"][-1]
    assert call("projects", "get", "street scenes")["param_history"] == replaced["param_history"]
    assert "street scenes" in weighbridge("scale", "projects", "list").stdout
    missing = weighbridge("scale", "projects", "get", "street scenes", "--version", "99")
    assert missing.exit_code == 1
    assert "no parameter version 99" in missing.output


def test_a_batch_is_made_asked_after_and_finalized(call: Call, weighbridge: Run, scale: ScaleSandbox) -> None:
    call("projects", "create", "streets", "annotation")
    assert call("batches", "create", "streets", "night 1", "--metadata", '{"k": 1}')["metadata"] == {"k": 1}
    a_task(scale, project="streets", batch="night 1", pending=True)
    assert call("batches", "get", "night 1")["project"] == "streets"
    assert call("batches", "status", "night 1")["pending"] == 1
    assert [one["name"] for one in call("batches", "list", "--project", "streets", "--json")] == ["night 1"]
    assert call("batches", "finalize", "night 1")["name"] == "night 1"
    assert "night 1" in weighbridge("scale", "batches", "list").stdout


def test_the_environment_chooses_the_key(call: Call, weighbridge: Run, scale: ScaleSandbox) -> None:
    task_id = scale.create("annotation", key=scale.test_key, callback_url=scale.callback_url, **REQUEST)[
        "task_id"
    ]
    assert call("retrieve", task_id, "--environment", "test")["status"] == "completed"
    unknown = weighbridge("scale", "retrieve", task_id)
    assert (unknown.exit_code, unknown.output) == (
        1,
        "Error: Scale API error: Task with that ID not found.\n",
    )


def test_without_a_key_it_is_said_which_setting_is_missing(make_app: Callable[..., Flask]) -> None:
    weighbridge = commands_of(make_app())
    assert "Set SCALE_API_KEY or SCALE_TEST_API_KEY" in weighbridge("scale", "list").output
    assert "set SCALE_API_KEY for live tasks" in weighbridge("reconcile").output


def test_only_the_test_key_is_enough(make_app: Callable[..., Flask], scale: ScaleSandbox) -> None:
    weighbridge = commands_of(make_app(SCALE_API_URL=scale.api_url, SCALE_TEST_API_KEY=scale.test_key))
    assert weighbridge("scale", "list").exit_code == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [("{", "Not JSON"), ("[1]", "Not a JSON object"), ("@/nowhere.json", "Cannot read /nowhere.json")],
)
def test_what_is_not_a_json_object_is_rejected_before_scale_is_called(
    given: str, message: str, weighbridge: Run
) -> None:
    refused = weighbridge("scale", "metadata", "1", given)
    assert refused.exit_code == 2
    assert message in refused.output


def test_who_changed_something_at_scale_is_kept(
    weighbridge: Run, scale: ScaleSandbox, service: Service
) -> None:
    task_id = a_task(scale, pending=True)
    weighbridge("scale", "retrieve", task_id)
    weighbridge("scale", "cancel", task_id)
    with service.reader.begin() as connection:
        entry = connection.execute(select(AuditEntry.action, AuditEntry.subject, AuditEntry.actor)).one()
    assert tuple(entry)[:2] == ("scale.cancel", task_id)
    assert entry.actor.startswith("cli")


# weighbridge reconcile, weighbridge import


def tasks(service: Service) -> dict[str, str]:
    with service.reader.begin() as connection:
        return {
            row.task_id: row.environment for row in connection.execute(select(Task.task_id, Task.environment))
        }


def test_reconcile_reports_what_it_saw_and_takes_what_differs(
    weighbridge: Run, scale: ScaleSandbox, service: Service
) -> None:
    live = a_task(scale)
    test = scale.create("annotation", key=scale.test_key, callback_url=scale.callback_url, **REQUEST)[
        "task_id"
    ]
    nothing = {"seen": 1, "missing": 1, "stale": 0, "repaired": 0}
    assert json.loads(weighbridge("reconcile", "--dry-run", "--json").stdout) == [
        {"environment": "live", **nothing},
        {"environment": "test", **nothing},
    ]
    assert tasks(service) == {}
    said = weighbridge("reconcile").stdout
    assert f"{live}: missing, processed" in said
    assert tasks(service) == {live: "live", test: "test"}
    scale.audit(live, "accepted")
    assert (
        f"{live}: stale, processed"
        in weighbridge("reconcile", "--environment", "live", "--since", "1h").stdout
    )
    again = json.loads(weighbridge("reconcile", "--json").stdout)
    assert again == [
        {"environment": name, "seen": 1, "missing": 0, "stale": 0, "repaired": 0} for name in ("live", "test")
    ]


def test_reconcile_waits_as_long_as_scale_asks_for(make_app: Callable[..., Flask]) -> None:
    slow = [reply({"error": "slow down"}, status=429, Retry_After="1")] * 2
    done = reply({"docs": [], "has_more": False, "total": 0})
    with FakeServer(lambda _: slow.pop() if slow else done) as peer:
        result = commands_of(make_app(SCALE_API_URL=peer.url, SCALE_API_KEY="k"))("reconcile", "--json")
    assert result.exit_code == 0
    assert result.stderr == "Scale API error: slow down. Retrying in 1 s.\n" * 2
    assert json.loads(result.stdout)[0]["seen"] == 0


def test_reconcile_gives_up_a_scale_that_stays_away_and_goes_on_later(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    docs = [[{"task_id": f"t{n}", "type": "x", "status": "completed"}] for n in range(2)]
    pages = [reply({"docs": docs[0], "has_more": True, "next_token": "t", "total": 2})]
    with FakeServer(lambda _: pages.pop(0) if pages else reply(b"", status=503)) as peer:
        weighbridge = commands_of(make_app(SCALE_API_URL=peer.url, SCALE_API_KEY="k"))
        failed = weighbridge("reconcile")
        assert failed.exit_code == 1
        assert "Scale API error: Scale answered 503" in failed.output
        pages.append(reply({"docs": docs[1], "has_more": False, "total": 2}))
        later = weighbridge("reconcile")
    assert "Continuing the live run that was interrupted after 1 tasks." in later.stdout
    assert "t1: missing, processed" in later.stdout
    assert peer.requests[-1].query["next_token"] == ["t"]


def test_files_are_imported_and_reported(weighbridge: Run, service: Service, tmp_path: Path) -> None:
    body = json.loads((PAYLOADS / "polygonannotation" / "polygons.json").read_text())
    export, email = tmp_path / "export.json", tmp_path / "email.json"
    export.write_text(json.dumps([body["task"]]))
    email.write_text(json.dumps(body))
    first = json.loads(weighbridge("import", str(export), "--json").stdout)
    assert [(one["objects"], one["taken"]) for one in first] == [(1, 1)]
    assert list(tasks(service)) == [body["task_id"]]
    again = json.loads(weighbridge("import", str(export), str(email), "--json").stdout)
    assert [(one["objects"], one["taken"]) for one in again] == [(1, 0), (1, 0)]
    assert "taken" in weighbridge("import", str(email)).stdout


def test_a_file_that_is_no_json_says_where_it_stops(
    weighbridge: Run, service: Service, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('[{"task_id": "t1", "type": "x", "status": "completed"}, {')
    result = weighbridge("import", str(broken))
    assert result.exit_code == 1
    assert "broken.json: after 1 objects it is not JSON" in result.output
    assert list(tasks(service)) == ["t1"]


# weighbridge artifacts


def test_files_are_listed_and_one_that_failed_is_brought_in_again(
    weighbridge: Run, scale: ScaleSandbox, service: Service
) -> None:
    made = scale.create(
        "segmentannotation",
        key=scale.test_key,
        callback_url=scale.callback_url,
        attachment="https://example.com/a.png",
        labels=["car", "road"],
        instruction="Colour it",
    )
    weighbridge("reconcile", "--environment", "test")
    with service.engine.begin() as connection:
        connection.execute(update(Artifact).values(state="failed", reason="it was not there"))
        connection.execute(Job.__table__.delete())
    listed = json.loads(
        weighbridge("artifacts", "list", "--state", "failed", "--task", made["task_id"], "--json").stdout
    )
    assert {one["reason"] for one in listed} == {"it was not there"}
    assert "it was not there" in weighbridge("artifacts", "list").stdout
    one = weighbridge("artifacts", "retry", listed[0]["id"])
    assert one.exit_code == 0
    rest = weighbridge("artifacts", "retry", "--failed", "--task", made["task_id"])
    assert rest.exit_code == 0
    run_due_jobs(service)
    assert json.loads(weighbridge("artifacts", "list", "--state", "failed", "--json").stdout) == []
    with service.reader.begin() as connection:
        assert all("rle" in geometry for geometry in connection.scalars(select(Annotation.geometry)))


def test_a_file_that_is_not_known_is_an_error(weighbridge: Run) -> None:
    unknown = "00000000-0000-0000-0000-000000000001"
    refused = weighbridge("artifacts", "retry", unknown)
    assert (refused.exit_code, unknown in refused.output) == (1, True)
    assert weighbridge("artifacts", "retry").exit_code == 2


def test_what_scale_refuses_is_a_sentence_and_no_traceback(weighbridge: Run, scale: ScaleSandbox) -> None:
    task_id = a_task(scale)
    refused = weighbridge("scale", "cancel", task_id)
    assert (
        refused.output == "Error: Scale API error: The task was already completed and cannot be canceled.\n"
    )
    assert not isinstance(refused.exception, ScaleError)
