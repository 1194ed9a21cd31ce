"""Who sends results under every trouble, and who judges from outside what became of them."""

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import create_engine, text

from tests.servers import wait_until
from tests.service import Service

PAYLOAD = json.loads((Path(__file__).parent.parent / "payloads/polygonannotation/polygons.json").read_text())


class Sender(threading.Thread):
    """Posts distinct results one after another and, as Scale does, posts each again until it is acknowledged."""

    def __init__(self, service: Service, pause: float, first: int = 1) -> None:
        super().__init__(daemon=True)
        self.service, self.pause, self.first = service, pause, first
        self.key = service.env["SCALE_LIVE_CALLBACK_KEYS"]
        self.acknowledged: dict[str, str] = {}  # task_id → delivery_id
        self.posted = 0  # tries, answered or not
        self.ending = threading.Event()
        self.failures: list[str] = []

    def run(self) -> None:
        for number in count(self.first):
            if self.ending.is_set():
                return
            task_id = f"{number:024x}"
            body = json.dumps(
                PAYLOAD | {"task_id": task_id, "task": PAYLOAD["task"] | {"task_id": task_id}}
            ).encode()
            while True:
                self.posted += 1
                try:
                    answer = self.service.post_callback(body, self.key)
                except (
                    requests.RequestException
                ):  # its process was killed: was it kept? Scale can't know either
                    time.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    self.acknowledged[task_id] = answer.json()["delivery_id"]
                    break
                if answer.status_code != 503:
                    self.failures.append(f"{answer.status_code}: {answer.text}")
                time.sleep(0.05)
            time.sleep(self.pause)


def rows(database_url: str, statement: str) -> list[Any]:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.connect() as connection:
            return list(connection.execute(text(statement)).all())
    finally:
        engine.dispose()


def sandbox_tasks(service: Service) -> list[dict[str, Any]]:
    """Every task that the stand-in for Scale has, through its own API."""
    found, token = [], None
    while True:
        query = {"next_token": token} if token else {}
        page = requests.get(
            f"{service.sandbox_url}/tasks", query, auth=(service.env["SCALE_API_KEY"], ""), timeout=30
        )
        found += page.json()["docs"]
        if not page.json()["has_more"]:
            return found
        token = page.json()["next_token"]


class Customer:
    """A customer whose polygon tasks are completed one after another. Records the answers and the expected follow-ups."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.kept: dict[str, str] = {}  # task_id → delivery_id

    def send(self, count: int) -> None:
        """Send a number of results; each is answered with 200."""
        for _ in range(count):
            task_id = f"{len(self.kept) + 1:024x}"
            body = PAYLOAD | {"task_id": task_id, "task": PAYLOAD["task"] | {"task_id": task_id}}
            answer = self.service.post_callback(json.dumps(body).encode())
            assert answer.status_code == 200, answer.text
            self.kept[task_id] = answer.json()["delivery_id"]

    def answer_for(self, senders: Sequence[Sender], least: int = 1) -> None:
        """The senders end once they have sent enough; every answer was 200 or 503, and what they sent is this customer's."""
        wait_until(
            lambda: sum(len(sender.acknowledged) for sender in senders) >= least, 60, "they sent enough"
        )
        for sender in senders:
            sender.ending.set()
        for sender in senders:
            sender.join(60)
            assert (sender.failures, sender.is_alive()) == ([], False)
            self.kept |= sender.acknowledged

    def is_served(self) -> bool:
        """Whether every follow-up was created, finished and received; a worker that has ended is started again."""
        if not self.service.processes["worker"].running:
            self.service.start("worker")
        states = Counter(
            state for (state,) in rows(self.service.env["DATABASE_URL"], "SELECT state FROM follow_ups")
        )
        return states == {"completed": len(self.kept)}

    def is_creating(self) -> bool:
        """Whether a worker has begun to create the follow-up of the last result, and has not recorded it."""
        key = f"create:polygons-to-boxes.boxes.{list(self.kept)[-1]}"
        state = f"SELECT state FROM jobs WHERE key = '{key}'"
        return rows(self.service.env["DATABASE_URL"], state) == [("running",)]

    def wait(self, seconds: float = 60) -> None:
        wait_until(self.is_served, seconds, "every follow-up is completed")

    def check(self) -> None:
        """Nothing was lost, and nothing created twice."""
        self.wait()
        stored = rows(
            self.service.env["DATABASE_URL"],
            "SELECT task_id, CAST(id AS VARCHAR(36)) FROM deliveries WHERE status = 'processed'",
        )
        found = {task_id: delivery_id.replace("-", "") for task_id, delivery_id in stored}
        assert {name: found.get(name) for name in self.kept} == {
            name: delivery_id.replace("-", "") for name, delivery_id in self.kept.items()
        }
        created = Counter(task["unique_id"] for task in sandbox_tasks(self.service) if "unique_id" in task)
        assert created == {f"polygons-to-boxes.boxes.{task_id}": 1 for task_id in self.kept}
        jobs = "SELECT count(*) FROM jobs"
        wait_until(lambda: rows(self.service.env["DATABASE_URL"], jobs)[0][0] == 0, what="no job is left")
