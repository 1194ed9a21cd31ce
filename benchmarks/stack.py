"""The contenders: the raw receiver, the naive version and Weighbridge, as real processes on one PostgreSQL (fsync on) and
one Redis."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import requests

from benchmarks.load import KEY
from pipeline.db.migrations import migrate
from tests.servers import (
    OwnPgBouncer,
    OwnPostgres,
    OwnRedis,
    Process,
    free_port,
    start_postgres,
    start_redis,
    wait_until,
)

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "shared_buffers": "256MB"}


@dataclass
class Servers:
    """The database server, the broker and the folder that all contenders share."""

    postgres: OwnPostgres
    redis: OwnRedis
    folder: Path


@contextmanager
def servers() -> Iterator[Servers]:
    """Start what all contenders share."""
    with start_postgres(DURABLE) as postgres, start_redis() as redis, tempfile.TemporaryDirectory() as folder:
        yield Servers(postgres, redis, Path(folder))


@dataclass
class Contender:
    """One running service. `stored` returns the number of its tasks and of their annotations."""

    name: str
    port: int
    database_url: str
    tables: tuple[str, ...]
    processes: list[Process]

    def stored(self) -> list[int]:
        """Return the number of rows in each of its tables."""
        with psycopg.connect(self.database_url) as connection:
            return [
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore[index,arg-type]
                for table in self.tables
            ]

    def memory(self) -> int:
        """Return the bytes of memory that its last process, the worker, and the children of that use alone."""
        worker = psutil.Process(self.processes[-1].pid)
        return sum(one.memory_full_info().pss for one in (worker, *worker.children(recursive=True)))


def cpu_seconds(servers: Servers, contender: Contender) -> float:
    """Return the processor time of a contender and of both servers so far."""
    roots = [
        servers.postgres.process.pid,
        servers.redis.process.pid,
        *(one.pid for one in contender.processes),
    ]
    total = 0.0
    for root in map(psutil.Process, roots):
        for one in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system
    return total


def _contender(
    servers: Servers,
    name: str,
    commands: list[list[str]],
    tables: tuple[str, ...],
    pooler: OwnPgBouncer | None = None,
    **env: str,
) -> Contender:
    port = free_port()
    servers.redis.empty()
    database = f"bench_{name}_{port}"
    url = servers.postgres.create_database(database)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(servers.folder),
        "LANG": "C.UTF-8",
        "DATABASE_URL": pooler.url(database) if pooler else url,
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
    if name in ("weighbridge", "embedded"):
        migrate(environment["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
    else:
        module = {"naive": "benchmarks.naive.app", "raw": "benchmarks.raw"}[name]
        made = Process(
            [f"{BIN}/python", "-c", f"from {module} import create_tables; create_tables()"],
            log=servers.folder / f"{name}.tables.log",
            env=environment,
            cwd=ROOT,
        )
        made.start()
        assert made.popen is not None
        if made.popen.wait():
            raise RuntimeError(made.tail())
    processes = [
        Process(
            [part.replace("PORT", str(port)) for part in command],
            log=servers.folder / f"{database}.{number}.log",
            env=environment,
            cwd=ROOT,
        )
        for number, command in enumerate(commands)
    ]
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
    return Contender(name, port, url, tables, [*([pooler.process] if pooler else []), *processes])


def _gunicorn(application: str, *options: str, processes: int = 2) -> list[str]:
    """Return the command of web processes with gunicorn's defaults."""
    common = ["-c", "/dev/null", "--no-control-socket", "-w", str(processes), "-b", "127.0.0.1:PORT"]
    return [f"{BIN}/gunicorn", *common, *options, application]


@contextmanager
def raw(servers: Servers, processes: int = 2) -> Iterator[Contender]:
    """Start the limit: web processes that only store."""
    web = _gunicorn("benchmarks.raw:app", "-k", "gthread", "--threads", "8", processes=processes)
    yield from _run(_contender(servers, "raw", [web], ("raw_deliveries",)))


@contextmanager
def naive(servers: Servers, **env: str) -> Iterator[Contender]:
    """Start the service that an engineer writes in an afternoon."""
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
def weighbridge(servers: Servers, pooler: OwnPgBouncer | None = None, **env: str) -> Iterator[Contender]:
    """Start this service on PostgreSQL and Redis, if given behind a pooler, which ends with it."""
    web = [f"{BIN}/gunicorn", "wsgi:app"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    concurrency = env.get("WORKER_CONCURRENCY", "2")
    worker = [f"{BIN}/celery", "-A", "workers.celery_app", "worker", "-c", concurrency, *quiet]
    tables = ("tasks", "annotations")
    yield from _run(_contender(servers, "weighbridge", [web, worker], tables, pooler, **env))


@contextmanager
def embedded(servers: Servers, **env: str) -> Iterator[Contender]:
    """Run the default of `weighbridge up`: SQLite, no Redis, a worker with threads."""
    web = [f"{BIN}/gunicorn", "wsgi:app"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    worker = [f"{BIN}/celery", "-A", "workers.celery_app", "worker", "-P", "threads", "-c", "2", *quiet]
    url = f"sqlite:///{servers.folder}/embedded.{free_port()}.db"
    yield from _run(_contender(servers, "embedded", [web, worker], (), DATABASE_URL=url, REDIS_URL="", **env))


def _run(contender: Contender) -> Iterator[Contender]:
    try:
        yield contender
    finally:
        for process in contender.processes:
            process.kill()
