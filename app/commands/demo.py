"""`weighbridge demo`: send one polygon task through the running service and its sandbox, and print each step."""

from __future__ import annotations

import io
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import click
import requests
from flask.cli import with_appcontext
from PIL import Image, ImageDraw

from app.commands.group import Command
from app.extensions import service as current_service
from config.development import printable_token
from pipeline.follow_ups.recording import missing_setting
from pipeline.operations.queries import Record
from pipeline.operations.queries import deliveries as queries
from pipeline.operations.queries.follow_ups import first_follow_up
from pipeline.operations.queries.responses import list_annotations
from pipeline.service import Service
from scale.client import Client, ScaleError

STEP_TIMEOUT_SECONDS = 30.0
START_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.05
MAX_ANNOTATIONS = 1000
ENVIRONMENT = "live"
WORKFLOW_TAG = "weighbridge-demonstration"
"""The tag by which the workflow in config/demonstration recognizes the tasks of this command."""

Found = TypeVar("Found")


@click.command(cls=Command)
@with_appcontext
def demo() -> None:
    """Send a task through the running service and its sandbox."""
    service = current_service()
    client = sandbox_client(service)
    await_start(service, client)
    started = time.monotonic()
    marker = f"demo-{secrets.token_hex(4)}"
    polygons = create_polygon_task(service, client, marker)
    print_step(1, f"Created a polygon task at the sandbox: {polygons} (unique_id {marker})")
    await_callback(service, 2, polygons, "Received its callback")
    follow_up = await_follow_up(service, polygons)
    layers = (follow_up["request"].get("layers") or {}).items()
    listed = ", ".join(f"{len(members)} {name}" for name, members in layers) or "none"
    boxes, unique_id = follow_up["task_id"], follow_up["unique_id"]
    print_step(3, f"Created the follow-up, a box task: {boxes} (unique_id {unique_id}, layers: {listed})")
    await_callback(service, 4, boxes, "Received the box task's callback")
    click.echo(f"Finished in {time.monotonic() - started:.1f} s. To read the result:")
    click.echo(
        f'  curl -H "Authorization: Bearer {printable_token(service.settings)}"'
        f" http://127.0.0.1:{service.settings.port}/api/v1/tasks/{polygons}"
    )
    click.echo(f"In the console: http://127.0.0.1:{service.settings.port}/console/tasks/{polygons}")


def print_step(step: int, text: str) -> None:
    """Print one numbered step."""
    click.echo(f"{step}. {text}")


def sandbox_client(service: Service) -> Client:
    """Return the client of the sandbox. Raises ClickException at Scale itself, where the task would cost money."""
    host = urlsplit(service.settings.scale_api_url).hostname or ""
    if host.endswith(("scale.com", "scaleapi.com")):
        raise click.ClickException(
            f"SCALE_API_URL is {service.settings.scale_api_url}: the demonstration would cost money there."
            " Run it while `make run` is running, which has a sandbox."
        )
    if problem := missing_setting(service, ENVIRONMENT):
        raise click.ClickException(
            f"{problem}. Run the demonstration while `make run` is running, which sets it."
        )
    client = service.client(ENVIRONMENT)
    assert client is not None  # missing_setting() has checked
    return client


def await_start(service: Service, client: Client) -> None:
    """Wait until web and sandbox answer. Raises ClickException."""

    def answered() -> bool:
        try:
            client.list_tasks(limit=1)
            return requests.get(f"http://127.0.0.1:{service.settings.port}/livez", timeout=2).ok
        except (ScaleError, requests.RequestException):
            return False

    wait_for(
        answered,
        START_TIMEOUT_SECONDS,
        f"no answer from the web process on port {service.settings.port} and the sandbox at {service.settings.scale_api_url}."
        " Is `make run` running?",
    )


def create_polygon_task(service: Service, client: Client, marker: str) -> str:
    """Create a polygon task on a picture that the sandbox stores, with a response that fits it, and return its task_id."""
    uploaded = post_to_sandbox(
        service, "v1/files/upload", files={"file": ("street.png", street(), "image/png")}
    )
    response = {"annotations": outlines()}
    post_to_sandbox(
        service, "sandbox/api/responses", json={"unique_id": marker, "response": response, "times": 1}
    )
    request = {
        "callback_url": service.settings.callback_url,
        "unique_id": marker,
        "instruction": "Outline every **car** and **pedestrian**",
        "attachment_type": "image",
        "attachment": f"{sandbox_url(service)}/files/{uploaded['id']}",
        "objects_to_annotate": ["car", "pedestrian"],
        "with_labels": True,
        "metadata": {"made_by": "weighbridge demo"},
        "tags": [WORKFLOW_TAG],
    }
    return str(client.create_task("polygonannotation", request)["task_id"])


def sandbox_url(service: Service) -> str:
    """Return the URL of the sandbox, without a slash at its end."""
    return service.settings.scale_api_url.removesuffix("/v1")


def post_to_sandbox(service: Service, path: str, **content: Any) -> dict[str, Any]:
    """Send a request that the client of Scale's API does not have."""
    key = service.settings.scale_key(ENVIRONMENT) or ""
    answer = requests.post(f"{sandbox_url(service)}/{path}", auth=(key, ""), timeout=15, **content)
    answer.raise_for_status()
    return dict(answer.json())


CARS = ((70, "#b3261e"), (350, "#1e5fb3"))
"""Where each car of the picture begins, in pixels, and its color."""
CAR = ((0, 215), (30, 215), (55, 185), (120, 185), (145, 215), (170, 215), (170, 265), (0, 265))
"""The outline of a car, relative to where it begins."""
PEDESTRIAN = ((572, 170), (592, 170), (598, 190), (598, 260), (566, 260), (566, 190))


def outlines() -> list[dict[str, Any]]:
    """Return the polygons around the objects of street()."""
    found = [("car", [(left + x, y) for x, y in CAR]) for left, _ in CARS]
    found.append(("pedestrian", list(PEDESTRIAN)))
    return [
        {
            "type": "polygon",
            "uuid": str(uuid4()),
            "label": label,
            "vertices": [{"x": x, "y": y} for x, y in points],
        }
        for label, points in found
    ]


def street() -> bytes:
    """Return a small picture with objects to outline, as PNG."""
    picture = Image.new("RGB", (640, 360), "#9ec5e8")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 220, 640, 360), fill="#6b6b6b")
    for left, colour in CARS:
        draw.rectangle((left, 215, left + 170, 265), fill=colour)
        draw.polygon(
            [(left + 30, 215), (left + 55, 185), (left + 120, 185), (left + 145, 215)], fill="#2b2b2b"
        )
        for wheel in (left + 35, left + 135):
            draw.ellipse((wheel - 16, 250, wheel + 16, 282), fill="#111111")
    draw.ellipse((572, 170, 592, 190), fill="#e0b090")
    draw.rectangle((566, 190, 598, 260), fill="#2e7d32")
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def await_callback(service: Service, step: int, task_id: str, title: str) -> None:
    """Wait for the callback of a task and print what it contained."""

    def received() -> Record | None:
        with service.reader.begin() as connection:
            found = queries.deliveries_after(connection, {"task_id": task_id}, None, 1)
        return dict(found[0]) if found and found[0]["status"] != "stored" else None

    delivery = wait_for(
        received,
        STEP_TIMEOUT_SECONDS,
        f"no callback arrived for {task_id}. The sandbox sends it to {service.settings.callback_url};"
        f" its page, http://127.0.0.1:{service.settings.sandbox_port}/, shows the attempts.",
    )
    if delivery["status"] != "processed":
        raise click.ClickException(f"The callback of {task_id} is {delivery['status']}: {delivery['reason']}")
    with service.reader.begin() as connection:
        annotations = list_annotations(connection, task_id, {}, limit=MAX_ANNOTATIONS).rows
    counts = Counter((row["type"], row["label"]) for row in annotations)
    listed = ", ".join(f"{number} × {type_} {label}" for (type_, label), number in counts.items())
    print_step(
        step,
        f"{title}: {delivery['event']}, {len(annotations)} annotations ({listed}), delivery {delivery['id']}",
    )


def await_follow_up(service: Service, task_id: str) -> Record:
    """Return the follow-up of a task once its own task was created. Raises ClickException."""

    def created() -> Record | None:
        with service.reader.begin() as connection:
            found = first_follow_up(connection, task_id)
        if found is None:
            return None
        if found["state"] in ("held", "failed", "skipped"):
            raise click.ClickException(
                f"The follow-up {found['unique_id']} is {found['state']}: {found['reason']}"
            )
        return dict(found) if found["task_id"] else None

    return wait_for(
        created,
        STEP_TIMEOUT_SECONDS,
        f"no follow-up of {task_id} was created. Is a worker running, and is DEMONSTRATION set, as `make run` sets it?"
        " `weighbridge doctor` and"
        f" `weighbridge workflows explain {task_id}` show details.",
    )


def wait_for(find: Callable[[], Found | None], seconds: float, otherwise: str) -> Found:
    """Return the first true result of `find`. Raises ClickException after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > until:
            raise click.ClickException(f"After {seconds:.0f} s {otherwise}")
        time.sleep(POLL_SECONDS)
    return found
