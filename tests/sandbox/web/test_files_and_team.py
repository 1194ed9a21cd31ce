"""Tests for files, the team, quality tasks and Studio."""

import io
import uuid
from collections.abc import Callable

import pytest
import requests
import scaleapi
from PIL import Image
from scaleapi.exceptions import ScaleInvalidRequest, ScaleResourceNotFound
from scaleapi.tasks import TaskType
from scaleapi.teams import TeammateRole

from sandbox.examples import example
from sandbox.pytest_plugin import ScaleSandbox

Ask = Callable[..., requests.Response]


def test_an_uploaded_file_is_stored_and_accepted_as_an_attachment(live: scaleapi.ScaleClient, http: Ask):
    file = live.upload_file(io.BytesIO(b"pixels"), project_name="p 1").as_dict()
    assert str(uuid.UUID(file["id"])) == file["id"]
    assert file["attachment_url"].startswith("scaledata://")
    assert file["attachment_url"].endswith(file["id"])
    assert (file["size"], file["project_names"]) == (6, ["p 1"])
    assert file["created_at"] == file["updated_at"]
    assert http("GET", f"/v1/files/{file['id']}/content").content == b"pixels"
    task = live.create_task(
        TaskType.Annotation, **{**example("annotation"), "attachment": file["attachment_url"]}
    )
    assert task.params["attachment"] == file["attachment_url"]


def test_an_imported_file_is_not_downloaded(live: scaleapi.ScaleClient):
    file = live.import_file("https://nowhere.invalid/x.png", project_name="p").as_dict()
    assert file["attachment_url"].startswith("scaledata://")
    assert file.keys() >= {"created_at", "updated_at", "mime_type", "size", "project_names"}


def test_a_file_that_is_missing_is_400_or_404(http: Ask):
    assert (
        http("POST", "/v1/files/upload", files={"other": b"x"}, data={"project_name": "p"}).status_code == 400
    )
    assert http("POST", "/v1/files/import", json={"project_name": "p"}).status_code == 400
    for address in ("somewhere", "http://a.example/x\r\nSet-Cookie: a=b"):
        assert http("POST", "/v1/files/import", json={"file_url": address}).status_code == 400
    assert http("GET", f"/v1/files/{uuid.uuid4()}/content").status_code == 404
    assert http("GET", f"/files/{uuid.uuid4()}").status_code == 404


def test_an_uploaded_page_cannot_run_scripts_in_the_sandboxs_origin(sandbox: ScaleSandbox, http: Ask):
    upload = {"file": ("x.html", b"<script>alert(1)</script>", "text/html")}
    file = http("POST", "/v1/files/upload", files=upload).json()
    answer = requests.get(f"{sandbox.url}/files/{file['id']}", timeout=5)
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_shapes_stay_within_an_attachment_that_can_be_read(live: scaleapi.ScaleClient, sandbox: ScaleSandbox):
    picture = io.BytesIO()
    Image.new("RGB", (64, 48)).save(picture, "PNG")
    picture.seek(0)
    file = live.upload_file(picture, project_name="p")
    task = live.create_task(
        TaskType.Annotation, **{**example("annotation"), "attachment": file.attachment_url}
    )
    boxes = sandbox.complete(task.id)["response"]["annotations"]
    assert boxes
    for box in boxes:
        assert 0 <= box["left"] <= box["left"] + box["width"] <= 64
        assert 0 <= box["top"] <= box["top"] + box["height"] <= 48


def test_a_team_has_an_owner_and_grows_by_invitations(live: scaleapi.ScaleClient):
    (owner,) = live.list_teammates()
    assert (owner.role, "@" in owner.email) == ("admin", True)
    invited = live.invite_teammates(["a@example.com", "b@example.com"], TeammateRole.Member)
    assert [(mate.email, mate.role) for mate in invited[1:]] == [
        ("a@example.com", "member"),
        ("b@example.com", "member"),
    ]
    changed = live.update_teammates_role(["b@example.com"], TeammateRole.Manager)
    assert {mate.email: mate.role for mate in changed}["b@example.com"] == "manager"
    assert [mate.as_dict() for mate in live.list_teammates()] == [mate.as_dict() for mate in changed]
    live.invite_teammates(["a@example.com"], TeammateRole.Member)
    assert len(live.list_teammates()) == 3


def test_the_first_invitation_keeps_the_owner(live: scaleapi.ScaleClient):
    invited = live.invite_teammates(["a@example.com"], TeammateRole.Member)
    assert [mate.role for mate in invited] == ["admin", "member"]


def test_removing_assignments_adds_no_member(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat, studio=True)
    live.remove_studio_assignments(["stranger@example.com"], ["p"])
    assert len(live.list_teammates()) == 1


def test_a_role_is_one_of_four_and_only_for_members(live: scaleapi.ScaleClient, http: Ask):
    assert (
        http("POST", "/v1/teams/invite", json={"emails": ["a@b.c"], "team_role": "boss"}).status_code == 400
    )
    assert http("POST", "/v1/teams/invite", json={"emails": "a@b.c", "team_role": "admin"}).status_code == 400
    with pytest.raises(ScaleResourceNotFound):
        live.update_teammates_role(["nobody@example.com"], TeammateRole.Admin)


@pytest.mark.parametrize("kind", ["evaluation", "training"])
def test_a_quality_task_needs_its_expected_response(live: scaleapi.ScaleClient, kind: str):
    create = live.create_evaluation_task if kind == "evaluation" else live.create_training_task
    expected = {"annotations": [{"label": "car", "left": 1, "top": 2, "width": 3, "height": 4}]}
    task = create(
        TaskType.ImageAnnotation,
        **example("imageannotation"),
        expected_response=expected,
        initial_response={"a": 1},
    )
    assert task.id
    assert task.expected_response == expected
    assert task.as_dict()["initial_response"] == {"a": 1}
    assert task.as_dict()["params"]["geometries"]
    with pytest.raises(ScaleInvalidRequest):
        create(TaskType.ImageAnnotation, **example("imageannotation"))
    with pytest.raises(ScaleInvalidRequest):
        create(TaskType.ImageAnnotation, expected_response=expected)
    assert live.tasks().total == 0


def test_studio_assignments_are_added_and_removed(live: scaleapi.ScaleClient):
    for name in ("p", "q/1"):
        live.create_project(name, TaskType.Chat, studio=True)
    live.invite_teammates(["a@example.com", "b@example.com"], TeammateRole.Labeler)

    def assigned(answer: dict) -> dict[str, list[str]]:
        return {email: of.assigned_projects for email, of in answer.items() if email.endswith("example.com")}

    assert assigned(live.list_studio_assignments()) == {"a@example.com": [], "b@example.com": []}
    live.add_studio_assignments(["a@example.com", "b@example.com"], ["p"])
    added = live.add_studio_assignments(["a@example.com"], ["p", "q/1"])
    assert assigned(added) == {"a@example.com": ["p", "q/1"], "b@example.com": ["p"]}
    removed = live.remove_studio_assignments(["a@example.com"], ["p"])
    assert assigned(removed) == {"a@example.com": ["q/1"], "b@example.com": ["p"]}
    assert assigned(live.list_studio_assignments()) == assigned(removed)
    with pytest.raises(ScaleResourceNotFound):
        live.add_studio_assignments(["a@example.com"], ["none"])


def test_groups_of_labelers_are_made_and_changed(live: scaleapi.ScaleClient):
    live.create_project("p", TaskType.Chat, studio=True)
    made = live.create_project_group("p", ["a@example.com"], "night shift").as_dict()
    assert (made["name"], made["numWorkers"], made["isSingleton"]) == ("night shift", 1, False)
    changed = live.update_project_group(
        "p", "night shift", ["b@example.com", "c@example.com"], ["a@example.com"]
    )
    assert [worker["email"] for worker in changed.as_dict()["workers"]] == ["b@example.com", "c@example.com"]
    live.create_project_group("p", [], "day shift")
    assert [group.name for group in live.list_project_groups("p")] == ["night shift", "day shift"]
    for ask in (
        lambda: live.list_project_groups("none"),
        lambda: live.update_project_group("p", "none", [], []),
    ):
        with pytest.raises(ScaleResourceNotFound):
            ask()


def test_studio_batches_are_listed_by_priority_then_age(live: scaleapi.ScaleClient, sandbox: ScaleSandbox):
    live.create_project("p", TaskType.Chat, studio=True)
    live.create_project("ordinary", TaskType.Chat)
    live.create_project_group("p", ["a@example.com"], "g")
    for name in ("b1", "b2", "b3", "b4"):
        live.create_batch("p", name, calibration_batch=name == "b2")
    live.create_batch("ordinary", "elsewhere")

    def names(batches: list) -> list[str]:
        return [batch.name for batch in batches]

    assert names(live.list_studio_batches()) == ["b1", "b2", "b3", "b4"]
    assert names(live.set_studio_batches_priorities(["b4", "b2"])) == ["b4", "b2", "b1", "b3"]
    assert [batch.studio_priority for batch in live.list_studio_batches()] == [1, 2, None, None]
    assert names(live.reset_studio_batches_priorities()) == ["b1", "b2", "b3", "b4"]
    assigned = live.assign_studio_batches("b1", ["g"])
    assert assigned.groups == ["g"]
    assert assigned.project_name == "p"
    task = live.create_task(TaskType.Chat, batch="b1")
    live.create_task(TaskType.Chat, batch="b1")
    sandbox.complete(task.id)
    first = live.list_studio_batches()[0]
    assert (first.total, first.completed, first.batch_type, first.groups) == (2, 1, "Production", ["g"])
    assert live.list_studio_batches()[1].batch_type == "Calibration"
    for ask in (
        lambda: live.assign_studio_batches("none", []),
        lambda: live.assign_studio_batches("b1", ["none"]),
        lambda: live.set_studio_batches_priorities(["none"]),
    ):
        with pytest.raises(ScaleResourceNotFound):
            ask()
