"""A whole chain, from the first image to the export: once with the mouse, once with the keyboard alone."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.app.console.browsing import Console, Window, window
from tests.app.console.gallery import BOX
from workers.runner import run_due_jobs

MAX_TABS = 200


@pytest.fixture
def opened(browser: Browser, console: Console) -> Iterator[Window]:
    with window(browser, console, "operator") as opened:
        yield opened


def by_mouse(page: Page, target: Locator) -> None:
    target.click()


def by_keyboard(page: Page, target: Locator) -> None:
    """Tab to the element, and press Enter."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if target.evaluate("one => one === document.activeElement"):
            page.keyboard.press("Enter")
            return
    pytest.fail(f"{MAX_TABS} tab stops do not lead to {target}")


def type_into(page: Page, act: Callable[[Page, Locator], None], label: str, text: str) -> None:
    field = page.get_by_label(label, exact=True)
    if act is by_mouse:
        field.click()
    else:
        for _ in range(MAX_TABS):
            page.keyboard.press("Tab")
            if field.evaluate("one => one === document.activeElement"):
                break
    page.keyboard.type(text)


@pytest.mark.parametrize("act", [by_mouse, by_keyboard], ids=["mouse", "keyboard"])
def test_a_chain_is_followed_from_the_first_image_to_the_export(
    opened: Window, act: Callable[[Page, Locator], None]
) -> None:
    console, page = opened.console, opened.page
    name = f"first-by-{act.__name__.rpartition('_')[2]}"
    params = {"attachment": f"{console.files}/street.png", "attachment_type": "image"}
    console.deliver(
        "annotation/accepted",
        task_id=name,
        type="imageannotation",
        project=name,
        params=params,
        response={"annotations": [BOX]},
    )
    run_due_jobs(console.service)

    opened.open()
    act(page, page.get_by_role("link", name="Tasks", exact=True))
    type_into(page, act, "Search", name)
    page.keyboard.press("Enter")
    expect(page.locator('svg [data-annotation="0"]')).to_be_visible()
    act(page, page.get_by_role("link", name="Decide about them"))
    act(page, page.get_by_role("button", name=f"Approve second-look.outlines.{name}"))
    expect(page.get_by_text(f"Approved second-look.outlines.{name}")).to_be_visible()

    act(page, page.get_by_role("link", name="Datasets", exact=True))
    type_into(page, act, "Name (a–z, 0–9, -)", name)
    type_into(page, act, "Project", name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(rf"Dataset {name}@1"))
    act(page, page.get_by_role("link", name="Request an export"))
    act(page, page.get_by_role("button", name="Request export"))
    expect(page.get_by_role("status")).to_contain_text("Requested")
    run_due_jobs(console.service)
    page.reload()
    with page.expect_download() as download:
        act(page, page.get_by_role("link", name="Download").first)
    assert download.value.suggested_filename.endswith(".zip")
