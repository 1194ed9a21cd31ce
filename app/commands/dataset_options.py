"""Options that `datasets create` and `export` share: which tasks, split how, with which classes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from app.commands.output import add_options
from app.commands.timestamps import TIMESTAMP
from pipeline.datasets.filters import Filters, Unusable, parse_filters
from pipeline.datasets.splits import check_split_by, parse_shares
from pipeline.datasets.versions import Request, UnknownDataset, parse_classes

FILTERS = (
    "type", "project", "batch", "tag", "environment", "status", "review", "label", "workflow", "step", "metadata",
    "since", "until",
)  # fmt: skip


class MetadataType(click.ParamType[tuple[str, str]]):
    """Accept KEY=VALUE."""

    name = "metadata"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split KEY=VALUE. Fails without a key and an equals sign."""
        if isinstance(value, tuple):
            return value
        key, found, wanted = value.partition("=")
        if not found or not key:
            self.fail(f"{value!r} names no key and value; write for example scene=12", param, ctx)
        return key, wanted


filter_options = add_options(
    click.option("--type", multiple=True, metavar="TYPE", help="Task types."),
    click.option("--project", multiple=True, help="Projects."),
    click.option("--batch", multiple=True, help="Batches."),
    click.option("--tag", multiple=True, help="Tasks with this tag."),
    click.option("--environment", multiple=True, help="live (default) or test."),
    click.option("--status", multiple=True, help="Scale's own word; default completed."),
    click.option("--review", multiple=True, help="accepted, fixed, rejected …; several by comma."),
    click.option("--label", multiple=True, help="Tasks that have an annotation with this label."),
    click.option("--workflow", multiple=True, help="Tasks that this workflow created."),
    click.option("--step", multiple=True, help="Tasks that this step of a workflow created."),
    click.option("--since", help="Changed by Scale then or later: 2026-01-31, 2h, 7d."),
    click.option("--until", help="Changed by Scale before then."),
    click.option(
        "--metadata", multiple=True, type=MetadataType(), metavar="KEY=VALUE",
        help="Tasks whose metadata have this value.",
    ),
)  # fmt: skip
"""Adds the options that choose tasks. Each but --since and --until may be given several times."""


split_options = add_options(
    click.option("--split", "shares", metavar="SHARES", help="For example train=0.8,val=0.1,test=0.1."),
    click.option(
        "--split-by",
        metavar="KEY",
        help="Keep together what shares a task, attachment, lineage (default) or metadata.KEY.",
    ),
    click.option(
        "--classes",
        type=click.File("r", encoding="utf-8-sig"),
        metavar="FILE",
        help="The labels in the order of their ids, one a line.",
    ),
)
"""Adds --split, --split-by and --classes."""


def parse_moment(text: str | None) -> datetime | None:
    """Parse 2026-01-31, 2026-01-31T09:30:00Z, 2h or 7d. Raises Unusable."""
    try:
        return None if text is None else TIMESTAMP.convert(text, None, None)
    except click.BadParameter as problem:
        raise Unusable(problem.message) from None


def take_request(options: dict[str, Any], as_of: str | None = None) -> Request:
    """Return the request in these options: those of `filter_options` and `split_options`. Raises Unusable."""
    given = {name: options.pop(name) for name in FILTERS}
    given["metadata"] = dict(given["metadata"])
    given |= {name: parse_moment(given[name]) for name in ("since", "until")}
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    chosen: Filters | None = parse_filters(given) if any(given.values()) else None
    shares, split_by, classes = (options.pop(name) for name in ("shares", "split_by", "classes"))
    return Request(
        filters=chosen,
        as_of=parse_moment(as_of),
        shares=parse_shares(shares) if shares is not None else None,
        split_by=check_split_by(split_by) if split_by is not None else None,
        classes=read_classes(classes) if classes is not None else None,
    )


def read_classes(file: Any) -> Sequence[str]:
    """Return the labels in the file, one a line. Raises Unusable."""
    try:
        return parse_classes(file.read())
    except UnicodeDecodeError:
        raise Unusable(f"{file.name} is not UTF-8 text.") from None


class DatasetErrors:
    """Print what is wrong with a name, filter, split or time as one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises ClickException for Unusable and UnknownDataset."""
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except (Unusable, UnknownDataset) as problem:
            raise click.ClickException(str(problem.args[0])) from None
