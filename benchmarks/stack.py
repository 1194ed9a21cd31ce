"""The contenders: bare Flask, the naive version and Weighbridge, as real processes on one PostgreSQL (fsync on) and one
Redis."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import requests

from benchmarks.load import KEY
from pipeline.db.migrations import migrate
from tests.servers import OwnPostgres, OwnRedis, Process, free_port, start_postgres, start_redis, wait_until

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "shared_buffers": "256MB"}


@dataclass
class Servers:
    postgres: OwnPostgres
    redis: OwnRedis
    folder: Path


@contextmanager
def servers() -> Iterator[Servers]:
    with start_postgres(DURABLE) as postgres, start_redis() as redis, tempfile.TemporaryDirectory() as folder:
        yield Servers(postgres, redis, Path(folder))


@dataclass
class Contender:
    """One running service. `stored` returns the number of its tasks and of their annotations."""

    name: str
    port: int
    database_url: str
    tables: tuple[str, str] | None
    processes: list[Process]

    def stored(self) -> tuple[int, int]:
        assert self.tables is not None
        with psycopg.connect(self.database_url) as connection:
            tasks, annotations = (
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore[index,arg-type]
                for table in self.tables
            )
        return tasks, annotations


def _contender(
    servers: Servers, name: str, commands: list[list[str]], tables: tuple[str, str] | None, **env: str
) -> Contender:
    port = free_port()
    servers.redis.empty()
    database = f"bench_{name}_{port}"
    url = servers.postgres.create_database(database)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(servers.folder),
        "LANG": "C.UTF-8",
        "DATABASE_URL": url,
        "REDIS_URL": servers.redis.url,
        "PORT": str(port),
        "SCALE_LIVE_CALLBACK_KEYS": KEY,
        "SCALE_API_KEY": "live_sandbox",
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "CALLBACK_URL": f"http://127.0.0.1:{port}/callbacks/scale",
        "SECRET_KEY": "bench",
        "ARTIFACT_STORE": str(servers.folder / "artifacts"),
        "LOG_LEVEL": "warning",
        "WORKFLOWS_DIR": "tests/workflows/files",
        **env,
    }
    if name == "weighbridge":
        migrate(url.replace("postgresql://", "postgresql+psycopg://"))
    processes = [
        Process(
            [part.replace("PORT", str(port)) for part in command],
            log=servers.folder / f"{database}.{number}.log",
            env=environment,
            cwd=ROOT,
        )
        for number, command in enumerate(commands)
    ]
    if name == "naive":
        made = Process(
            [f"{BIN}/python", "-c", "from benchmarks.naive.app import create_tables; create_tables()"],
            log=servers.folder / "naive.tables.log",
            env=environment,
            cwd=ROOT,
        )
        made.start()
        assert made.popen is not None
        if made.popen.wait():
            raise RuntimeError(made.tail())
    for process in processes:
        process.start()

    def answers() -> bool:
        for process in processes:
            if not process.running:
                raise RuntimeError(f"{name} ended:\n{process.tail()}")
        try:
            requests.get(f"http://127.0.0.1:{port}/callbacks/scale", timeout=2)
        except requests.RequestException:
            return False
        return True

    wait_until(answers, 60, f"{name} answers")
    return Contender(name, port, url, tables, processes)


def _gunicorn(application: str) -> list[str]:
    """Return the command of a web process with two workers and gunicorn's defaults."""
    options = ["-c", "/dev/null", "--no-control-socket", "-w", "2", "-b", "127.0.0.1:PORT"]
    return [f"{BIN}/gunicorn", *options, application]


@contextmanager
def bare(servers: Servers) -> Iterator[Contender]:
    yield from _run(_contender(servers, "bare", [_gunicorn("benchmarks.bare:app")], None))


@contextmanager
def naive(servers: Servers, **env: str) -> Iterator[Contender]:
    web = _gunicorn("benchmarks.naive.app:app")
    worker = [
        f"{BIN}/celery",
        "-A",
        "benchmarks.naive.app:celery",
        "worker",
        "-c",
        "2",
        "--loglevel",
        "WARNING",
    ]
    tables = ("naive_tasks", "naive_annotations")
    yield from _run(_contender(servers, "naive", [web, worker], tables, **env))


@contextmanager
def weighbridge(servers: Servers, **env: str) -> Iterator[Contender]:
    web = [f"{BIN}/gunicorn", "wsgi:app"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    worker = [f"{BIN}/celery", "-A", "workers.celery_app", "worker", "-c", "2", *quiet]
    yield from _run(_contender(servers, "weighbridge", [web, worker], ("tasks", "annotations"), **env))


def _run(contender: Contender) -> Iterator[Contender]:
    try:
        yield contender
    finally:
        for process in contender.processes:
            process.kill()
