"""Take the pictures of README: start the service with its demonstration, and photograph three screens of its console."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
OWN = {"var", ".env", ".git", ".venv"}
"""What the folder of the demonstration has of its own, or not at all."""
COMMAND = Path(sys.executable).with_name("weighbridge")
PORT, SANDBOX_PORT = "8731", "8732"
START_TIMEOUT_SECONDS = 120.0
SIZE = {"width": 1200, "height": 760}
TALL = {"width": 1200, "height": 1260}
QUALITY = 80
ONCE = re.compile(r"http://\S+/console/sign-in\?once=\S+")
TASK = re.compile(r"In the console: (http://\S+)/console/tasks/(\S+)")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def demonstration() -> Iterator[str]:
    """Run the service in a folder with a database of its own until its demonstration has ended. Yields what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        for entry in ROOT.iterdir():
            if entry.name not in OWN:
                (Path(folder) / entry.name).symlink_to(entry)
        printed = Path(folder) / "printed"
        with printed.open("wb") as file:
            service = subprocess.Popen(
                ["env", f"PORT={PORT}", f"SANDBOX_PORT={SANDBOX_PORT}", COMMAND, "up"],
                cwd=folder,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            while not TASK.search(text := printed.read_text(errors="replace")):
                if time.monotonic() > deadline or service.poll() is not None:
                    sys.exit(f"The demonstration did not end:\n{text}")
                time.sleep(0.5)
            yield text
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(timeout=30)


def take(page: Page, name: str) -> None:
    """Store what the window shows as WebP."""
    page.wait_for_load_state("networkidle")
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.save(FOLDER / f"{name}.webp", quality=QUALITY, method=6)


def main() -> None:
    """Take the three pictures."""
    browser_path = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    with demonstration() as printed, sync_playwright() as playwright:
        link, task = ONCE.search(printed), TASK.search(printed)
        if link is None or task is None:
            sys.exit(f"The demonstration printed no links:\n{printed}")
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.goto(link[0])
        take(page, "overview")
        page.goto(f"{task[1]}/console/tasks/{task[2]}")
        page.set_viewport_size(TALL)  # type: ignore[arg-type]  # the whole picture and its list
        take(page, "task")
        page.set_viewport_size(SIZE)  # type: ignore[arg-type]
        page.goto(f"{task[1]}/console/workflows/polygons-to-boxes")
        take(page, "workflow")
        browser.close()


if __name__ == "__main__":
    main()
