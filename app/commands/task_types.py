"""`weighbridge task-types`: the supported task types."""

from __future__ import annotations

import click

from app.commands.group import Command
from app.commands.output import as_json, print_rows
from scale.task_types import GENERIC, TASK_TYPES


@click.command("task-types", cls=Command)
@as_json
def task_types(as_json: bool) -> None:
    """List the supported task types and their results."""
    rows = [
        {
            "name": known.name,
            "result_form": known.result_form,
            "yields": list(known.yields),
            "takes_layers": known.request is not None and known.request.takes_layers,
            "required": ["|".join(group) for group in known.request.required] if known.request else [],
            "description": known.description,
        }
        for known in (*TASK_TYPES, GENERIC)
    ]
    if not as_json:
        rows = [{**row, "yields": ", ".join(row["yields"]) or "answer"} for row in rows]  # type: ignore[arg-type]
    print_rows(
        rows, ("name", "result_form", "yields", "takes_layers", "description"), as_json, "No task types."
    )
