"""Kill and freeze everything at random while results arrive, then account for each of them.

`make soak MINUTES=10` runs it on both databases, MINUTES on each. The account is judged from outside: what the senders were
answered against the rows, and the follow-ups that must exist against the sandbox's own list of tasks.
"""

import argparse
import contextlib
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.db.migrations import migrate
from sandbox.pytest_plugin import ScaleSandbox
from tests.reliability.load import Sender, rows
from tests.servers import OwnPostgres, OwnRedis, start_postgres, start_redis, wait_until
from tests.service import Service

DATABASES = ("sqlite", "postgresql")
SENDERS, PAUSE_SECONDS = 2, 0.25
MIN_FAULTS = 60
SETTLE_SECONDS = 300
ENV = {
    "LEASE_SECONDS": "3",
    "SWEEP_SECONDS": "0.5",
    "WEB_CONCURRENCY": "2",
    "RECONCILE_EVERY_SECONDS": "5",
}
SANDBOX_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("duplicated", {"share": 0.1}),
    ("delayed", {"share": 0.05, "seconds": 1.0}),
    ("reordered", {"share": 0.05, "seconds": 1.0}),
    ("dropped", {"share": 0.02}),
    ("wrong_key", {"share": 0.05}),
    ("no_key", {"share": 0.02}),
    ("repeated", {"share": 0.1}),
    ("volatile", {"share": 0.1}),
    ("reset_after_sending", {"share": 0.05}),
    ("slow_body", {"share": 0.02, "seconds": 0.5}),
    ("chunked", {"share": 0.1}),
    ("throttled", {"share": 0.02}),
    ("error_before", {"share": 0.05}),
    ("error_after", {"share": 0.05}),
    ("hang_after", {"share": 0.01, "seconds": 3.0}),
    ("reset", {"share": 0.03}),
    ("reset_after", {"share": 0.03}),
    ("callback_first", {"share": 0.05}),
)


class Soak:
    """A service under load on one database, and the faults that can be injected into it."""

    def __init__(
        self, service: Service, redis: OwnRedis, postgres: OwnPostgres | None, chance: random.Random
    ):
        self.service, self.redis, self.postgres, self.chance = service, redis, postgres, chance
        self.url = service.env["DATABASE_URL"]
        self.sandbox = ScaleSandbox(service.sandbox_url.removesuffix("/v1"), None)  # type: ignore[arg-type]
        self.injected: Counter[str] = Counter()

    def faults(self) -> dict[str, Callable[[], None]]:
        """Return the faults by name. Each one ends before it returns."""
        chance, service = self.chance, self.service
        found: dict[str, Callable[[], None]] = {
            "SIGKILL web": lambda: self.kill("web"),
            "SIGKILL one web worker": lambda: service.kill_child("web", chance.randrange(2)),
            "SIGKILL worker": lambda: self.kill("worker"),
            "SIGKILL one process of the worker": lambda: service.kill_child("worker", chance.randrange(2)),
            "SIGTERM web": lambda: self.terminate("web"),
            "SIGTERM worker": lambda: self.terminate("worker"),
            "SIGKILL Redis": lambda: self.while_away(self.redis),
            "SIGKILL worker and Redis": self.kill_worker_and_redis,
            "FLUSHALL": self.empty_redis,
            "Redis out of memory": self.fill_redis,
            "SIGSTOP web": lambda: self.while_frozen(service.processes["web"]),
            "SIGSTOP worker": lambda: self.while_frozen(service.processes["worker"]),
            "SIGSTOP Redis": lambda: self.while_frozen(self.redis),
            "SIGSTOP sandbox": lambda: self.while_frozen(service.processes["sandbox"]),
        }
        if postgres := self.postgres:
            found["SIGKILL PostgreSQL"] = lambda: self.while_away(postgres)
            found["SIGSTOP PostgreSQL"] = lambda: self.while_frozen(postgres)
            found["connections to PostgreSQL closed"] = lambda: postgres.close_connections("weighbridge")
        else:
            found["SQLite locked"] = self.lock_sqlite
        return found

    def inject(self, name: str) -> None:
        self.ensure_processes()
        self.faults()[name]()
        self.injected[name] += 1
        self.ensure_processes()

    def ensure_processes(self) -> None:
        """Start what has ended, as a platform does."""
        for name in ("web", "worker"):
            if not self.service.processes[name].running:
                self.service.start(name)

    def kill(self, name: str) -> None:
        self.service.kill(name)
        self.service.start(name)

    def terminate(self, name: str) -> None:
        self.service.stop(name)
        self.service.start(name)

    def pause(self) -> None:
        time.sleep(self.chance.uniform(0.2, 4))

    def while_away(self, server: OwnRedis | OwnPostgres) -> None:
        server.kill()
        self.pause()
        server.start()

    def while_frozen(self, process: Any) -> None:
        process.freeze()
        self.pause()
        process.thaw()

    def kill_worker_and_redis(self) -> None:
        self.service.kill("worker")
        self.while_away(self.redis)
        self.service.start("worker")

    def empty_redis(self) -> None:
        with self.redis.client() as client:
            client.flushall()

    def fill_redis(self) -> None:
        with self.redis.client() as client:
            client.config_set("maxmemory", 1)
            self.pause()
            client.config_set("maxmemory", 0)

    def lock_sqlite(self) -> None:
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30)) as holder:
            holder.isolation_level = None
            holder.execute("BEGIN IMMEDIATE")
            self.pause()
            holder.execute("ROLLBACK")

    def run(self, seconds: float) -> dict[str, Any]:
        """Send results and inject faults for that long, wait until nothing is left to do, and return the account."""
        senders = [Sender(self.service, PAUSE_SECONDS, first=1 + n * 1_000_000) for n in range(SENDERS)]
        for name, settings in SANDBOX_FAULTS:
            self.sandbox.add_fault(name, **settings)
        for sender in senders:
            sender.start()
        start = time.monotonic()
        while (spent := time.monotonic() - start) < seconds:
            for name in self.chance.sample(sorted(self.faults()), len(self.faults())):
                print(f"{spent:6.1f} s  {name}", flush=True)
                self.inject(name)
                time.sleep(self.chance.uniform(0, 2))
                if (spent := time.monotonic() - start) > seconds:
                    break
        for sender in senders:
            sender.ending.set()
        for sender in senders:
            sender.join(60)
        try:
            wait_until(self.is_settled, SETTLE_SECONDS)
        except AssertionError as error:
            print(f"Not everything was done: {error}")
            print(
                *rows(self.url, "SELECT kind, state, attempts, run_at, last_error FROM jobs LIMIT 20"),
                sep="\n",
            )
        return self.account(senders)

    def is_settled(self) -> bool:
        """Return whether every follow-up is completed and nothing but the regular reconcile is left to do."""
        self.ensure_processes()
        jobs = rows(self.url, "SELECT count(*) FROM jobs WHERE kind != 'reconcile'")[0][0]
        unfinished = rows(self.url, "SELECT count(*) FROM follow_ups WHERE state != 'completed'")[0][0]
        return not jobs and not unfinished

    def account(self, senders: list[Sender]) -> dict[str, Any]:
        acknowledged = {
            task: delivery for sender in senders for task, delivery in sender.acknowledged.items()
        }
        stored = {
            task: delivery.replace("-", "")
            for task, delivery in rows(
                self.url, "SELECT task_id, CAST(id AS VARCHAR(36)) FROM deliveries WHERE status = 'processed'"
            )
            if task in acknowledged
        }
        created = Counter(task["unique_id"] for task in self.sandbox.tasks() if "unique_id" in task)
        expected = {f"polygons-to-boxes.boxes.{task}" for task in acknowledged}
        twice_read = rows(self.url, "SELECT task_id FROM responses GROUP BY task_id HAVING count(*) > 1")
        callbacks = [attempt for sent in self.sandbox.callbacks() for attempt in sent["attempts"]]
        lost = [
            task for task, delivery in acknowledged.items() if stored.get(task) != delivery.replace("-", "")
        ]
        completed = rows(self.url, "SELECT count(*) FROM follow_ups WHERE state = 'completed'")[0][0]
        return {
            "faults injected": self.injected.total(),
            "faults of the sandbox": sum(
                rule["hits"] for rule in self.sandbox.call("GET", "/sandbox/api/faults")["rules"]
            ),
            "posted": sum(sender.posted for sender in senders) + len(callbacks),
            "acknowledged": len(acknowledged) + sum(attempt["status"] == 200 for attempt in callbacks),
            "results acknowledged": len(acknowledged),
            "results stored": len(stored),
            "follow-ups created": created.total(),
            "follow-ups completed": completed,
            "lost": len(lost) + len(expected - created.keys()) + (len(expected) - completed),
            "twice": created.total() - len(created) + len(twice_read) + len(created.keys() - expected),
            "unexpected answers": sum(len(sender.failures) for sender in senders),
        }


@contextlib.contextmanager
def soak_on(database: str, folder: Path, chance: random.Random) -> Iterator[Soak]:
    """Start the whole service on a database of its own."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(start_redis())
        postgres = stack.enter_context(start_postgres()) if database == "postgresql" else None
        url = (
            postgres.create_database("weighbridge").replace("postgresql:", "postgresql+psycopg:")
            if postgres
            else f"sqlite:///{folder}/weighbridge.db"
        )
        migrate(url)
        service = stack.enter_context(Service(folder, url, redis.url, env=ENV))
        yield Soak(service, redis, postgres, chance)


def main() -> int:
    """Run the soak. Return 1 if anything was lost, made twice, or answered with other than 200 or 503."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=10, help="how long to inject faults, on each database"
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(2**32), help="repeat the faults of a run"
    )
    parser.add_argument("--database", choices=DATABASES, action="append", help="default: both")
    given = parser.parse_args()
    failed = False
    for database in given.database or DATABASES:
        print(f"{database}, {given.minutes:g} minutes, seed {given.seed}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="weighbridge-soak-"))
        with soak_on(database, folder, random.Random(given.seed)) as soak:
            account = soak.run(given.minutes * 60)
            too_few = given.minutes >= 10 and account["faults injected"] < MIN_FAULTS
            bad = too_few or any(account[name] for name in ("lost", "twice", "unexpected answers"))
            if bad:
                print(soak.service.logs())
        print(*(f"{name:24}{count:8,}" for name, count in account.items()), "", sep="\n", flush=True)
        if bad:
            print(f"Failed. The logs and the SQLite file are in {folder}.")
            failed = True
        else:
            shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
