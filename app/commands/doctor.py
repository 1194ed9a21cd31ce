"""`flask doctor`: everything that the service needs, looked at once: what is wrong, and how to mend it."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

import click
from flask.cli import with_appcontext
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection, exists, func, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from app.commands.group import Command, database_fault, dispatcher, service
from app.commands.output import as_json, console, print_json, printable
from config.deployment import deployment_problems
from models import ApiToken, Delivery, FollowUp, Job, KeyValue
from pipeline.db.ids import utcnow
from pipeline.db.migrations import revisions
from pipeline.db.state import get_state
from pipeline.follow_ups.pauses import STOPPED
from pipeline.operations.health import HEARTBEAT, SILENT_SECONDS
from pipeline.service import Service
from scale.client import ScaleError, Unauthorized

OK, WARNING, PROBLEM, SKIPPED = "ok", "warning", "problem", "skipped"
COLOURS = {OK: "green", WARNING: "yellow", PROBLEM: "bold red", SKIPPED: "dim"}
STORE_SECONDS = 15.0


class Finding(NamedTuple):
    """What was looked at, how it stands, what was seen, and what to do about it."""

    name: str
    state: str  # ok | warning | problem | skipped
    said: str
    mend: str | None = None


Findings = Iterator[Finding]


@click.command(cls=Command)
@as_json
@with_appcontext
def doctor(as_json: bool) -> None:
    """Look at settings, database, worker, broker, keys and workflows; say what is wrong and how to mend it.

    Ends with 1 when there is a problem. Warnings are for you to judge.
    """
    found = [finding for look in LOOKS for finding in look(service())]
    well = not any(finding.state == PROBLEM for finding in found)
    if as_json:
        print_json({"ok": well, "checks": [finding._asdict() for finding in found]})
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in found:
            said = Text(printable(finding.said))
            if finding.mend:
                said.append(f"\n→ {finding.mend}", style="italic")
            table.add_row(Text(finding.state, style=COLOURS[finding.state]), finding.name, said)
        console().print(table)
    sys.exit(0 if well else 1)


def settings(of: Service) -> Findings:
    yield Finding("settings", OK, "all can be read")
    for name, why in deployment_problems(of.settings).items():
        yield Finding(name, PROBLEM, why)


def database(of: Service) -> Findings:
    """The database itself, and what only its rows tell."""
    url = make_url(of.settings.database_url)
    name = (
        f"SQLite, {url.database}"
        if url.get_backend_name() == "sqlite"
        else f"PostgreSQL, {url.database} at {url.host or 'the local socket'}"
    )
    try:
        with of.reader.begin() as connection:
            connection.execute(text("SELECT 1"))
            yield Finding("database", OK, name)
            has, needs = revisions(connection)
            if has != needs:
                yield Finding(
                    "migrations",
                    PROBLEM,
                    f"revision {has or 'none'}, this code needs {needs}",
                    "flask db upgrade",
                )
                yield Finding("worker", SKIPPED, "its sign of life is kept in the database's tables")
                return
            yield Finding("migrations", OK, f"revision {has}")
            for look in (worker, tokens, work):
                yield from look(of, connection)
    except SQLAlchemyError as fault:
        yield Finding(
            "database", PROBLEM, f"{name}: {database_fault(fault)}", "Start it, or mend DATABASE_URL."
        )


def worker(of: Service, connection: Connection) -> Findings:
    beat = connection.scalar(select(func.max(KeyValue.changed_at)).where(KeyValue.key.startswith(HEARTBEAT)))
    start = "Start one: celery -A workers.celery_app worker (or `make run`, which has one)"
    if beat is None:
        yield Finding("worker", PROBLEM, "none has ever given a sign of life here", start)
    elif utcnow() - beat > timedelta(seconds=SILENT_SECONDS):
        yield Finding(
            "worker", PROBLEM, f"none has given a sign of life since {beat:%Y-%m-%d %H:%M:%S} UTC", start
        )
    else:
        yield Finding("worker", OK, f"gave a sign of life {max(0, (utcnow() - beat).seconds)} s ago")


def tokens(of: Service, connection: Connection) -> Findings:
    known = (
        connection.scalar(select(func.count()).select_from(ApiToken).where(ApiToken.revoked_at.is_(None)))
        or 0
    )
    if of.settings.api_token or known:
        said = ["API_TOKEN"] if of.settings.api_token else []
        yield Finding("API tokens", OK, ", ".join([*said, *([f"{known} in the database"] if known else [])]))
    else:
        yield Finding(
            "API tokens", WARNING, "there is none: nobody can read the API", "flask tokens create NAME"
        )


def work(of: Service, connection: Connection) -> Findings:
    """What waits for a person."""

    def count(what: type[Job | Delivery | FollowUp], state: str, condition: str) -> int:
        column = getattr(what, state)
        return connection.scalar(select(func.count()).select_from(what).where(column == condition)) or 0

    if dead := count(Job, "state", "dead"):
        yield Finding(
            "jobs",
            PROBLEM,
            f"{dead} dead: they failed too often and wait for you",
            "flask jobs list --state dead says why; flask jobs retry --dead runs them again",
        )
    else:
        yield Finding("jobs", OK, "none is dead")
    if connection.scalar(
        select(exists().where(text("deliveries.status != 'processed'"), Delivery.status == "quarantined"))
    ):
        yield Finding(
            "quarantine",
            WARNING,
            "some deliveries were not understood; they are kept whole",
            "flask deliveries list --status quarantined says why; flask deliveries replay --quarantined tries again",
        )
    if failed := count(FollowUp, "state", "failed"):
        yield Finding(
            "follow-ups",
            WARNING,
            f"{failed} failed: Scale refused them",
            "flask follow-ups list --state failed",
        )
    if held := count(FollowUp, "state", "held"):
        yield Finding("follow-ups", WARNING, f"{held} held", "flask follow-ups list --state held says why")
    if (stopped := get_state(connection, STOPPED)) is not None:
        yield Finding(
            "creating", WARNING, f"stopped by {stopped.get('actor', 'somebody')}", "flask creating start"
        )


def broker(of: Service) -> Findings:
    if of.settings.embedded:
        yield Finding("broker", OK, "none is needed: REDIS_URL is not set, the worker rings for itself")
    elif dispatcher().reachable():
        yield Finding(
            "broker", OK, f"Redis at {urlsplit(of.settings.redis_url or '').hostname or 'its socket'}"
        )
    else:
        yield Finding(
            "broker",
            PROBLEM,
            "Redis does not answer; nothing is lost, but work waits up to SWEEP_SECONDS for the sweep",
            "Start it, or mend REDIS_URL.",
        )


def callback_keys(of: Service) -> Findings:
    live, test = of.settings.scale_live_callback_keys, of.settings.scale_test_callback_keys
    where = "Scale's dashboard shows it under API keys, as the callback auth key."
    if not live and not test:
        yield Finding(
            "callback keys",
            PROBLEM,
            "none is set: every callback is refused",
            f"Set SCALE_LIVE_CALLBACK_KEYS. {where}",
        )
        return
    for name, keys, key in (
        ("LIVE", live, of.settings.scale_api_key),
        ("TEST", test, of.settings.scale_test_api_key),
    ):
        if keys:
            yield Finding(f"{name.lower()} callback keys", OK, f"{len(keys)} set")
        elif key:
            yield Finding(
                f"{name.lower()} callback keys",
                WARNING,
                f"none is set: callbacks of {name.lower()} tasks are refused",
                f"Set SCALE_{name}_CALLBACK_KEYS. {where}",
            )


def scale_keys(of: Service) -> Findings:
    """One cheap question with each key."""
    for environment, setting in (("live", "SCALE_API_KEY"), ("test", "SCALE_TEST_API_KEY")):
        client, name = of.client(environment), f"{environment} API key"
        if client is None:
            yield Finding(
                name, SKIPPED, f"{setting} is not set: {environment} follow-ups are planned and held"
            )
            continue
        try:
            client.list_tasks(limit=1)
            yield Finding(name, OK, f"accepted by {of.settings.scale_api_url}")
        except Unauthorized as refused:
            yield Finding(
                name,
                PROBLEM,
                f"refused by {of.settings.scale_api_url}: {refused.message}",
                f"Mend {setting}.",
            )
        except ScaleError as fault:
            yield Finding(
                name,
                PROBLEM,
                f"{of.settings.scale_api_url} does not answer as it should: {fault.message}",
                "Look at SCALE_API_URL, and at the way out of this machine.",
            )


def public_url(of: Service) -> Findings:
    url = of.settings.public_url
    if url is None:
        yield Finding(
            "PUBLIC_URL",
            WARNING,
            "is not set: follow-ups are planned and held",
            "Set it to the address under which Scale reaches this service.",
        )
    elif is_here(urlsplit(url).hostname) and not is_here(urlsplit(of.settings.scale_api_url).hostname):
        yield Finding(
            "PUBLIC_URL",
            PROBLEM,
            f"is {url}: that is this machine, where {of.settings.scale_api_url} can't call back",
            "Set it to a public address; a tunnel does.",
        )
    elif url.startswith("http://") and not is_here(urlsplit(url).hostname):
        yield Finding(
            "PUBLIC_URL", WARNING, f"is {url}: callbacks and their key travel in the open", "Use https://."
        )
    else:
        yield Finding("PUBLIC_URL", OK, f"callbacks come to {of.settings.callback_url}")


def is_here(host: str | None) -> bool:
    """Whether a host's name means this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def artifact_store(of: Service) -> Findings:
    """Write a file and drop it again."""

    def write() -> None:
        with of.store.incoming() as file:
            file.write(b"flask doctor was here")

    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(write).result(STORE_SECONDS)
        yield Finding("artifact store", OK, f"{of.settings.artifact_store} can be written to")
    except TooLong:
        yield Finding(
            "artifact store", PROBLEM, f"no answer within {STORE_SECONDS:.0f} s", "Look at ARTIFACT_STORE."
        )
    except Exception as fault:
        yield Finding(
            "artifact store",
            PROBLEM,
            f"can't be written to: {type(fault).__name__}: {fault}",
            "Look at ARTIFACT_STORE.",
        )
    finally:
        pool.shutdown(wait=False)


def workflow_files(of: Service) -> Findings:
    files = of.workflows
    names = ", ".join(workflow.name for workflow in files.loaded)
    if files.loaded or not files.invalid:
        yield Finding("workflows", OK, f"{len(files.loaded)} loaded{': ' if names else ''}{names}")
    for broken in files.invalid:
        for error in broken.errors:
            yield Finding(
                "workflows", PROBLEM, f"{error}", "Until then this file is set aside whole; the others run."
            )
    for workflow in files.loaded:
        for warning in workflow.warnings:
            yield Finding("workflows", WARNING, f"{warning}")


LOOKS: tuple[Callable[[Service], Findings], ...] = (
    settings,
    database,
    broker,
    callback_keys,
    scale_keys,
    public_url,
    artifact_store,
    workflow_files,
)
