"""A running service in which each documented command makes sense, and the values of the placeholders of the pages."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import requests
from click.testing import CliRunner, Result
from sqlalchemy import Insert, Update, insert, update

from app.commands.main import make_main
from models import Backfill, FollowUp, Job
from pipeline.db.ids import new_id, utcnow
from pipeline.jobs import kinds
from sandbox.examples import EXAMPLES
from tests.factories.pictures import Pictures
from tests.factories.services import open_on
from tests.reliability.load import rows
from tests.servers import wait_until
from tests.service import ROOT, Service

MASK = json.loads((ROOT / "tests/payloads/segmentannotation/extended_indexes.json").read_text())
ASK = {
    "type": "categorization",
    "params": {
        "instruction": "?",
        "attachment_type": "image",
        "attachment": "${{ task.params.attachment }}",
        "categories": ["yes"],
    },
}
LABEL = {"type": "annotation", "params": {"attachment": "${{ row.image }}", "objects_to_annotate": ["car"]}}


def _after(type_: str, **keys: Any) -> dict[str, Any]:
    return {"after": {"type": type_}, "create": ASK, **keys}


WORKFLOWS: dict[str, dict[str, Any]] = {
    "boxes": {"draw": _after("polygonannotation")},
    "approve-first": {"ask": _after("polygonannotation", hold=True)},
    "second-person": {"check": _after("imageannotation")},
    "street": {"boxes": _after("lineannotation"), "agreed": _after("pointannotation")},
    "three-labels": {"label": {"start": {"columns": ["image"]}, "create": LABEL}},
}
"""The workflows and steps that the pages name, in their smallest form."""


class Prepared:
    """A service with a finished chain of tasks, a quarantined delivery, a dataset, and held, failed and dead work."""

    def __init__(self, folder: Path, migrated: Path) -> None:
        self.folder = folder
        self.database_url, self.empty_url = (
            f"sqlite:///{shutil.copyfile(migrated, folder / name)}" for name in ("used.db", "empty.db")
        )
        self.pictures = Pictures()
        self.receiver = f"http://{self.pictures.host}/street.png"
        """Takes the webhooks that the pages send to example.com."""
        self.workflows = folder / "workflows"
        self.workflows.mkdir()
        for name, steps in WORKFLOWS.items():
            (self.workflows / f"{name}.yaml").write_text(json.dumps({"workflow": name, "steps": steps}))
        hosts = {"ATTACHMENT_HOSTS": self.pictures.host, "SUBSCRIBER_HOSTS": self.pictures.host}
        self.service = Service(folder, self.database_url, env={"WORKFLOWS_DIR": str(self.workflows), **hosts})
        self.env = self.service.env

    def __enter__(self) -> Self:
        self.service.start()
        finished_task(self)
        assert self.weighbridge("datasets", "create", "street").exit_code == 0
        return self

    def __exit__(self, *_: object) -> None:
        self.service.__exit__()
        self.pictures.peer.__exit__()

    def weighbridge(self, *words: str, **env: str) -> Result:
        """Run a command in this process, as the console script does. Its questions are answered with yes."""
        runner = CliRunner(env={**self.env, **env})
        return runner.invoke(make_main(), words, input="y\ny\n", prog_name="weighbridge")

    def value(self, statement: str) -> str:
        """Return the first value of a query, waited for."""
        (found, *_), *_ = wait_until(lambda: rows(self.database_url, statement), 60, statement)
        return str(found)

    def execute(self, statement: Insert | Update) -> None:
        """Write what would take hours to come about."""
        service = open_on(self.database_url)
        with service.engine.begin() as connection:
            connection.execute(statement)
        service.engine.dispose()

    def resume(self) -> None:
        """Undo what a page before has paused or slowed down."""
        for words in UNDOING:
            assert self.weighbridge(*words.split()).exit_code == 0, words

    def post_task(self) -> str:
        """Create a polygon task at the sandbox. Return its task_id."""
        answer = requests.post(
            f"{self.service.sandbox_url}/task/polygonannotation",
            json={
                **EXAMPLES["polygonannotation"],
                "attachment": self.pictures.url,
                "callback_url": f"{self.service.web_url}/callbacks/scale",
            },
            auth=(self.env["SCALE_API_KEY"], ""),
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["task_id"])


UNDOING = (
    "jobs dismiss --dead --reason done",
    "creation resume",
    "workflows resume boxes",
    "sandbox faults --off",
    "sandbox behavior --speed instant --no-reviews --no-confidences",
)


# Each brings about one state, and returns the id that a page has a placeholder for.


def finished_task(prepared: Prepared) -> str:
    """Have a task completed, and the one that follows it."""
    prepared.resume()
    task_id = prepared.post_task()
    prepared.value(
        f"SELECT 1 FROM follow_ups WHERE workflow = 'boxes' AND state = 'completed' AND source_task_id = '{task_id}'"
    )
    return task_id


def pending_task(prepared: Prepared) -> str:
    prepared.weighbridge("sandbox", "behavior", "--speed", "manual")
    return prepared.post_task()


def newest_task(prepared: Prepared) -> str:
    """Return the task that was submitted last, once its files are there."""
    pending = "SELECT task_id FROM artifacts WHERE state = 'pending'"
    return prepared.value(
        f"SELECT task_id FROM tasks WHERE task_id NOT IN ({pending}) ORDER BY id DESC LIMIT 1"
    )


def quarantined_delivery(prepared: Prepared) -> str:
    answer = prepared.service.post_callback(new_id().hex.encode())
    return str(answer.json()["delivery_id"])


def failed_artifact(prepared: Prepared) -> str:
    """Receive a result whose file is at a host that is not allowed."""
    task_id = new_id().hex
    body = {**MASK, "task_id": task_id, "task": {**MASK["task"], "task_id": task_id}}
    prepared.service.post_callback(json.dumps(body).encode())
    return prepared.value(f"SELECT id FROM artifacts WHERE state = 'failed' AND task_id = '{task_id}'")


def dead_job(prepared: Prepared) -> str:
    """Enqueue a job as one that has used up its attempts."""
    job_id, now, task_id = new_id(), utcnow(), newest_task(prepared)
    job = {"kind": kinds.PLAN, "key": task_id, "subject": task_id, "state": "dead", "last_error": "lost"}
    prepared.execute(insert(Job).values(id=job_id, run_at=now, created_at=now, **job))
    return str(job_id)


def running_backfill(prepared: Prepared) -> str:
    """Let the newest backfill run, which a command of the page has started."""
    prepared.execute(update(Backfill).values(state="running"))
    return prepared.value("SELECT id FROM backfills ORDER BY id DESC LIMIT 1")


def follow_up(state: str) -> Callable[[Prepared], str]:
    """Return a function that has a follow-up in this state."""

    def one(prepared: Prepared) -> str:
        finished_task(prepared)
        unique_id = prepared.value(HELD)
        prepared.execute(update(FollowUp).where(FollowUp.unique_id == unique_id).values(state=state))
        return unique_id

    return one


def newest(table: str) -> Callable[[Prepared], str]:
    """Return a function that returns the newest row of a table, which a command of the page has made."""
    return lambda prepared: prepared.value(f"SELECT id FROM {table} ORDER BY id DESC LIMIT 1")


HELD = "SELECT unique_id FROM follow_ups WHERE state = 'held' ORDER BY id DESC LIMIT 1"
Value = Callable[[Prepared], str]
PLACEHOLDERS: tuple[tuple[str, str, Value], ...] = (
    ("sandbox", "TASK", pending_task),
    ("deliveries", "ID", quarantined_delivery),
    ("artifacts", "ID", failed_artifact),
    ("jobs", "ID", dead_job),
    ("follow-ups approve", "ID", follow_up("held")),
    ("follow-ups retry", "ID", follow_up("failed")),
    ("follow-ups replan", "boxes.draw.5774cc78b01249ab09f089dd", follow_up("skipped")),
    ("subscribers", "ID", newest("subscribers")),
    ("subscribers", "NOTIFICATION", newest("notifications")),
    ("backfills", "ID", running_backfill),
    ("tasks tree", "TASK", newest_task),
    ("workflows explain", "TASK", newest_task),
    ("", "TASK", finished_task),
    ("", "TASK_ID", finished_task),
    ("", "5f10aa0700c4e10017d2aa07", finished_task),
    ("", "INPUT", newest_task),
    ("tasks submit", "NAME", lambda _: "three-labels"),
    ("", "NAME", lambda _: "boxes"),
    ("", "WORKFLOW", lambda _: "boxes"),
    ("", "FORMAT", lambda _: "coco"),
    ("", "OUT", lambda _: "out/inline"),
    ("tasks submit FILE --workflow", "FILE", lambda _: "images.jsonl"),
    ("", "FILE", lambda _: "first.jsonl"),
    ("", "/backups/weighbridge", lambda prepared: str(prepared.folder / "backup")),
    ("", "/app/var/backup", lambda prepared: str(prepared.folder / "backup")),
)
"""A beginning of a command, a word in it, and what brings about its value. The first that fits counts."""
