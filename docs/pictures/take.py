"""Take the pictures of the documentation: start the service with its demonstration, and photograph its console.

Four pictures are of the demonstration, for README; the others show a result of each task type, for docs/task-types.md.
"""

from __future__ import annotations

import base64
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
from typing import Any, NamedTuple

import requests
import samples
import scenes
from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
OWN = {"var", ".env", ".git", ".venv"}
"""What the folder of the demonstration has of its own, or not at all."""
COMMAND = Path(sys.executable).with_name("weighbridge")
PORT, SANDBOX_PORT = "8731", "8732"
START_TIMEOUT_SECONDS = 120.0
RESULT_TIMEOUT_SECONDS = 30.0
SIZE = {"width": 1200, "height": 760}
NARROW = {"width": 752, "height": 640}
"""With it, what shows a result is 720 pixels wide."""
QUALITY = 75
ONCE = re.compile(r"http://\S+/console/sign-in\?once=\S+")
TASK = re.compile(r"In the console: (http://\S+)/console/tasks/(\S+)")
TOKEN = re.compile(r"\(token: (\S+)\)")
SANDBOX_KEY = "live_sandbox"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
RESULT = (
    "audio, [data-place]:has(.picture, .card, table),"
    " h2:has-text('Answer'), h2:has-text('Answer') + *, h2:has-text('Answer') ~ .conversation"
)
"""What of a task's page is in the picture of its type."""
RECORD = """async ([frames, seconds]) => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 640, height: 360});
  const images = await Promise.all(frames.map(async (frame) => {
    const image = new Image();
    image.src = frame;
    await image.decode();
    return image;
  }));
  const wait = (share) => new Promise((done) => setTimeout(done, 1000 * seconds * share));
  const recorder = new MediaRecorder(canvas.captureStream(20), {mimeType: 'video/mp4;codecs=avc1.42E01E', videoBitsPerSecond: 4e5});
  const parts = [];
  recorder.ondataavailable = ({data}) => parts.push(data);
  const ended = new Promise((done) => { recorder.onstop = done; });
  canvas.getContext('2d').drawImage(images[0], 0, 0);
  recorder.start();
  await wait(0.5);
  for (const image of [...images.slice(1), images.at(-1)]) {
    canvas.getContext('2d').drawImage(image, 0, 0);
    await wait(1);
  }
  recorder.stop();
  await ended;
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  return btoa(String.fromCharCode(...bytes));
}"""
"""Records pictures as an MP4; each is seen from half a period before its time on."""


class Demonstration(NamedTuple):
    """A running service: what it printed."""

    address: str
    sign_in: str
    task_id: str
    token: str


@contextmanager
def demonstration() -> Iterator[Demonstration]:
    """Run the service in a folder with a database of its own until its demonstration has ended."""
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
            while (task := TASK.search(text := printed.read_text(errors="replace"))) is None:
                if time.monotonic() > deadline or service.poll() is not None:
                    sys.exit(f"The demonstration did not end:\n{text}")
                time.sleep(0.5)
            link, token = ONCE.search(text), TOKEN.search(text)
            if link is None or token is None:
                sys.exit(f"The service printed no links:\n{text}")
            yield Demonstration(task[1], link[0], task[2], token[1])
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(timeout=30)


def main() -> None:
    """Take every picture."""
    browser_path = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    with demonstration() as running, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.goto(running.sign_in)
        take_screens(page, running)
        take_task_types(page, running)
        browser.close()


def take_screens(page: Page, running: Demonstration) -> None:
    """Take the pictures of README."""
    store(page, "overview")
    page.goto(f"{running.address}/console/tasks/{running.task_id}")
    store(page, "task", "header, [data-place]")
    page.get_by_role("row", name="polygons-to-boxes").get_by_role("link").last.click()
    store(page, "follow-up", "header, [data-place]")
    page.goto(f"{running.address}/console/workflows/polygons-to-boxes")
    store(page, "workflow", "header, h2:has-text('Limits') + *")


def take_task_types(page: Page, running: Demonstration) -> None:
    """Take a picture of a result of each task type."""
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    clip = record(page)
    makers = {"videoplaybackannotation": lambda put: samples.played(put, clip), **samples.SAMPLES}
    for name, make in makers.items():
        sample = make(put)
        task_id = create(name, sample)
        await_result(running, task_id)
        page.goto(f"{running.address}/console/tasks/{task_id}{sample.get('query', '')}")
        store(page, f"task-types/{name}", sample.get("area", RESULT))


def record(page: Page) -> bytes:
    """Return a clip of the street, a second for each frame, recorded by the browser."""
    frames = [
        f"data:image/png;base64,{base64.b64encode(scenes.street_image(number)).decode()}"
        for number in range(scenes.FRAMES)
    ]
    page.goto("about:blank")
    return base64.b64decode(page.evaluate(RECORD, [frames, 1]))


def put(name: str, content: bytes, media_type: str) -> str:
    """Store a file at the sandbox. Returns its address."""
    stored = post("v1/files/upload", files={"file": (name, content, media_type)})
    return f"http://127.0.0.1:{SANDBOX_PORT}/files/{stored['id']}"


def create(type_name: str, sample: samples.Sample) -> str:
    """Create a task that the sandbox answers with the response of the sample. Returns its task_id."""
    post("sandbox/api/responses", json={"type": type_name, "response": sample["response"]})
    callback = {"callback_url": f"http://127.0.0.1:{PORT}/callbacks/scale", "instruction": "See the picture."}
    return str(post(f"v1/task/{type_name}", json={**callback, **sample["params"]})["task_id"])


def post(path: str, **content: Any) -> dict[str, Any]:
    """Send a request to the sandbox."""
    answer = requests.post(
        f"http://127.0.0.1:{SANDBOX_PORT}/{path}", auth=(SANDBOX_KEY, ""), timeout=30, **content
    )
    if not answer.ok:
        sys.exit(f"The sandbox refused {path}: {answer.text}")
    return dict(answer.json())


def await_result(running: Demonstration, task_id: str) -> None:
    """Wait until the result of a task and its files were read."""
    deadline = time.monotonic() + RESULT_TIMEOUT_SECONDS
    while True:
        answer = requests.get(
            f"{running.address}/api/v1/tasks/{task_id}",
            headers={"Authorization": f"Bearer {running.token}"},
            timeout=30,
        )
        task = answer.json()
        states = {one["state"] for one in task.get("artifacts", ())}
        if task.get("response_number") and states <= {"stored"}:
            return
        if "failed" in states or time.monotonic() > deadline:
            sys.exit(f"No result of {task_id}: {answer.text}")
        time.sleep(0.1)


def store(page: Page, name: str, selector: str | None = None) -> None:
    """Store what the window shows, or what of it a selector finds, as WebP."""
    page.wait_for_load_state("networkidle")
    area = None if selector is None else area_of(page, selector)
    shot = page.screenshot(clip=area, full_page=area is not None)  # type: ignore[arg-type]
    path = FOLDER / f"{name}.webp"
    path.parent.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(shot)) as picture:
        picture.save(path, quality=QUALITY, method=6)


def area_of(page: Page, selector: str) -> dict[str, float]:
    """Return the rectangle around what a selector finds, in pixels of the page, with a margin at both sides."""
    boxes = [box for one in page.locator(selector).all() if (box := one.bounding_box()) is not None]
    top, bottom = min(box["y"] for box in boxes), max(box["y"] + box["height"] for box in boxes)
    width = page.evaluate("document.documentElement.clientWidth")
    return {"x": 8, "y": max(0, top - 8), "width": width - 16, "height": bottom + 8 - max(0, top - 8)}


if __name__ == "__main__":
    main()
