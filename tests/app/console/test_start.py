"""Starting a workflow from the console: the form of an input, its preview, and what is stored after it was confirmed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from models import FollowUp, Task
from pipeline.operations.queries.audit import list_audit_entries
from pipeline.service import Service
from tests.app.console.browsing import Console, window
from tests.app.console.conftest import Person
from tests.app.console.gallery import WORKFLOWS
from tests.app.console.test_browser import AXE, OVERFLOW, VIOLATIONS
from tests.assertions import only, table
from workers.runner import run_due_jobs

ADDRESS = "/workflows/from-images/start"
FORM = {
    "column.image": "https://files.example/1.jpg",
    "column.objects": '["car"]',
    "json.objects": "on",
    "environment": "live",
}
SHOWN = re.compile(r'name="shown" value="([^"]+)"')


@pytest.fixture(autouse=True)
def workflow(workflows_dir: Path) -> None:
    (workflows_dir / "from-images.yaml").write_text(WORKFLOWS["from-images.yaml"])


def shown(page: str) -> str:
    (found,) = SHOWN.findall(page)
    return str(found)


def test_an_input_is_previewed_and_starts_the_workflow_once(admin: Person, service: Service) -> None:
    assert f'href="/console{ADDRESS}"' in admin.get("/workflows/from-images").text
    preview = admin.post(ADDRESS, **FORM).text
    assert "2 created" in preview
    assert table(service, Task) == []
    started = admin.post(ADDRESS, **FORM, shown=shown(preview))
    stored = only(service, Task)
    assert (stored["type"], stored["environment"]) == ("input", "live")
    assert stored["params"] == {"image": "https://files.example/1.jpg", "objects": ["car"]}
    assert started.location == f"/console/tasks/{stored['task_id']}"
    page = admin.client.get(started.location).text
    assert "Started from-images with this input" in page
    assert not {"Resend", "not yet"} & set(re.findall("Resend|not yet", page))  # Scale does not have it
    run_due_jobs(service)
    assert len(table(service, FollowUp)) == 2
    again = admin.post(ADDRESS, **FORM).text
    assert "2 already exists" in again
    admin.post(ADDRESS, **FORM, shown=shown(again))
    assert len(table(service, Task)) == 1
    with service.reader.begin() as connection:
        audited = [(row["action"], row["details"]) for row in list_audit_entries(connection, {}).rows]
    assert audited == [("workflow.start", {"already_exists": 1}), ("workflow.start", {"created": 1})]


def test_what_was_not_shown_is_not_started(admin: Person, service: Service) -> None:
    confirmed = shown(admin.post(ADDRESS, **FORM).text)
    for change in ({"column.image": "https://files.example/2.jpg"}, {"environment": "test"}):
        answer = admin.post(ADDRESS, **{**FORM, **change}, shown=confirmed).text
        assert "Nothing was started yet" in answer
        assert shown(answer) != confirmed
    assert table(service, Task) == []
    admin.post(ADDRESS, **FORM, shown=confirmed)
    run_due_jobs(service)
    assert "Nothing was started yet" in admin.post(ADDRESS, **FORM, shown=confirmed).text


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"column.image": " "}, "column.image", "The workflow needs this column"),
        ({"column.objects": "[car"}, "column.objects", "This is not JSON"),
        ({"column.objects": "null"}, "column.objects", "The workflow needs this column"),
        ({"others": "[1]"}, "others", "This is not a JSON object"),
        ({"unique_id": "a b"}, "unique_id", "Its unique_id must have"),
    ],
)
def test_a_problem_is_next_to_its_field_and_the_fields_are_kept(
    admin: Person, service: Service, change: dict[str, str], field: str, problem: str
) -> None:
    answer = admin.post(ADDRESS, **{**FORM, **change}, shown="any")
    assert answer.status_code == 422
    marked = re.findall(r'name="([^"]+)"[^>]* aria-invalid="true" aria-describedby="([^"]+)"', answer.text)
    ((name, description),) = marked
    assert name == field
    assert f'id="{description}">{problem}' in answer.text
    assert 'name="json.objects" checked' in answer.text
    assert table(service, Task) == []


def test_an_input_has_other_columns_an_id_and_an_environment(admin: Person, service: Service) -> None:
    form = {**FORM, "others": '{"city": "Bern"}', "unique_id": "mine", "environment": "test"}
    admin.post(ADDRESS, **form, shown=shown(admin.post(ADDRESS, **form).text))
    stored = only(service, Task)
    assert (stored["task_id"], stored["environment"]) == ("input-from-images-mine-test", "test")
    assert stored["params"]["city"] == "Bern"
    used = admin.post(ADDRESS, **{**form, "others": '{"city": "Basel"}'})
    assert (used.status_code, "was used before for another input" in used.text) == (422, True)


@pytest.mark.parametrize(
    "change", [{"column.image": "a\0b"}, {"others": r'{"city": "\u0000"}'}, {"environment": "x"}]
)
def test_what_no_database_stores_is_refused(admin: Person, change: dict[str, str]) -> None:
    assert admin.post(ADDRESS, **{**FORM, **change}).status_code == 400


def test_a_request_that_scale_would_refuse_is_not_started(admin: Person, service: Service) -> None:
    answer = admin.post(ADDRESS, **{**FORM, "column.objects": "[]"})
    assert (answer.status_code, "Nothing was started. boxes" in answer.text) == (422, True)


def test_only_operators_start_what_takes_inputs(
    admin: Person, signed_in: Callable[..., Person], workflows_dir: Path, service: Service
) -> None:
    reader = signed_in("read")
    assert "Start with an input" not in reader.get("/workflows/from-images").text
    assert [reader.get(ADDRESS).status_code, reader.post(ADDRESS, **FORM).status_code] == [403, 403]
    (workflows_dir / "second-look.yaml").write_text(WORKFLOWS["second-look.yaml"])
    (workflows_dir / "broken.yaml").write_text(WORKFLOWS["broken.yaml"])
    assert "Start with an input" not in admin.get("/workflows/second-look").text
    for name in ("second-look", "broken", "unknown"):
        assert admin.get(f"/workflows/{name}/start").status_code == 404
    admin.post("/workflows/from-images/pause")
    assert "created after it is resumed" in admin.get(ADDRESS).text


def test_a_workflow_is_started_in_a_browser(browser: Browser, console: Console) -> None:
    def check(page: Any) -> None:
        page.evaluate(f"{AXE};0")
        assert page.evaluate(f"({VIOLATIONS})(null)") == []
        assert page.evaluate(OVERFLOW) <= 0

    with window(browser, console, "operator", width=360) as opened:
        page = opened.open("workflows/from-images")
        page.get_by_role("link", name="Start with an input…").click()
        page.get_by_label("image", exact=True).fill("https://files.example/browser.jpg")
        page.get_by_label("objects", exact=True).fill('["car"')
        page.get_by_label("objects is JSON").check()
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_label("objects", exact=True)).to_have_accessible_description(
            re.compile("not JSON")
        )
        check(page)
        page.get_by_label("objects", exact=True).fill('["car"]')
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_text("Would be")).to_be_visible()
        page.locator("summary").first.click()
        expect(page.locator("details pre").first).to_contain_text("https://files.example/browser.jpg")
        check(page)
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("Started from-images with this input")
