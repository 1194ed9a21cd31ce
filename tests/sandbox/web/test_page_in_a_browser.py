"""Tests for the sandbox's page in a real browser, by mouse and by keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sandbox.examples import example
from sandbox.pytest_plugin import ScaleSandbox

HOSTILE = (
    "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"
)
# No connections to the outside, and no graphics card.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PATIENCE = 20_000  # milliseconds
expect.set_options(timeout=PATIENCE)


# Not for longer than this module: its event loop would be in the way of others.
@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=FLAGS) as browser,
    ):
        yield browser


@pytest.fixture
def page(browser: Browser, slow_sandbox: ScaleSandbox) -> Iterator[Page]:
    """A new window on a sandbox whose live tasks wait for a hand. It may load nothing from elsewhere."""
    with browser.new_context(base_url=slow_sandbox.url) as window:
        window.set_default_timeout(PATIENCE)
        page = window.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        yield page
    assert [url for url in asked if not url.startswith(slow_sandbox.url)] == []


def make(sandbox: ScaleSandbox, **changes: Any) -> str:
    request = {**example("annotation"), "callback_url": sandbox.callback_url, **changes}
    return sandbox.create("annotation", **request)["task_id"]


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def expect_heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def test_a_task_is_completed_audited_recalled_and_failed_by_hand(slow_sandbox: ScaleSandbox, page: Page):
    task = make(slow_sandbox)
    page.goto("/")
    page.get_by_role("link", name=task).click()
    expect_heading(page, "annotation: pending")

    page.get_by_label("Response as JSON").fill('{"annotations": [], "seen_by": "a person"}')
    press(page, "Complete")
    expect_heading(page, "annotation: completed")
    expect(page.get_by_role("region", name="Response")).to_contain_text('"seen_by": "a person"')
    assert slow_sandbox.task(task)["response"] == {"annotations": [], "seen_by": "a person"}

    page.get_by_label("Result").select_option("rejected")
    page.get_by_label("Comments").fill("no box")
    press(page, "Audit")
    expect_heading(page, "annotation: completed, rejected")
    expect(page.get_by_role("region", name="Task", exact=True)).to_contain_text("no box")

    press(page, "Recall")
    expect_heading(page, "annotation: pending")
    page.get_by_label("Kind of error").select_option("frames")
    press(page, "End in error")
    expect_heading(page, "annotation: error")

    sent = ["completed", "rejected", "recalled", "error"]
    assert [callback["event"] for callback in slow_sandbox.callbacks(task)] == sent
    slow_sandbox.wait_for(lambda: len(slow_sandbox.received()) == len(sent))
    page.reload()
    expect(page.get_by_role("region", name="Callbacks").get_by_text("succeeded")).to_have_count(len(sent))


def test_an_example_is_created_and_answered_with_the_keyboard_alone(slow_sandbox: ScaleSandbox, page: Page):
    page.goto("/")
    for keys in ("polygonannotation", slow_sandbox.live_key, slow_sandbox.callback_url):
        page.keyboard.press("Tab")
        page.keyboard.type(keys)
    page.keyboard.press("Enter")
    expect_heading(page, "polygonannotation: pending")
    for _ in ("All tasks", "Response as JSON", "Complete"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect_heading(page, "polygonannotation: completed")
    (task,) = slow_sandbox.tasks()
    assert task["response"]["annotations"]


def test_invalid_json_is_reported_and_the_input_is_kept(slow_sandbox: ScaleSandbox, page: Page):
    task = make(slow_sandbox)
    page.goto(f"/tasks/{task}")
    page.get_by_label("Response as JSON").fill('{"annotations": [')
    press(page, "Complete")
    expect(page.get_by_role("alert")).to_contain_text("The response is not valid JSON")
    page.go_back()
    expect(page.get_by_label("Response as JSON")).to_have_value('{"annotations": [')
    assert slow_sandbox.task(task)["status"] == "pending"


def test_markup_in_a_label_is_shown_as_text(slow_sandbox: ScaleSandbox, page: Page):
    task = make(slow_sandbox, objects_to_annotate=[HOSTILE], unique_id=HOSTILE)
    slow_sandbox.complete(task, {"annotations": [{"label": HOSTILE, "left": 1}]})
    slow_sandbox.audit(task, "commented", HOSTILE)
    page.goto("/")
    expect(page.get_by_role("cell", name=HOSTILE)).to_be_visible()
    assert page.title() == "Sandbox"
    page.get_by_role("link", name=task).click()
    for region in ("Response", "Task"):
        shown = page.get_by_role("region", name=region, exact=True)
        expect(shown).to_contain_text("<script>document.title = 'taken over'</script>")
    assert page.title() == f"annotation {task}"
    expect(page.locator("script, img")).to_have_count(0)


def test_every_page_fits_a_narrow_screen_and_every_control_has_a_label(
    slow_sandbox: ScaleSandbox, page: Page
):
    pending, done, broken = (make(slow_sandbox, unique_id=letter * 200) for letter in "abc")
    slow_sandbox.complete(done)
    slow_sandbox.fail(broken)
    slow_sandbox.add_fault("duplicated", project="p" * 400)
    page.set_viewport_size({"width": 360, "height": 800})
    for path in ("/", f"/tasks/{pending}", f"/tasks/{done}", f"/tasks/{broken}", "/tasks/none"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        controls = "[...document.querySelectorAll('input:not([type=hidden]), select, textarea')]"
        assert page.evaluate(f"{controls}.filter(control => !control.labels.length).length") == 0, path
