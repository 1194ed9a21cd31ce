"""The screens as HTML: what they show, how they page, what they download, and what they escape."""

import csv
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from models import FollowUp
from pipeline.service import Service
from tests.app.console.conftest import Person
from tests.app.console.gallery import WORKFLOWS
from workers.runner import run_due_jobs

HOSTILE = "=<script>alert(1)</script>\"'"
NAME = "<img src=x onerror=alert(1)>"
"""A name that a file may have."""
SCREENS = (
    "/",
    "/tasks",
    "/deliveries",
    "/quarantine",
    "/jobs",
    "/follow-ups",
    "/bulk-actions",
    "/bulk-actions/new/follow-ups.approve",
    "/bulk-actions/new/deliveries.replay",
    "/bulk-actions/new/jobs.dismiss",
    "/workflows",
    "/datasets",
    "/exports",
    "/batches",
    "/projects",
    "/insights",
    "/insights/tasks?number=late",
    "/settings",
    "/tokens",
    "/subscribers",
    "/audit",
)


@pytest.mark.parametrize("path", SCREENS)
def test_every_screen_is_a_page_in_the_frame(admin: Person, path: str) -> None:
    answer = admin.get(path)
    assert answer.status_code == 200
    assert answer.text.count("<h1>") == 1
    assert '<a class="skip" href="#content">' in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/tasks/nobody", "/deliveries/nobody", "/workflows/nobody"])
def test_what_does_not_exist_is_a_page_in_the_frame(admin: Person, path: str) -> None:
    answer = admin.get(path)
    assert answer.status_code == 404
    assert "<nav" in answer.text


@pytest.mark.parametrize("query", [{"cursor": "zzz"}, {"environment": "moon"}, {"type": "\0"}])
def test_a_filter_or_cursor_that_makes_no_sense_is_refused(admin: Person, query: dict[str, str]) -> None:
    assert admin.get("/tasks", **query).status_code == 400


def test_pages_follow_each_other_without_repeating_or_hiding_a_task(
    admin: Person, deliver: Callable[..., object]
) -> None:
    for number in range(60):
        deliver("annotation/accepted", task_id=f"task-{number:03}")
    first = admin.get("/tasks").text
    found = re.findall(r'href="/console/tasks/(task-\d+)"', first)
    address = re.search(r'rel="next" href="/console(/tasks\?cursor=[^"]+)"', first)
    assert address is not None
    deliver("annotation/accepted", task_id="late")
    found += re.findall(r'href="/console/tasks/(task-\d+)"', admin.get(address.group(1)).text)
    assert found == [f"task-{number:03}" for number in range(59, -1, -1)]


def test_a_search_for_a_task_id_opens_the_task(admin: Person, deliver: Callable[..., object]) -> None:
    deliver("annotation/accepted", task_id="abc")
    assert admin.get("/tasks", q="abc").location == "/console/tasks/abc"


@pytest.mark.parametrize("text", ["Mark every", "spring-%", "barn.png"])
def test_a_search_finds_parts_of_instruction_metadata_and_attachment(
    admin: Person, deliver: Callable[..., object], text: str
) -> None:
    deliver(
        "annotation/accepted",
        task_id="wanted",
        instruction="Mark every sheep",
        metadata={"season": "spring-%"},
        params={"attachment": "https://cdn.example/barn.png"},
    )
    deliver(
        "annotation/accepted", task_id="other", instruction="x", metadata={"season": "spring-1"}, params={}
    )
    shown = admin.get("/tasks", q=text).text
    assert "/console/tasks/wanted" in shown
    assert "/console/tasks/other" not in shown


def test_a_list_is_downloaded_as_it_is_shown(admin: Person, deliver: Callable[..., object]) -> None:
    deliver("annotation/accepted", task_id="=1+1", project="@sum")
    answer = admin.get("/tasks", format="csv")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["task_id"], row["project"]) == ("'=1+1", "'@sum")
    assert admin.get("/tasks", format="json").json["data"][0]["task_id"] == "=1+1"


def test_text_of_others_is_text_on_every_page(
    admin: Person, deliver: Callable[..., object], workflows_dir: Path, service: Service
) -> None:
    (workflows_dir / f"{NAME}.yaml").write_text(f"workflow: {json.dumps(HOSTILE)}\nsteps: []\n")
    (workflows_dir / "second-look.yaml").write_text(WORKFLOWS["second-look.yaml"])
    for number in range(2):
        box = {
            "type": "box",
            "label": f"{HOSTILE}{number}",
            "uuid": HOSTILE,
            "left": 1,
            "top": 2,
            "width": 3,
            "height": 4,
        }
        deliver(
            "annotation/accepted",
            task_id="hostile",
            type="imageannotation",
            project=HOSTILE,
            batch=HOSTILE,
            instruction=HOSTILE,
            unique_id=HOSTILE,
            metadata={HOSTILE: HOSTILE},
            tags=[HOSTILE],
            customer_review_status="fixed" if number else "accepted",
            customer_review_comments=[HOSTILE],
            params={"attachment": f"https://cdn.example/{HOSTILE}", "attachment_type": "image"},
            response={"annotations": [box], HOSTILE: HOSTILE},
            updated_at=f"203{number}-01-01T00:00:00Z",
        )
    deliver(f"not json {HOSTILE}".encode())
    deliver(json.dumps({"name": HOSTILE, "project": HOSTILE, "status": HOSTILE}).encode())
    run_due_jobs(service)
    receipt = deliver(f'{{"task_id": "{NAME}", }}'.encode())
    written = f"follow-ups.approve?workflow={quote(HOSTILE)}"
    pages = (
        "/", "/tasks", f"/tasks?q={quote(HOSTILE)}", "/tasks/hostile", "/tasks/hostile/shapes", "/tasks/hostile/raw",
        "/tasks/hostile/annotations", "/tasks/hostile/compare", "/deliveries", f"/deliveries?q={quote(HOSTILE)}",
        f"/deliveries/{receipt.delivery_id}", "/quarantine", "/jobs", "/follow-ups", "/workflows",  # type: ignore[attr-defined]
        f"/workflows/{quote(NAME)}", "/workflows/second-look?task=hostile", "/batches", "/projects", "/insights",
        "/insights/tasks?number=created", "/audit", f"/bulk-actions/new/{written}", f"/nothing/{quote(HOSTILE)}",
    )  # fmt: skip
    for path in pages:
        answer = admin.client.get(f"/console{path}")
        assert answer.status_code in (200, 404), path
        for start in ("<script>alert", "<img src=x"):
            assert start not in answer.text, path
    shown = admin.get("/tasks/hostile").text
    assert (
        f'data-label="{html.escape(HOSTILE)}1"'.replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in shown
    )
    for path in ("/tasks", "/insights", "/insights/tasks?number=created", "/projects", "/workflows"):
        joined = f"{path}{'&' if '?' in path else '?'}format=csv"
        for row in csv.reader(io.StringIO(admin.client.get(f"/console{joined}").text)):
            for cell in row:
                assert not cell.startswith(("=", "+", "@", "\t")), (path, cell)


def test_a_task_shows_its_shapes_in_pixels_of_the_image(
    admin: Person, deliver: Callable[..., object]
) -> None:
    annotations = [
        {"type": "box", "label": "car", "left": 10, "top": 20, "width": 30, "height": 40, "rotation": 0.5},
        {
            "type": "polygon",
            "label": "road",
            "vertices": [{"x": 1, "y": 2}, {"x": 3.5, "y": 4}, {"x": 5, "y": 6}],
        },
        {"type": "point", "label": "nose", "x": 7, "y": 8},
    ]
    deliver(
        "annotation/accepted",
        task_id="drawn",
        type="imageannotation",
        metadata={"width": 640, "height": 480},
        params={"attachment": "https://cdn.example/x.png", "attachment_type": "image"},
        response={"annotations": annotations},
    )
    page = admin.get("/tasks/drawn").text
    assert 'viewBox="0 0 640 480"' in page
    assert 'data-annotation="0" data-type="box" data-label="car" x="10" y="20" width="30" height="40"' in page
    assert 'transform="rotate(28.6479 25 40)"' in page
    assert 'points="1,2 3.5,4 5,6"' in page
    assert 'cx="7" cy="8"' in page


def test_versions_are_compared_in_words(admin: Person, deliver: Callable[..., object]) -> None:
    box = {"type": "box", "label": "car", "uuid": "a", "left": 1, "top": 2, "width": 3, "height": 4}
    deliver("annotation/accepted", task_id="two", response={"annotations": [box]})
    later = [{**box, "label": "bus"}, {**box, "uuid": "b", "left": 90}]
    deliver(
        "annotation/accepted",
        task_id="two",
        response={"annotations": later},
        updated_at="2031-01-01T00:00:00Z",
    )
    page = admin.get("/tasks/two/compare").text
    assert "1 added, 0 removed, 0 moved, 1 relabeled" in page


def test_the_quarantine_groups_by_reason_and_replays(admin: Person, deliver: Callable[..., object]) -> None:
    deliver(b"one")
    deliver(b"two")
    page = admin.get("/quarantine").text
    (address,) = set(
        re.findall(r'href="/console(/bulk-actions/new/deliveries.replay\?[^"]*reason[^"]*)"', page)
    )
    shown = admin.get(html.unescape(address)).text
    assert "<b>2</b> deliveries" in shown
    assert "weighbridge deliveries replay --status quarantined --reason" in shown
    begun = admin.post(html.unescape(address), expected="2")
    assert "Replayed 2 of 2 deliveries: completed" in admin.client.get(begun.location).text


def test_a_bulk_action_asks_again_when_more_rows_match(admin: Person, deliver: Callable[..., object]) -> None:
    deliver(b"one")
    deliver(b"two")
    asked = admin.post("/bulk-actions/new/deliveries.dismiss", expected="1")
    assert asked.location == "/console/bulk-actions/new/deliveries.dismiss"
    assert (
        "2 deliveries match now, 1 did before. Nothing was changed yet."
        in admin.client.get(asked.location).text
    )
    assert "The quarantine is empty" not in admin.get("/quarantine").text
    begun = admin.post("/bulk-actions/new/deliveries.dismiss", expected="2")
    assert "Dismissed 2 of 2" in admin.client.get(begun.location).text
    assert "The quarantine is empty" in admin.get("/quarantine").text
    assert "deliveries.dismiss" in admin.get("/bulk-actions").text


def test_held_follow_ups_are_approved_all_at_once(
    admin: Person, service: Service, workflows_dir: Path, deliver: Callable[..., object]
) -> None:
    (workflows_dir / "second-look.yaml").write_text(WORKFLOWS["second-look.yaml"])
    for number in range(3):
        deliver("annotation/accepted", type="imageannotation", task_id=f"task-{number}")
    run_due_jobs(service)
    page = admin.get("/follow-ups", state="held", workflow="second-look").text
    assert 'aria-label="Approve second-look.outlines.task-0"' in page
    (address,) = re.findall(r'href="/console(/bulk-actions/new/follow-ups.approve[^"]*)">Approve all…', page)
    shown = admin.get(address).text
    assert "<b>3</b> follow-ups" in shown
    assert "workflow = second-look" in shown
    assert "No price" in shown
    assert "weighbridge follow-ups approve --workflow second-look" in shown
    begun = admin.post(address, expected="3", cost="No price is set")
    assert "Approved 3 of 3 follow-ups: completed" in admin.client.get(begun.location).text
    assert "No matching follow-ups" in admin.get("/follow-ups", state="held").text


def test_a_delivery_shows_its_body_and_is_replayed(admin: Person, deliver: Callable[..., object]) -> None:
    receipt = deliver("annotation/accepted", task_id="abc")
    address = f"/deliveries/{receipt.delivery_id}"  # type: ignore[attr-defined]
    assert "&#34;task_id&#34;: &#34;abc&#34;" in admin.get(address).text
    assert "A replay would change nothing." in admin.get(address, preview="1").text
    assert "the delivery is processed" in admin.client.get(admin.post(f"{address}/replay").location).text


def test_a_token_is_shown_once_and_revoked(admin: Person, service: Service) -> None:
    page = admin.post("/tokens", name="robot", scope="read").text
    shown = re.search(r"wb_[\w-]+", page)
    assert shown is not None
    assert shown.group() not in admin.get("/tokens").text
    assert (
        "Revoked 1 tokens called robot"
        in admin.client.get(admin.post("/tokens/revoke", name="robot").location).text
    )


def test_settings_mask_secrets(admin: Person) -> None:
    page = admin.get("/settings").text
    assert "API_TOKEN" in page
    saved = admin.get("/settings", format="csv").text
    assert saved.startswith("setting,value")
    for text in (page, saved):
        assert "a-token-of-the-tests" not in text


def test_the_live_part_is_sent_only_when_it_has_changed(
    admin: Person, deliver: Callable[..., object]
) -> None:
    deliver("annotation/accepted", task_id="abc")
    tag = admin.get("/", part="live").headers["HX-PTag"]
    assert re.fullmatch(r"[0-9a-f]{32}", tag)
    again = admin.client.get("/console/?part=live", headers={"HX-PTag": "other"})
    assert again.status_code == 200


def test_a_dataset_version_is_created_and_its_export_requested(
    admin: Person, deliver: Callable[..., object]
) -> None:
    deliver("annotation/accepted", task_id="abc")
    assert admin.post("/datasets", name="street").location == "/console/datasets/street@1"
    assert "<dt>Tasks</dt><dd>1</dd>" in admin.get("/datasets/street@1").text
    assert admin.post("/exports", dataset="street", export_format="csv").status_code == 302
    assert "street@1" in admin.get("/exports").text
    assert admin.post("/datasets", name="No Name").status_code == 400
    assert admin.post("/exports", dataset="nothing", export_format="csv").status_code == 400


def test_a_follow_up_is_planned_again_after_its_changes_were_shown(
    admin: Person, deliver: Callable[..., object], service: Service, workflows_dir: Path
) -> None:
    own = Path("tests/workflows/files/polygons-to-boxes.yaml")
    (workflows_dir / own.name).write_text(own.read_text())
    deliver("polygonannotation/polygons")
    run_due_jobs(service)
    with service.engine.begin() as connection:
        columns = {"state": "skipped", "reason": "dry run", "request": {"instruction": "Old"}}
        connection.execute(update(FollowUp).values(**columns))
        unique_id = connection.scalars(select(FollowUp.unique_id)).one()
    assert f'href="/console/follow-ups/{unique_id}/replan"' in admin.get("/follow-ups").text
    shown = admin.get(f"/follow-ups/{unique_id}/replan").text
    assert "<code>&#34;Old&#34;</code>" in shown
    assert "Plan it again" in shown
    assert admin.post(f"/follow-ups/{unique_id}/replan").status_code == 302
    with service.reader.begin() as connection:
        assert connection.scalars(select(FollowUp.state)).one() == "held"  # no API key is set
    with service.engine.begin() as connection:
        connection.execute(update(FollowUp).values(state="created"))
    assert "It stays as it is" in admin.get(f"/follow-ups/{unique_id}/replan").text
    assert admin.post(f"/follow-ups/{unique_id}/replan").status_code == 409


def test_a_workflow_runs_dry_on_a_task_and_on_the_last_days(
    admin: Person, workflows_dir: Path, deliver: Callable[..., object]
) -> None:
    (workflows_dir / "second-look.yaml").write_text(WORKFLOWS["second-look.yaml"])
    deliver("annotation/accepted", type="imageannotation", task_id="abc", updated_at="2031-01-01T00:00:00Z")
    page = admin.get("/workflows/second-look", task="abc").text
    assert "second-look.outlines.abc: held" in page
    assert "no follow-ups" in page
    assert "second-look</td><td>day</td>" in page
    week = admin.get("/workflows/second-look", days="7").text
    assert "The last 7 days: 1 tasks" in week
    assert admin.get("/workflows/second-look", task="nobody").status_code == 404


def test_a_task_is_replayed_and_needs_a_key_to_be_resent(
    admin: Person, signed_in: Callable[..., Person], deliver: Callable[..., object]
) -> None:
    deliver("annotation/accepted", task_id="abc")
    done = admin.post("/tasks/abc/replay")
    assert "Replayed the newest delivery; changed: nothing." in admin.client.get(done.location).text
    assert admin.post("/tasks/abc/resend").status_code == 409
    assert admin.post("/tasks/nobody/cancel").status_code == 404
    assert "Resend" not in signed_in("read").get("/tasks/abc").text
    assert signed_in("read").post("/tasks/abc/replay").status_code == 403


def test_a_search_finds_bytes_of_a_body(admin: Person, deliver: Callable[..., object]) -> None:
    deliver("annotation/accepted", task_id="wanted", instruction="Mark the barn")
    deliver("annotation/accepted", task_id="other")
    page = admin.get("/deliveries", q="the barn").text
    assert "/console/tasks/wanted" in page
    assert "/console/tasks/other" not in page


def test_the_place_that_broke_is_marked(admin: Person, deliver: Callable[..., object]) -> None:
    receipt = deliver(b'{"task_id": "x", }')
    page = admin.get(f"/deliveries/{receipt.delivery_id}").text  # type: ignore[attr-defined]
    assert "<mark>}</mark>" in page


def test_large_raw_data_is_one_click_away(admin: Person, deliver: Callable[..., object]) -> None:
    boxes = [
        {"type": "box", "label": "car", "uuid": str(n), "left": n, "top": 2, "width": 3, "height": 4}
        for n in range(900)
    ]
    deliver("annotation/accepted", task_id="large", response={"annotations": boxes})
    page = admin.get("/tasks/large")
    assert len(page.data) < 150_000
    assert 'href="/console/tasks/large/raw?response=1">Raw JSON' in page.text
    raw = admin.get("/tasks/large/raw", format="json").json
    assert len(raw["response"]["annotations"]) == 900
    rows = admin.get("/tasks/large/annotations", format="json").json["data"]
    assert [row["position"] for row in rows] == list(range(200))


def test_two_versions_of_a_dataset_are_compared(admin: Person, deliver: Callable[..., object]) -> None:
    deliver("annotation/accepted", task_id="one")
    admin.post("/datasets", name="street")
    deliver("annotation/accepted", task_id="two")
    admin.post("/datasets", name="street")
    page = admin.get("/datasets/street@2/compare", old="street@1").text
    assert "<h2>Tasks added</h2>" in page
    assert "<li>two</li>" in page
    assert admin.get("/datasets/street@2/compare", old="street@9").status_code == 404


def test_a_batch_shows_its_progress(admin: Person, deliver: Callable[..., object]) -> None:
    deliver("batch/the_batch_itself")
    name = admin.get("/batches", format="json").json["data"][0]["name"]
    deliver("annotation/accepted", task_id="one", batch=name)
    assert "1 of 1 completed" in admin.get("/batches").text


def test_a_live_part_without_a_session_leads_the_whole_page_to_the_sign_in(stranger: Person) -> None:
    answer = stranger.client.get("/console/?part=live", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/console/sign-in")


def test_a_backfill_is_previewed_started_and_stopped(
    admin: Person, signed_in: Callable[..., Person], deliver: Callable[..., object], workflows_dir: Path
) -> None:
    (workflows_dir / "second-look.yaml").write_text(WORKFLOWS["second-look.yaml"])
    for task_id in ("one", "two"):
        deliver("annotation/accepted", type="imageannotation", task_id=task_id, project="street")
    address = "/workflows/second-look/backfill?project=street&since=2020-01-01"
    assert 'href="/console/workflows/second-look/backfill"' in admin.get("/workflows/second-look").text
    shown = admin.client.get(f"/console{address}").text
    assert "<b>2</b> results" in shown
    assert "2 held" in shown
    assert "weighbridge workflows backfill second-look --since 2020-01-01 --project street" in shown
    deliver("annotation/accepted", type="imageannotation", task_id="three", project="street")
    asked = admin.post(address, expected="2")
    assert "3 results match now, 2 did before" in admin.client.get(asked.location).text
    started = admin.client.get(admin.post(address, expected="3").location).text
    assert "0 of 3" in started
    (stop,) = re.findall(r'action="/console(/backfills/[^/]+/stop)"', started)
    assert "Stopped the backfill" in admin.client.get(admin.post(stop).location).text
    assert admin.post(stop).status_code == 409
    assert admin.post(stop.replace("stop", "resume")).status_code == 302
    reader = signed_in("read")
    assert "Backfill…" not in reader.get("/workflows/second-look").text
    assert reader.post(address, expected="3").status_code == 403
    assert admin.get("/workflows/second-look/backfill", since="soon").status_code == 400
    assert admin.get("/workflows/unknown/backfill").status_code == 404
