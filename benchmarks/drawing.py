"""How long a browser takes to draw a task with 5,000 boxes: `python -m benchmarks.drawing`, on SQLite, in Chromium."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from pipeline.db.migrations import migrate
from tests.app.console import gallery
from tests.app.console.browsing import running, window
from tests.sandbox.web.test_page_in_a_browser import FLAGS

BOXES = 5_000
TIMES = 5
GOAL_MS = 1_000
WATCH = f"""const watch = () => {{
  if (document.querySelectorAll('svg rect[data-annotation]').length < {BOXES}) return requestAnimationFrame(watch);
  requestAnimationFrame(() => setTimeout(() => {{ window.drawnAt = performance.now(); }}));
}};
watch();"""
"""Notes the milliseconds from the start of the navigation to the end of the frame with the last shape."""


def main() -> None:
    """Print the median of TIMES loads."""
    boxes = [
        {**gallery.BOX, "uuid": str(n), "left": n % 100 * 6, "top": n // 100 * 9, "width": 5, "height": 5}
        for n in range(BOXES)
    ]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        database = Path(folder) / "migrated.db"
        migrate(f"sqlite:///{database}")
        with running(database, Path(folder)) as console:
            params = {"attachment": f"{console.files}/street.png", "attachment_type": "image"}
            console.deliver(
                "annotation/accepted",
                task_id="many",
                type="imageannotation",
                params=params,
                response={"annotations": boxes},
            )
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", *FLAGS]
            )
            with window(browser, console) as opened:
                opened.page.add_init_script(WATCH)
                taken = []
                for _ in range(TIMES):
                    page = opened.open("tasks/many")
                    expect(page.locator("svg rect[data-annotation]")).to_have_count(BOXES)
                    while (drawn_at := page.evaluate("window.drawnAt")) is None:
                        page.wait_for_timeout(20)
                    taken.append(drawn_at)
            browser.close()
    median = statistics.median(taken)
    print(f"{BOXES:,} boxes: {median:.0f} ms from the address to the last shape (goal ≤ {GOAL_MS})")
    sys.exit(median > GOAL_MS)


if __name__ == "__main__":
    main()
