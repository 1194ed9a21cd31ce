"""SIGKILL at random instants, under load: nothing that was acknowledged is lost, and no task is created twice.

Judged from outside: the acknowledged delivery ids against the rows, and the wanted follow-ups against the sandbox's list.
"""

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.amounts import amount
from tests.reliability.load import Sender, rows, sandbox_tasks
from tests.servers import OwnRedis, wait_until
from tests.service import Service

KILLS = amount(10, 50)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_at_random_instants_lose_nothing_and_create_nothing_twice(
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

    def ensure_worker() -> None:
        """Start the worker, as a platform does, if Celery has left because it could not close a lost connection."""
        if not one.processes["worker"].running:
            one.start("worker")

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
        ensure_worker()
        kills[name]()
        ensure_worker()
    assert len(order) == KILLS
    wait_until(lambda: len(sender.acknowledged) > KILLS, 60, "there was enough to lose")
    sender.ending.set()
    sender.join(60)
    assert not sender.is_alive()
    assert sender.failures == []

    def settled() -> bool:
        ensure_worker()
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
    print(f"{KILLS} kills, {len(wanted)} results acknowledged, {created.total()} tasks created")
