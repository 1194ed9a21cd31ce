"""`flask demo`: one polygon task goes through the running service and its sandbox, and every step of it is told."""

from __future__ import annotations

import io
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import requests
from flask.cli import with_appcontext
from PIL import Image, ImageDraw
from sqlalchemy import Row, select

from app.commands.group import Command, service
from models import Annotation, Delivery, FollowUp, Task
from pipeline.follow_ups.recording import missing_setting
from pipeline.service import Service
from scale.client import Client, ScaleError

STEP_SECONDS = 30.0
START_SECONDS = 60.0
LOOK_SECONDS = 0.05
ENVIRONMENT = "live"

Found = TypeVar("Found")


@click.command(cls=Command)
@with_appcontext
def demo() -> None:
    """Send one polygon task through the running service, and tell each step up to the finished box task."""
    of = service()
    client = client_of_the_sandbox(of)
    await_start(of, client)
    started = time.monotonic()
    marker = f"demo-{secrets.token_hex(4)}"
    polygons = create_polygon_task(of, client, marker)
    say(1, f"A polygon task is created at the sandbox: {polygons} (unique_id {marker})")
    tell_callback(of, 2, polygons, "Its callback is received")
    follow_up = await_follow_up(of, polygons)
    layers = (follow_up.request.get("layers") or {}).items()
    shown = ", ".join(f"{len(members)} {name}" for name, members in layers) or "nothing"
    say(3, f"A box task follows: {follow_up.task_id} (unique_id {follow_up.unique_id}, layers: {shown})")
    tell_callback(of, 4, follow_up.task_id, "The box task's callback is received")
    click.echo(f"The whole way took {time.monotonic() - started:.1f} s. To read what was kept:")
    click.echo(
        f"  curl -H 'Authorization: Bearer {of.settings.api_token}'"
        f" http://127.0.0.1:{of.settings.port}/api/v1/tasks/{polygons}"
    )


def say(step: int, what: str) -> None:
    click.echo(f"{step}. {what}")


def client_of_the_sandbox(of: Service) -> Client:
    """Raises ClickException where the tasks would be Scale's, and cost money, or could not be followed."""
    host = urlsplit(of.settings.scale_api_url).hostname or ""
    if host.endswith(("scale.com", "scaleapi.com")):
        raise click.ClickException(
            f"SCALE_API_URL is {of.settings.scale_api_url}: there the demonstration would cost money."
            " Start it beside `make run`, which has a sandbox."
        )
    if what := missing_setting(of, ENVIRONMENT):
        raise click.ClickException(f"{what}. Start the demonstration beside `make run`, which sets it.")
    client = of.client(ENVIRONMENT)
    assert client is not None  # missing() has looked
    return client


def await_start(of: Service, client: Client) -> None:
    """Until web and sandbox answer."""

    def answered() -> bool:
        try:
            client.list_tasks(limit=1)
            return requests.get(f"http://127.0.0.1:{of.settings.port}/livez", timeout=2).ok
        except (ScaleError, requests.RequestException):
            return False

    look_for(
        answered,
        START_SECONDS,
        f"no answer from the web process on port {of.settings.port} and the sandbox at {of.settings.scale_api_url}."
        " Does `make run` run?",
    )


def create_polygon_task(of: Service, client: Client, marker: str) -> str:
    """The task_id of a new polygon task, on a picture that the sandbox keeps."""
    uploaded = requests.post(
        f"{of.settings.scale_api_url}/files/upload",
        auth=(of.settings.scale_key(ENVIRONMENT) or "", ""),
        files={"file": ("street.png", street(), "image/png")},
        timeout=15,
    )
    uploaded.raise_for_status()
    request = {
        "callback_url": of.settings.callback_url,
        "unique_id": marker,
        "instruction": "Outline every **car** and **pedestrian**",
        "attachment_type": "image",
        "attachment": f"{of.settings.scale_api_url.removesuffix('/v1')}/files/{uploaded.json()['id']}",
        "objects_to_annotate": ["car", "pedestrian"],
        "with_labels": True,
        "metadata": {"made_by": "flask demo"},
    }
    return str(client.create_task("polygonannotation", request)["task_id"])


def street() -> bytes:
    """A small picture with something to outline, as PNG."""
    picture = Image.new("RGB", (640, 360), "#9ec5e8")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 220, 640, 360), fill="#6b6b6b")
    for left, colour in ((70, "#b3261e"), (350, "#1e5fb3")):
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


def tell_callback(of: Service, step: int, task_id: str, what: str) -> None:
    """Wait for the callback of a task, and tell what was understood of it."""

    def received() -> Row[Any] | None:
        with of.reader.begin() as connection:
            return connection.execute(
                select(Delivery.id, Delivery.event, Delivery.status, Delivery.reason, Task.response_id)
                .join(Task, Task.task_id == Delivery.task_id)
                .where(Delivery.task_id == task_id, Delivery.status != "stored")
                .order_by(Delivery.id)
                .limit(1)
            ).one_or_none()

    delivery = look_for(
        received,
        STEP_SECONDS,
        f"no callback for {task_id} came. The sandbox sends it to {of.settings.callback_url};"
        f" its page, http://127.0.0.1:{of.settings.sandbox_port}/, says what became of it.",
    )
    if delivery.status != "processed":
        raise click.ClickException(f"The callback of {task_id} is {delivery.status}: {delivery.reason}")
    with of.reader.begin() as connection:
        rows = connection.execute(
            select(Annotation.type, Annotation.label).where(Annotation.response_id == delivery.response_id)
        ).all()
    counted = ", ".join(
        f"{number} × {type} {label}" for (type, label), number in Counter(map(tuple, rows)).items()
    )
    say(step, f"{what}: {delivery.event}, {len(rows)} annotations ({counted}), delivery {delivery.id}")


def await_follow_up(of: Service, task_id: str) -> Row[Any]:
    """The follow-up of a task, once it has a task of its own."""

    def created() -> Row[Any] | None:
        with of.reader.begin() as connection:
            found = connection.execute(
                select(
                    FollowUp.unique_id, FollowUp.task_id, FollowUp.state, FollowUp.reason, FollowUp.request
                )
                .where(FollowUp.source_task_id == task_id)
                .order_by(FollowUp.id)
                .limit(1)
            ).one_or_none()
        if found is not None and found.state in ("held", "failed", "skipped"):
            raise click.ClickException(f"The follow-up {found.unique_id} is {found.state}: {found.reason}")
        return found if found is not None and found.task_id else None

    return look_for(
        created,
        STEP_SECONDS,
        f"no follow-up of {task_id} was created. Is a worker running, and does a workflow in {of.settings.workflows_dir}"
        f" follow polygonannotation? `flask doctor` and `flask workflows explain {task_id}` say more.",
    )


def look_for(find: Callable[[], Found | None], seconds: float, otherwise: str) -> Found:
    """The first thing that `find` finds. Raises ClickException after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > until:
            raise click.ClickException(f"After {seconds:.0f} s {otherwise}")
        time.sleep(LOOK_SECONDS)
    return found
