"""A pipeline without processes of its own but the stand-in for Scale: callbacks are handed in, jobs are run by a call."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import update

from models import FollowUp, Job, Join
from pipeline.db.dialect import from_now
from pipeline.jobs import queue
from pipeline.receive.receive import Receipt
from pipeline.service import Service
from sandbox.pytest_plugin import ScaleSandbox
from tests.assertions import table
from tests.factories.callbacks import callback, receive_callback
from workers.runner import run_due_jobs

ROOT = "5f1e9b000000000000000001"
Steps = dict[str, Any]

QUESTION = {
    "instruction": "Good?",
    "attachment_type": "text",
    "attachment": "${{ task.task_id }}",
    "categories": ["yes", "no"],
}


def asks(**keys: Any) -> Steps:
    """A step that asks one question about each image that was annotated."""
    return {
        "after": {"type": "imageannotation"},
        "create": {"type": "categorization", "params": QUESTION},
        **keys,
    }


EACH = asks(for_each="annotation")
"""One question about each annotation."""


class Pipeline:
    """One service, its workflow files, and Scale, whose people answer only when a test says so."""

    def __init__(self, service: Service, sandbox: ScaleSandbox, folder: Path) -> None:
        self.service, self.sandbox, self.folder = service, sandbox, folder

    def workflow(self, steps: Steps, name: str = "w", **keys: Any) -> None:
        """Write a workflow file; it is read at once."""
        self.write(json.dumps({"workflow": name, "steps": steps, **keys}), name)

    def write(self, text: str, name: str = "w") -> None:
        (self.folder / f"{name}.yaml").write_text(text)

    def receive(self, response: Any = None, **fields: Any) -> Receipt:
        """A callback of the first task, and whatever follows from it."""
        receipt = receive_callback(self.service, callback(response, **fields))
        self.work()
        return receipt

    def finish(self, task_id: str, response: Any = None) -> None:
        """A task is answered at Scale, and the callback comes."""
        self.sandbox.complete(task_id, response)
        self.tell(task_id)
        self.work()

    def tell(self, task_id: str) -> None:
        """The callback of a task as it stands at Scale."""
        task = self.sandbox.task(task_id)
        body = {"task": task, "task_id": task_id}
        if "response" in task:
            body["response"] = task["response"]
        receive_callback(self.service, json.dumps(body).encode())

    def work(self) -> None:
        """Run every job that is due."""
        while self.due():
            run_due_jobs(self.service)

    def work_with(self, workers: int) -> None:
        """The same with several workers at once."""
        threads = [threading.Thread(target=self.work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def due(self) -> bool:
        """Whether there is a job that a worker would take now."""
        with self.service.reader.begin() as connection:
            return bool(queue.due(connection, 1, self.service.paused_queues.runnable()))

    def skip_waiting(self) -> None:
        """Whatever waits for its time is due now, and done."""
        self.service.paused_queues.resume_all()
        with self.service.engine.begin() as connection:
            connection.execute(update(Job).where(Job.state == "ready").values(run_at=from_now()))
        self.work()

    def jobs(self) -> list[dict[str, Any]]:
        return table(self.service, Job)

    def follow_ups(self) -> dict[str, dict[str, Any]]:
        """By unique_id, in the order in which they were planned."""
        rows = sorted(table(self.service, FollowUp), key=lambda row: row["id"])
        return {row["unique_id"]: row for row in rows}

    def states(self) -> dict[str, str]:
        return {unique_id: row["state"] for unique_id, row in self.follow_ups().items()}

    def joins(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in table(self.service, Join)}

    def at_scale(self) -> dict[str, dict[str, Any]]:
        """Every task that Scale has, by unique_id."""
        return {task.get("unique_id", task["task_id"]): task for task in self.sandbox.tasks()}

    def children(self, step: str) -> Iterator[str]:
        """task_ids of what a step has created, in the order of their unique_ids."""
        for _, row in sorted(self.follow_ups().items()):
            if row["step"] == step and row["task_id"]:
                yield row["task_id"]
