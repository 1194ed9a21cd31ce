"""Health checks: the one list behind `/readyz` and `weighbridge doctor`.

A check is a function that yields Checks. Ages are computed by the database's clock.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from sqlalchemy import Connection, exists, func, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from config.deployment import deployment_problems, weak_secrets
from models import ApiToken, Delivery, FollowUp, Job
from pipeline.db import months
from pipeline.db.ids import utcnow
from pipeline.db.months import Month
from pipeline.db.probe import write_fault
from pipeline.db.revisions import is_newer_than_code, is_older_than_code, revisions
from pipeline.jobs.rate_limits import clear_rate_limit, set_rate_limit
from pipeline.operations.database_errors import Explanation, explain
from pipeline.operations.expression_faults import expression_faults
from pipeline.operations.health import SILENT_SECONDS, last_heartbeat
from pipeline.operations.queries.creation import creation_status
from pipeline.service import Service
from scale.client import ScaleError, Unauthorized

OK, WARNING, PROBLEM, SKIPPED = "ok", "warning", "problem", "skipped"
STORE_TIMEOUT_SECONDS = 15.0
STORE_TEST_BYTES = 1024 * 1024
"""More than any buffer holds, so that a full disk shows."""
CALLBACK_TIMEOUT_SECONDS = 5.0
WRITE_CHECK_SCOPE = "doctor"
"""Scope of a rate limit that no call has: the row that the write check of doctor writes and deletes."""
START_WORKER = "Start one: `celery -A workers.celery_app worker` (`make run` includes one)."


class Check(NamedTuple):
    """The result of one health check."""

    name: str
    state: str  # ok | warning | problem | skipped
    message: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What the checks look at."""

    service: Service
    broker_fault: Callable[[], Explanation | None]
    """Returns why no message can be sent and received, or None."""


Checks = Iterator[Check]


def run_checks(context: Context) -> list[Check]:
    """Run every check: for `weighbridge doctor`."""
    return [check for run in CHECKS for check in run(context)]


def run_readiness_checks(context: Context) -> list[Check]:
    """Run the checks that are quick and call nothing outside: for `/readyz`."""
    return [check for run in READINESS_CHECKS for check in run(context)]


def settings(context: Context) -> Checks:
    """Check the settings for the place they are used in."""
    yield Check("settings", OK, "all settings are valid")
    for name, problem in deployment_problems(context.service.settings).items():
        yield Check(name, PROBLEM, problem)
    for name, problem in weak_secrets(context.service.settings).items():
        yield Check(name, WARNING, problem, "Use 32 or more random characters: `openssl rand -hex 32`.")


def database(context: Context) -> Checks:
    """Check the database, its revision, and what its rows say about the work."""
    service = context.service
    name = _database_name(service.settings.database_url)
    try:
        with service.reader.begin() as connection:
            connection.execute(text("SELECT 1"))
            revision, required = revisions(connection)
            if is_older_than_code(connection):
                yield Check("database", OK, name)
                message = f"revision {revision or 'none'}; this version needs {required}"
                yield Check("migrations", PROBLEM, message, "weighbridge db upgrade")
                yield Check("worker", SKIPPED, "heartbeats are in the database's tables")
                return
            connection.execute(text("SELECT 1 FROM deliveries LIMIT 1"))
            yield from _writable(service, name)
            if is_newer_than_code(connection):
                message = f"revision {revision} belongs to a newer version; this one needs {required}"
                yield Check("database version", WARNING, message, "Deploy the newer version again.")
            else:
                yield Check("migrations", OK, f"revision {revision}")
            for check in DATABASE_CHECKS:
                yield from check(service, connection)
    except SQLAlchemyError as error:
        message, fix = explain(error)
        yield Check("database", PROBLEM, f"{name}: {message}", fix)


def _writable(service: Service, name: str) -> Checks:
    """Check by a write that is rolled back that callbacks can be stored: a demoted server still answers every read."""
    if fault := write_fault(service.engine):
        fix = "Name the server that accepts writes in DATABASE_URL, or free its disk."
        yield Check("database", PROBLEM, f"{name}: nothing can be written: {fault}", fix)
    else:
        yield Check("database", OK, name)


def _database_name(database_url: str) -> str:
    if database_url.startswith("sqlite"):
        return f"SQLite, {make_url(database_url).database}"
    from psycopg.conninfo import conninfo_to_dict  # SQLite needs no driver of PostgreSQL

    where = conninfo_to_dict(database_url.replace("postgresql+psycopg://", "postgresql://", 1))
    return f"PostgreSQL, {where.get('dbname')} at {where.get('host') or 'the local socket'}"


def database_write(context: Context) -> Checks:
    """Check the database by writing a row and deleting it, each in a transaction: a full disk shows at the commit."""
    engine = context.service.engine
    try:
        with engine.begin() as connection:
            set_rate_limit(connection, WRITE_CHECK_SCOPE, "write check", 0)
        with engine.begin() as connection:
            clear_rate_limit(connection, WRITE_CHECK_SCOPE)
            is_postgresql = connection.dialect.name == "postgresql"
            encoding = connection.scalar(text("SHOW server_encoding")) if is_postgresql else "UTF8"
    except SQLAlchemyError as error:
        message, fix = explain(error)
        yield Check("database write", PROBLEM, f"callbacks cannot be stored: {message}", fix)
        return
    if encoding != "UTF8":
        message = f"its encoding is {encoding}, which cannot hold every text"
        fix = "Create it with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0` and import the data."
        yield Check("database write", PROBLEM, message, fix)
    else:
        yield Check("database write", OK, "a row was written and deleted")


def worker(service: Service, connection: Connection) -> Checks:
    """Check that a worker has reported recently."""
    beat, now = last_heartbeat(connection)
    if beat is None:
        yield Check("worker", PROBLEM, "no worker has ever reported", START_WORKER)
    elif now - beat > timedelta(seconds=SILENT_SECONDS):
        message = f"no worker has reported since {beat:%Y-%m-%d %H:%M:%S} UTC"
        yield Check("worker", PROBLEM, message, START_WORKER)
    else:
        yield Check("worker", OK, f"last heartbeat {max(0, int((now - beat).total_seconds()))} s ago")


def tokens(service: Service, connection: Connection) -> Checks:
    """Check that the API can be used at all."""
    active = select(func.count()).select_from(ApiToken).where(ApiToken.revoked_at.is_(None))
    stored = connection.scalar(active) or 0
    known = ["API_TOKEN"] if service.settings.api_token else []
    known += [f"{stored} in the database"] if stored else []
    if known:
        yield Check("API tokens", OK, ", ".join(known))
    else:
        yield Check(
            "API tokens", WARNING, "none exist, so the API cannot be used", "weighbridge tokens create NAME"
        )


def jobs(service: Service, connection: Connection) -> Checks:
    """Check for dead jobs."""
    if dead := _count(connection, Job, Job.state == "dead"):
        yield Check(
            "jobs",
            PROBLEM,
            f"{dead} dead jobs",
            "`weighbridge jobs list --state dead` shows why; `weighbridge jobs retry --dead` retries them, and `dismiss` deletes them.",
        )
    else:
        yield Check("jobs", OK, "no dead jobs")


def quarantine(service: Service, connection: Connection) -> Checks:
    """Check for quarantined deliveries."""
    not_processed = text("deliveries.status != 'processed'")  # the condition of the partial index
    if connection.scalar(
        select(
            exists().where(not_processed, Delivery.status == "quarantined", Delivery.dismissed_at.is_(None))
        )
    ):
        yield Check(
            "quarantine",
            WARNING,
            "some deliveries could not be parsed or applied; they are stored unchanged",
            "`weighbridge deliveries list --status quarantined` shows why;"
            " `weighbridge deliveries replay --quarantined` tries again, and `dismiss` ends this warning.",
        )


def follow_ups(service: Service, connection: Connection) -> Checks:
    """Check for follow-ups that failed, are held, or were skipped because an expression failed."""
    if failed := _count(connection, FollowUp, FollowUp.state == "failed"):
        fix = "weighbridge follow-ups list --state failed"
        yield Check("follow-ups", WARNING, f"{failed} failed: Scale refused them", fix)
    if held := _count(connection, FollowUp, FollowUp.state == "held"):
        fix = "`weighbridge follow-ups list --state held` shows why."
        yield Check("follow-ups", WARNING, f"{held} held", fix)
    for fault in expression_faults(connection, service):
        message = (
            f"{fault.follow_ups} skipped by {fault.workflow}.{fault.step}, the last one for task {fault.source_task_id}:"
            f" {fault.place}: {fault.reason}"
        )
        fix = f"Correct the file, then weighbridge follow-ups replan --workflow {fault.workflow} --step {fault.step}"
        yield Check("follow-ups", WARNING, message, fix)


def creation(service: Service, connection: Connection) -> Checks:
    """Check whether the creation of tasks is paused or rate limited."""
    status = creation_status(connection)
    if status["stopped"]:
        message = f"paused by {status['stopped_by'] or 'an unknown user'}"
        yield Check("creation", WARNING, message, "weighbridge creation resume")
    for pause in status["pauses"]:
        message = f"{pause['environment']} tasks wait until {pause['until']}: {pause['reason']}"
        yield Check("creation", WARNING, message)


def months_of_bodies(service: Service, connection: Connection) -> Checks:
    """Check that this and the next month of bodies have a partition. Bodies without one are stored all the same."""
    now = utcnow()
    for month in months.missing(connection, now):
        if month > Month.of(now).later(1):
            continue  # at the turn of a month it is missing until the next sweep
        if months.is_in_default(connection, month):
            message = f"{month} had no partition in time: its bodies are in the default one, and are purged row by row"
            yield Check("months of bodies", OK, message)
        else:
            message = f"{month} has no partition: its bodies will be purged row by row"
            fix = (
                "`weighbridge db upgrade` makes it, or says why it cannot. So does every worker, in its log."
            )
            yield Check("months of bodies", WARNING, message, fix)


def _count(connection: Connection, model: Any, condition: Any) -> int:
    return connection.scalar(select(func.count()).select_from(model).where(condition)) or 0


def broker(context: Context) -> Checks:
    """Check that the broker can be reached."""
    redis_url = context.service.settings.redis_url
    if context.service.settings.embedded:
        yield Check("broker", OK, "not needed: without REDIS_URL the worker polls the database")
        return
    host = urlsplit(redis_url or "").hostname or "its socket"
    if (fault := context.broker_fault()) is None:
        yield Check("broker", OK, f"Redis at {host}")
    else:
        message = (
            f"REDIS_URL: Redis at {host} takes no messages: {fault.message};"
            " the worker's main process runs the jobs meanwhile"
        )
        yield Check("broker", PROBLEM, message, fault.fix)


def callback_keys(context: Context) -> Checks:
    """Check that callbacks can be authenticated."""
    settings = context.service.settings
    live, test = settings.scale_live_callback_keys, settings.scale_test_callback_keys
    where = "Scale's dashboard shows it under API keys, as the callback auth key."
    if not live and not test:
        fix = f"Set SCALE_LIVE_CALLBACK_KEYS. {where}"
        yield Check("callback keys", PROBLEM, "none is set: every callback is refused", fix)
        return
    for name, keys, api_key in (
        ("LIVE", live, settings.scale_api_key),
        ("TEST", test, settings.scale_test_api_key),
    ):
        title = f"{name.lower()} callback keys"
        if keys:
            yield Check(title, OK, f"{len(keys)} set")
        elif api_key:
            message = f"none is set: callbacks of {name.lower()} tasks are refused"
            yield Check(title, WARNING, message, f"Set SCALE_{name}_CALLBACK_KEYS. {where}")


def scale_keys(context: Context) -> Checks:
    """Check each API key with one cheap call."""
    url = without_credentials(context.service.settings.scale_api_url)
    for environment, setting in (("live", "SCALE_API_KEY"), ("test", "SCALE_TEST_API_KEY")):
        client, name = context.service.client(environment), f"{environment} API key"
        if client is None:
            message = f"{setting} is not set: {environment} follow-ups are planned and held"
            yield Check(name, SKIPPED, message)
            continue
        try:
            client.list_tasks(limit=1)
            yield Check(name, OK, f"accepted by {url}")
        except Unauthorized as error:
            yield Check(name, PROBLEM, f"refused by {url}: {error.message}", f"Correct {setting}.")
        except ScaleError as error:
            fix = "Check SCALE_API_URL and the network."
            yield Check(name, PROBLEM, f"unexpected answer from {url}: {error.message}", fix)


def public_url(context: Context) -> Checks:
    """Check that Scale can call back."""
    settings = context.service.settings
    url = settings.public_url
    if url is None:
        fix = "Set it to the URL under which Scale reaches this service."
        yield Check("PUBLIC_URL", WARNING, "not set: follow-ups are planned and held", fix)
    elif is_loopback(urlsplit(url).hostname) and not is_loopback(urlsplit(settings.scale_api_url).hostname):
        message = f"{url} is this machine, where {settings.scale_api_url} cannot call back"
        yield Check("PUBLIC_URL", PROBLEM, message, "Set it to a public URL, for example of a tunnel.")
    elif url.startswith("http://") and not is_loopback(urlsplit(url).hostname):
        message = f"{url}: callbacks and their key are sent unencrypted"
        yield Check("PUBLIC_URL", WARNING, message, "Use https://.")
    else:
        yield Check("PUBLIC_URL", OK, f"callbacks arrive at {settings.callback_url}")


def callback_endpoint(context: Context) -> Checks:
    """Check that the callback URL of follow-ups leads to this service: without a key it answers 401."""
    url = context.service.settings.callback_url
    if url is None:
        return
    fix = "Check PUBLIC_URL, the DNS, the proxy or tunnel in front of the service, and that web is running."
    try:
        status = requests.post(url, timeout=CALLBACK_TIMEOUT_SECONDS, allow_redirects=False).status_code
    except requests.RequestException as error:
        yield Check("callback URL", WARNING, f"no answer from {url} ({type(error).__name__})", fix)
        return
    if status == 401:
        yield Check("callback URL", OK, f"{url} is this service")
    else:
        message = f"{url} answered {status} instead of 401: it is not this service"
        yield Check("callback URL", PROBLEM, message, fix)


def metrics_token(context: Context) -> Checks:
    """Check that `/metrics` is not public where others can reach it."""
    settings = context.service.settings
    is_deployed = settings.dyno or not settings.database_url.startswith("sqlite")
    if is_deployed and not settings.metrics_token:
        yield Check("METRICS_TOKEN", WARNING, "not set: everyone can read /metrics", "Set METRICS_TOKEN.")


def without_credentials(url: str) -> str:
    """Return a URL or path without user, password, query and fragment."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def describe_store_error(error: Exception) -> str:
    """Return the kind of an error of the artifact store; texts of remote stores may contain keys."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__


def is_loopback(host: str | None) -> bool:
    """Return whether a host name means this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def artifact_store(context: Context) -> Checks:
    """Check the artifact store by writing a file and discarding it."""
    store = context.service.store

    def write() -> None:
        with store.incoming() as file:
            file.write(b"\0" * STORE_TEST_BYTES)

    pool = ThreadPoolExecutor(1)
    fix = "Check ARTIFACT_STORE."
    try:
        pool.submit(write).result(STORE_TIMEOUT_SECONDS)
        yield Check(
            "artifact store",
            OK,
            f"{without_credentials(context.service.settings.artifact_store)} is writable",
        )
    except FutureTimeout:
        yield Check("artifact store", PROBLEM, f"no answer within {STORE_TIMEOUT_SECONDS:.0f} s", fix)
    except Exception as error:
        yield Check("artifact store", PROBLEM, f"not writable: {describe_store_error(error)}", fix)
    finally:
        pool.shutdown(wait=False)


def workflow_files(context: Context) -> Checks:
    """Check the workflow files."""
    files = context.service.workflows
    names = ", ".join(workflow.name for workflow in files.loaded)
    if files.loaded or not files.invalid:
        yield Check("workflows", OK, f"{len(files.loaded)} loaded{': ' if names else ''}{names}")
    for invalid in files.invalid:
        for error in invalid.errors:
            yield Check("workflows", PROBLEM, str(error), "Correct the file; the other workflows are loaded.")
    for workflow in files.loaded:
        for warning in workflow.warnings:
            yield Check("workflows", WARNING, str(warning))


def prices(context: Context) -> Checks:
    """Check the price list and the limits of the installation."""
    found = context.service.prices
    for problem in found.problems:
        fix = "Correct the file. Until then no cost is known, and what a limit in money counts is held."
        yield Check("prices", PROBLEM, str(problem), fix)
    for warning in found.warnings:
        yield Check("prices", WARNING, str(warning))
    for problem in context.service.workflows.limits.problems:
        yield Check("limits", PROBLEM, str(problem), "Correct the file. Until then nothing is created.")
    if found.prices and not found.problems:
        yield Check("prices", OK, f"{len(found.prices)} in {found.currency}")


DATABASE_CHECKS = (worker, tokens, jobs, quarantine, follow_ups, creation, months_of_bodies)
READINESS_CHECKS: tuple[Callable[[Context], Checks], ...] = (database, broker, workflow_files, prices)
CHECKS: tuple[Callable[[Context], Checks], ...] = (
    settings,
    database,
    database_write,
    broker,
    callback_keys,
    scale_keys,
    public_url,
    callback_endpoint,
    metrics_token,
    artifact_store,
    workflow_files,
    prices,
)
