"""SIGKILL at random instants, under load: nothing that was acknowledged is lost, and no task is created twice.

Judged from outside: the acknowledged delivery ids against the rows, and the wanted follow-ups against the sandbox's list.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import create_engine, text

from tests.servers import OwnRedis, wait_until
from tests.service import Service

KILLS = 50
PAYLOAD = json.loads((Path(__file__).parent.parent / "payloads/polygonannotation/polygons.json").read_text())


class Sender(threading.Thread):
    """Posts distinct results one after another and, as Scale does, posts each again until it is acknowledged."""

    def __init__(self, service: Service, pause: float, first: int = 1) -> None:
        super().__init__(daemon=True)
        self.service, self.pause, self.first = service, pause, first
        self.key = service.env["SCALE_LIVE_CALLBACK_KEYS"]
        self.acknowledged: dict[str, str] = {}  # task_id → delivery_id
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_at_fifty_instants_lose_nothing_and_create_nothing_twice(
    database_url: str, own_redis: OwnRedis, service: Callable[..., Service]
) -> None:
    chance = random.Random(20260302)
    one = service(
        database_url,
        own_redis.url,
        env={"LEASE_SECONDS": "3", "SWEEP_SECONDS": "0.5", "WEB_CONCURRENCY": "2"},
    )

    def restart(name: str) -> None:
        one.kill(name)
        one.start(name)

    def restart_redis() -> None:
        own_redis.kill()
        time.sleep(chance.uniform(0, 1))
        own_redis.start()

    kills: dict[str, Callable[[], None]] = {
        "web": lambda: restart("web"),
        "a web worker": lambda: one.kill_child("web", chance.randrange(2)),
        "worker": lambda: restart("worker"),
        "a worker's child": lambda: one.kill_child("worker", chance.randrange(2)),
        "redis": restart_redis,
    }
    order = [name for name in kills for _ in range(KILLS // len(kills))]
    chance.shuffle(order)
    sender = Sender(one, pause=0.05)
    sender.start()
    for name in order:
        time.sleep(chance.uniform(0.05, 0.6))
        kills[name]()
        if not one.processes["worker"].running:  # its main process leaves when the broker is gone for good
            one.start("worker")
    assert len(order) == KILLS
    sender.ending.set()
    sender.join(60)
    assert not sender.is_alive()
    assert sender.failures == []

    def settled() -> bool:
        if not one.processes["worker"].running:
            one.start("worker")
        open_jobs = rows(database_url, "SELECT count(*) FROM jobs")[0][0]
        open_follow_ups = rows(database_url, "SELECT count(*) FROM follow_ups WHERE state != 'completed'")[0][
            0
        ]
        return bool(open_jobs == 0 and open_follow_ups == 0)

    try:
        wait_until(settled, 180, "every job is done and every follow-up completed")
    except AssertionError:
        for statement in (
            "SELECT kind, state, attempts, run_at, last_error FROM jobs LIMIT 10",
            "SELECT state, reason, count(*) FROM follow_ups GROUP BY state, reason",
        ):
            print(*rows(database_url, statement), sep="\n")
        raise

    kept = dict(
        rows(
            database_url, "SELECT task_id, CAST(id AS VARCHAR(36)) FROM deliveries WHERE status = 'processed'"
        )
    )
    lost = {
        task_id: delivery_id
        for task_id, delivery_id in sender.acknowledged.items()
        if kept.get(task_id, "").replace("-", "") != delivery_id.replace("-", "")
    }
    assert lost == {}
    created = Counter(task.get("unique_id") for task in sandbox_tasks(one) if task["type"] == "annotation")
    wanted = Counter(f"polygons-to-boxes.boxes.{task_id}" for task_id in sender.acknowledged)
    assert created == wanted
    assert len(wanted) > KILLS
    print(f"{KILLS} kills, {len(wanted)} results acknowledged, {created.total()} tasks created")
