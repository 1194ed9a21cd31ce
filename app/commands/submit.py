"""`flask tasks submit FILE`: the first tasks of a pipeline, checked before any of them costs money."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import click
import yaml
from flask.cli import with_appcontext
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.commands.group import Command, actor, service
from app.commands.output import as_json, console, print_json, printable
from pipeline.access.audit import log_action
from pipeline.follow_ups import submit as domain
from pipeline.follow_ups.recording import missing_setting
from pipeline.follow_ups.submit import REFUSED, InvalidInput, Outcome, SubmittedTask
from pipeline.jobs.queue import RetryLater
from scale.client import Unauthorized
from workflows.definition.expressions import Template, compile_template, expressions_in

MOST_SHOWN = 20
EVERY = 100


@click.command(cls=Command)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--type", "type_name", help="Task type of the rows that name none.")
@click.option(
    "--request",
    "request_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML or JSON: the whole request, with ${{ row.column }} where a row's own value belongs.",
)
@click.option("--name", help="What the unique_ids begin with. Default: the file's name.")
@click.option("--environment", type=click.Choice(("live", "test")), default="live", show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Only the first so many rows.")
@click.option("--per-minute", type=click.IntRange(1), help="No more tasks than that a minute.")
@click.option(
    "--at-once", type=click.IntRange(1, 32), default=4, show_default=True, help="Calls at the same time."
)
@click.option("--check", is_flag=True, help="Say what would be created; create nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@with_appcontext
def submit(
    file: Path,
    type_name: str | None,
    request_file: Path | None,
    name: str | None,
    environment: str,
    limit: int | None,
    per_minute: int | None,
    at_once: int,
    check: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Create the tasks that a .csv or .jsonl FILE asks for. The same file again creates nothing again.

    A line of a .jsonl file is the request, with its `type`. In a .csv file the columns are its fields: `metadata.city` is a
    field of `metadata`, the cells of `tags:json` are JSON, and an empty cell is no field. `callback_url` and a `unique_id`
    made of the content are added. Every row is checked first; if Scale would refuse one, none is created.
    """
    if why := missing_setting(service(), environment):
        raise click.ClickException(f"{why}: Scale is asked with it.")
    try:
        template = read_request(request_file)
        tasks = list(
            itertools.islice(
                (
                    domain.task_for_row(
                        row,
                        name or file.stem,
                        service().settings.unique_id_prefix,
                        type_name=type_name,
                        template=template,
                    )
                    for row in domain.read_rows(file)
                ),
                limit,
            )
        )
    except InvalidInput as unusable:
        raise click.ClickException(str(unusable)) from None
    unique = domain.unique_tasks(tasks)
    refuse_faults(unique)
    counts = Counter(one.type for one in unique)
    said = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())) or "no"
    twice = len(tasks) - len(unique)
    summary = f"{said} tasks ({environment})" + (f"; {twice} rows are there twice" if twice else "")
    if check:
        print_check(unique, summary, as_json)
        return
    if not yes:
        click.confirm(f"Create {summary}?", abort=True)
    outcomes: list[Outcome] = []
    try:
        outcomes.extend(create(unique, environment, per_minute, at_once, quiet=as_json))
    finally:  # also what was created before it broke off is written down
        done = Counter(outcome.outcome for outcome in outcomes)
        with service().engine.begin() as connection:
            log_action(connection, actor(), "tasks.submit", file.name, dict(done))
    tell(outcomes, done, as_json)


def read_request(file: Path | None) -> Template | None:
    """The request that all rows share. Raises ClickException."""
    if file is None:
        return None
    try:
        written = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} can't be read: {error}") from None
    if not isinstance(written, dict):
        raise click.ClickException(f"{file} is no mapping: the body of the request to Scale")
    template, errors = compile_template(written)
    for path, message in errors.items():
        raise click.ClickException(f"{file}: {'.'.join(map(str, path))}: {message}")
    for path, expression in expressions_in(template):
        if unknown := sorted(expression.names - {"row"}):
            at = ".".join(map(str, path))
            raise click.ClickException(f"{file}: {at}: there is no {', '.join(unknown)} here, only `row`")
    return template


def refuse_faults(tasks: list[SubmittedTask]) -> None:
    faults = [f"line {one.line}: {one.fault}" for one in tasks if one.fault]
    if faults:
        more = [f"… and {len(faults) - MOST_SHOWN} more"] if len(faults) > MOST_SHOWN else []
        told = "\n".join([*map(printable, faults[:MOST_SHOWN]), *more])
        raise click.ClickException(f"Nothing is created; {len(faults)} rows are wrong:\n{told}")


def print_check(unique: list[SubmittedTask], summary: str, as_json: bool) -> None:
    if as_json:
        print_json([one._asdict() for one in unique])
        return
    for one in unique[:MOST_SHOWN]:
        click.echo(f"{one.unique_id}  {one.type}  {printable(one.request)}")
    click.echo(f"Would create {summary}.")


def create(
    unique: list[SubmittedTask], environment: str, per_minute: int | None, at_once: int, quiet: bool
) -> Iterator[Outcome]:
    """Each task, several at a time, no faster than asked."""
    of, began, running, sent = service(), time.monotonic(), set[Future[Outcome]](), 0
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console(), disable=quiet or not console().is_terminal,
    )  # fmt: skip
    with ThreadPoolExecutor(at_once) as pool, bar:
        shown_task = bar.add_task("creating", total=len(unique))
        waiting = iter(unique)
        while True:
            for one in itertools.islice(waiting, at_once - len(running)):
                if per_minute is not None:
                    time.sleep(max(0.0, began + sent * 60 / per_minute - time.monotonic()))
                running.add(pool.submit(domain.submit, of, environment, one))
                sent += 1
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield finished(future)
                bar.advance(shown_task)
                if not quiet and not console().is_terminal and int(bar.tasks[0].completed) % EVERY == 0:
                    click.echo(f"{int(bar.tasks[0].completed)} of {len(unique)}")


def finished(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except (RetryLater, Unauthorized) as ends:
        raise click.ClickException(f"{ends}. The same file again goes on where this has ended.") from None


def tell(outcomes: list[Outcome], done: Counter[str], as_json: bool) -> None:
    if as_json:
        print_json([outcome._asdict() for outcome in sorted(outcomes)])
    else:
        click.echo(", ".join(f"{number} {what}" for what, number in sorted(done.items())) + ".")
    refused = [f"line {one.line}: {one.reason}" for one in sorted(outcomes) if one.outcome == REFUSED]
    if refused and not as_json:
        raise click.ClickException("\n".join(map(printable, refused[:MOST_SHOWN])))
    if refused:
        raise click.exceptions.Exit(1)
