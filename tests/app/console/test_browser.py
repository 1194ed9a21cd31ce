"""Every screen in a real browser and every role: readable by everyone, light and dark, narrow and wide, without errors."""

from importlib.resources import files

import pytest
from playwright.sync_api import Browser, expect

from tests.app.console.browsing import TIMEOUT_MS, Console, window

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
SCREENS = (
    "",
    "tasks",
    "tasks?thumbnails=1",
    "tasks/drawn",
    "tasks/drawn/compare",
    "tasks/drawn/raw",
    "tasks/drawn/annotations",
    "tasks/video?frame=1",
    "tasks/clip?frame=2",
    "tasks/lidar",
    "tasks/segments",
    "tasks/cameras",
    "tasks/masks",
    "tasks/document?page=1",
    "tasks/audio",
    "tasks/text",
    "tasks/expired",
    "tasks/chat",
    "tasks/talk",
    "tasks/categorization",
    "tasks/comparison",
    "tasks/transcription",
    "deliveries",
    "quarantine",
    "jobs",
    "follow-ups",
    "bulk-actions",
    "workflows",
    "workflows/second-look?task=drawn&days=7",
    "workflows/second-look/backfill?project=meadow",
    "workflows/from-images/start",
    "workflows/broken",
    "workflows/nameless",
    "datasets",
    "exports",
    "batches",
    "projects",
    "insights",
    "insights/tasks?number=created",
    "settings",
    "tokens",
    "subscribers",
    "audit",
    "nothing",
)
MAX_FIRST_VISIT_BYTES = 150_000
STATES = {
    ("light", 1280): None,
    ("dark", 1280): ["color-contrast", "link-in-text-block"],
    ("light", 360): ["target-size", "scrollable-region-focusable"],
    ("dark", 360): ["color-contrast", "target-size"],
}
"""Scheme and width → the rules that may give another outcome there. None: every rule."""
VIOLATIONS = """rules => axe.run(document, {resultTypes: ['violations'], ...(rules ? {runOnly: rules} : {})})
  .then(found => found.violations.map(one => [one.id, one.nodes[0].html]))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
MISALIGNED = """[...document.querySelectorAll('main table')].filter(table => [...table.querySelectorAll('td.number')]
  .some(cell => cell.closest('table') === table && !table.tHead.rows[0].cells[cell.cellIndex].matches('.number')))
  .map(table => table.parentElement.ariaLabel)"""
"""Tables with a column of numbers whose heading is not on its side."""
DOCUMENT = (
    r"""document.body.innerHTML.replace(/csrf_token" value="[^"]*|Signed in as \w+|<time.*?<\/time>/g, '')"""
)
"""What a role sees, without names and times: what another role saw word for word is not examined twice."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_screen_is_readable_for_every_role_in_every_scheme_and_width(
    browser: Browser, console: Console
) -> None:
    examined: set[str] = set()  # documents that axe has examined
    for role in ("admin", "operator", "reader"):
        with window(browser, console, role) as opened:
            for screen in SCREENS:
                page = opened.open(screen)
                assert page.locator("h1").count() == 1, screen
                assert page.evaluate(MISALIGNED) == [], screen
                found = page.evaluate(DOCUMENT)
                if is_new := found not in examined:
                    examined.add(found)
                    page.evaluate(f"{AXE};0")
                for (scheme, width), rules in STATES.items():
                    page.emulate_media(color_scheme=scheme)
                    page.set_viewport_size({"width": width, "height": 900})
                    state = (screen, role, scheme, width)
                    assert page.evaluate(OVERFLOW) <= 0, state
                    assert not is_new or page.evaluate(VIOLATIONS, rules) == [], state
    assert len(examined) > len(SCREENS)


def test_a_first_visit_is_small(browser: Browser, console: Console) -> None:
    for screen in ("", "tasks", "tasks/drawn", "deliveries"):
        with window(browser, console) as opened:
            sizes = []
            opened.page.on("response", lambda answer, sizes=sizes: sizes.append(answer))
            opened.open(screen)
            opened.page.wait_for_load_state("networkidle")
            total = sum(
                len(one.body()) for one in sizes if "/attachments/" not in one.url and one.status == 200
            )
            assert 0 < total <= MAX_FIRST_VISIT_BYTES, screen


def test_the_overview_shows_a_new_delivery_without_a_reload(browser: Browser, console: Console) -> None:
    with window(browser, console) as opened:
        page = opened.open()
        console.deliver("annotation/accepted", task_id="arrived-later")
        expect(page.get_by_text("arrived-later")).to_be_visible(timeout=TIMEOUT_MS)
        opened.open("deliveries")
        console.deliver("annotation/accepted", task_id="arrived-last")
        expect(page.get_by_text("arrived-last")).to_be_visible(timeout=TIMEOUT_MS)


def test_the_first_tab_stop_skips_to_the_content(browser: Browser, console: Console) -> None:
    with window(browser, console) as opened:
        page = opened.open("tasks")
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_attribute("href", "#content")
        assert page.locator("nav a[aria-current=page]").inner_text() == "Tasks"


def test_without_javascript_lists_pages_and_forms_work(browser: Browser, console: Console) -> None:
    with window(browser, console, java_script_enabled=False) as opened:
        page = opened.open("tasks")
        page.get_by_role("searchbox").fill("drawn")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("drawn")
        opened.open("tasks/video")
        page.get_by_role("link", name="Next frame").click()
        assert "frame=1" in page.url
        expect(page.locator('svg [data-annotation="1"]')).to_have_count(1)


def test_a_hostile_name_is_text_everywhere(browser: Browser, console: Console) -> None:
    with window(browser, console) as opened:
        for screen in ("tasks/drawn", "workflows/second-look", "workflows/broken", "tasks/drawn/compare"):
            page = opened.open(screen)
            assert page.locator("img[src=x]").count() == 0
