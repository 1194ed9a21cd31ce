"""`weighbridge tasks submit FILE`: the first tasks of a pipeline, checked before any of them costs money."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from flask.cli import with_appcontext
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.commands.group import Command, actor
from app.commands.inputs import start_workflow
from app.commands.output import as_json, console, print_json, printable
from app.extensions import service
from pipeline.follow_ups import submit as submission
from pipeline.follow_ups.prices import Cost, cost_of_requests, cost_of_task
from pipeline.follow_ups.recording import missing_setting
from pipeline.follow_ups.submit import REFUSED, InvalidInput, Outcome, SubmittedTask
from pipeline.jobs.queue import RetryLater
from scale.client import Unauthorized
from scale.environments import ENVIRONMENTS
from workflows.definition.templates import Template, compile_template, expressions_in

MAX_PRINTED = 20
PROGRESS_EVERY = 100


@dataclass(frozen=True)
class Options:
    """The options of one submission."""

    type_name: str | None
    request_file: Path | None
    name: str | None
    environment: str
    limit: int | None
    per_minute: int | None
    at_once: int
    workflow: str | None
    check: bool
    yes: bool
    as_json: bool


@click.command(cls=Command)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--type", "type_name", help="Task type of rows without a `type`.")
@click.option(
    "--request",
    "request_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML or JSON file with the whole request; ${{ row.column }} inserts a value of the row.",
)
@click.option("--workflow", metavar="NAME", help="Start this workflow with the rows, without a first task.")
@click.option("--name", help="Prefix of the unique_ids. Default: the file's name.")
@click.option(
    "--environment",
    type=click.Choice(ENVIRONMENTS),
    default="live",
    show_default=True,
    help="Environment of the tasks.",
)
@click.option("--limit", type=click.IntRange(1), help="Submit only the first N rows.")
@click.option("--per-minute", type=click.IntRange(1), help="Maximum tasks per minute.")
@click.option(
    "--at-once", type=click.IntRange(1, 32), default=4, show_default=True, help="Number of concurrent calls."
)
@click.option("--check", is_flag=True, help="Dry run: print the tasks, create nothing.")
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
@as_json
@with_appcontext
def submit(file: Path, **options: Any) -> None:
    """Create the tasks of a .csv or .jsonl FILE. Submitting the same file again creates nothing.

    A line of a .jsonl file is the request, with its `type`. In a .csv file the columns are its fields: `metadata.city` is
    a field of `metadata`, cells of `tags:json` are JSON, and an empty cell is omitted. `callback_url` and a `unique_id`
    derived from the content are added. Every row is checked first; if one is invalid, nothing is created.

    With --workflow each row is an input of the steps with `start`, which see it as `row`.
    """
    chosen = Options(**options)
    if chosen.workflow is not None:
        refuse_with_workflow(chosen)
        start_workflow(
            file,
            chosen.workflow,
            chosen.environment,
            chosen.limit,
            check=chosen.check,
            yes=chosen.yes,
            as_json=chosen.as_json,
        )
        return
    if problem := missing_setting(service(), chosen.environment):
        raise click.ClickException(f"{problem}.")
    tasks = read_tasks(file, chosen)
    unique = submission.unique_tasks(tasks)
    reject_invalid_rows(unique)
    cost = cost_of_requests(service().prices, ((one.type, one.request) for one in unique))
    summary = summarize(unique, len(tasks) - len(unique), chosen.environment)
    if chosen.check:
        print_check(unique, summary, cost, chosen.as_json)
        return
    if not chosen.yes:
        click.confirm(f"Create {summary}? Cost: {cost.summary}.", abort=True)
    print_outcomes(list(create_tasks(unique, file.name, chosen)), chosen.as_json)


def refuse_with_workflow(options: Options) -> None:
    """Raise UsageError for an option about requests, which a workflow has itself."""
    refused: dict[str, object] = {
        "--type": options.type_name,
        "--request": options.request_file,
        "--name": options.name,
        "--per-minute": options.per_minute,
    }
    if given := [option for option, value in refused.items() if value is not None]:
        raise click.UsageError(
            f"{given[0]} cannot be combined with --workflow: the workflow has the requests."
        )


def read_tasks(file: Path, options: Options) -> list[SubmittedTask]:
    """Return the task of each row. Raises ClickException for an unreadable file."""
    try:
        template = read_request(options.request_file)
        rows = itertools.islice(submission.read_rows(file), options.limit)
        prefix = service().settings.unique_id_prefix
        return [
            submission.task_for_row(
                row, options.name or file.stem, prefix, type_name=options.type_name, template=template
            )
            for row in rows
        ]
    except InvalidInput as error:
        raise click.ClickException(str(error)) from None


def read_request(file: Path | None) -> Template | None:
    """Return the request that all rows share. Raises ClickException."""
    if file is None:
        return None
    try:
        written = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.ClickException(f"Cannot read {file}: {error}") from None
    if not isinstance(written, dict):
        raise click.ClickException(f"{file} must be a mapping: the request to Scale.")
    template, errors = compile_template(written)
    for path, message in errors.items():
        raise click.ClickException(f"{file}: {'.'.join(map(str, path))}: {message}")
    for path, expression in expressions_in(template):
        if unknown := sorted(expression.names - {"row"}):
            where = ".".join(map(str, path))
            raise click.ClickException(
                f"{file}: {where}: unknown name {', '.join(unknown)}; only `row` exists."
            )
    return template


def reject_invalid_rows(tasks: Sequence[SubmittedTask]) -> None:
    """Raise ClickException with the first invalid rows, if there are any."""
    faults = [f"line {one.line}: {one.fault}" for one in tasks if one.fault]
    if faults:
        more = [f"… and {len(faults) - MAX_PRINTED} more"] if len(faults) > MAX_PRINTED else []
        lines = "\n".join([*map(printable, faults[:MAX_PRINTED]), *more])
        raise click.ClickException(f"{len(faults)} invalid rows; nothing was created:\n{lines}")


def summarize(tasks: Sequence[SubmittedTask], repeated: int, environment: str) -> str:
    """Return the number of tasks by type, for a question or a report."""
    counts = Counter(one.type for one in tasks)
    text = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())) or "no"
    return f"{text} tasks ({environment})" + (f"; {repeated} rows are repeated" if repeated else "")


def print_check(tasks: Sequence[SubmittedTask], summary: str, cost: Cost, as_json: bool) -> None:
    """Print what would be created, and what it costs."""
    if as_json:
        prices = service().prices
        print_json(
            [
                {**one._asdict(), "cost": cost_of_task(prices, one.type, one.request).to_json()}
                for one in tasks
            ]
        )
        return
    for one in tasks[:MAX_PRINTED]:
        click.echo(f"{one.unique_id}  {one.type}  {printable(one.request)}")
    click.echo(f"Would create {summary}. Cost: {cost.summary}.")


def create_tasks(tasks: Sequence[SubmittedTask], name: str, options: Options) -> Iterator[Outcome]:
    """Create the tasks and show the progress. Raises ClickException if no further task can be created now."""
    is_drawn = not options.as_json and console().is_terminal
    outcomes = submission.submit_all(
        service(),
        options.environment,
        tasks,
        name=name,
        actor=actor(),
        at_once=options.at_once,
        per_minute=options.per_minute,
    )
    try:
        with progress_bar(is_drawn) as bar:
            line = bar.add_task("creating", total=len(tasks))
            for number, outcome in enumerate(outcomes, 1):
                bar.advance(line)
                if not options.as_json and not is_drawn and number % PROGRESS_EVERY == 0:
                    click.echo(f"{number} of {len(tasks)}")
                yield outcome
    except (RetryLater, Unauthorized) as error:
        raise click.ClickException(f"{error}. Submit the same file again to continue.") from None


def progress_bar(is_shown: bool) -> Progress:
    """Return a progress bar that is only drawn if `is_shown`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console(), disable=not is_shown)


def print_outcomes(outcomes: Sequence[Outcome], as_json: bool) -> None:
    """Print each task's id and the counts. Exit with 1 if Scale refused a task."""
    ordered = sorted(outcomes)
    if as_json:
        print_json([outcome._asdict() for outcome in ordered])
    else:
        for outcome in ordered[:MAX_PRINTED]:
            if outcome.task_id:
                click.echo(f"{outcome.task_id}  {outcome.unique_id}")
        if len(ordered) > MAX_PRINTED:
            click.echo(f"… and {len(ordered) - MAX_PRINTED} more; --json prints all")
        counts = Counter(outcome.outcome for outcome in outcomes)
        click.echo(", ".join(f"{number} {what}" for what, number in sorted(counts.items())) + ".")
    refused = [f"line {one.line}: {one.reason}" for one in ordered if one.outcome == REFUSED]
    if refused and not as_json:
        raise click.ClickException("\n".join(map(printable, refused[:MAX_PRINTED])))
    if refused:
        raise click.exceptions.Exit(1)
