"""Start a workflow with inputs, without a task at Scale: each input is stored as a result, and planning follows it.

An input is received like a callback, as a delivery of the kind `input`. Equal inputs are stored once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import select

from models import Task
from pipeline.access.audit import log_action
from pipeline.follow_ups.activation import activations
from pipeline.follow_ups.preview import Preview
from pipeline.follow_ups.prices import Cost, project_of
from pipeline.follow_ups.submit import ALREADY_EXISTS, CREATED, InvalidInput, Row
from pipeline.receive.receive import receive
from pipeline.service import Service
from scale.canonical import canonical_json
from workflows.definition.model import INPUT, Workflow
from workflows.planning.inputs import input_id, input_task, missing_columns, takes_inputs
from workflows.planning.reasons import ReasonCode
from workflows.planning.view import view

ID_BATCH_SIZE = 500
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Input(NamedTuple):
    """One input of a workflow."""

    line: int
    task_id: str
    row: dict[str, Any]
    fault: str | None = None  # why the workflow does not take it


class InputPreview(NamedTuple):
    """The follow-ups of some inputs."""

    states: Counter[str]  # number of follow-ups by what would become of them
    cost: Cost  # of those that would be created
    follow_ups: list[dict[str, Any]]  # the first ones, as Preview.of yields them
    faults: dict[
        int, str
    ]  # line → why the workflow does not take the input, or a request of it could not be sent


def read_inputs(service: Service, workflow: Workflow, rows: Iterable[Row], environment: str) -> list[Input]:
    """Return the inputs of these rows, each once. Raises InvalidInput if the workflow takes none."""
    if not takes_inputs(workflow):
        raise InvalidInput(f"no step of the workflow {workflow.name} has a `start`, so it takes no inputs")
    found: dict[str, Input] = {}
    invalid: list[Input] = []
    for row in rows:
        one = _input(workflow, row, environment)
        first = found.setdefault(one.task_id, one) if one.fault is None else one
        if first is not one and first.row != one.row:
            one = one._replace(fault=f"its unique_id is already used by line {first.line} for another input")
        if one.fault is not None:
            invalid.append(one)
    return sorted([*_compared(service, found), *invalid])


def _input(workflow: Workflow, row: Row, environment: str) -> Input:
    fields = dict(row.fields)
    key = fields.pop("unique_id", None)
    if key is not None and not _KEY.fullmatch(str(key)):
        fault = "its unique_id must have 1 to 100 letters, digits, or . _ -"
        return Input(row.line, "", fields, fault)
    task_id = input_id(workflow.name, fields, environment, None if key is None else str(key))
    missing = missing_columns(workflow, fields)
    return Input(row.line, task_id, fields, f"has no {', '.join(missing)}" if missing else None)


def _compared(service: Service, found: Mapping[str, Input]) -> Iterable[Input]:
    """Yield the inputs; one whose id is stored with another content gets a fault."""
    for ids in chunked(found, ID_BATCH_SIZE):
        with service.reader.begin() as connection:
            columns = select(Task.task_id, Task.params).where(Task.task_id.in_(ids))
            stored = {row.task_id: row.params for row in connection.execute(columns)}
        for task_id in ids:
            one = found[task_id]
            is_other = task_id in stored and (stored[task_id] or {}) != one.row
            yield one._replace(fault="its unique_id was used before for another input") if is_other else one


def preview_inputs(
    service: Service, workflow: Workflow, inputs: Iterable[Input], environment: str, examples: int = 20
) -> InputPreview:
    """Return what would follow from the inputs, up to the limits. Nothing is written."""
    preview = Preview(service, [workflow])
    found = InputPreview(Counter(), Cost(service.prices), [], {})
    for one in inputs:
        if one.fault is not None:
            found.faults[one.line] = one.fault
            continue
        task = input_task(workflow.name, one.task_id, one.row)
        for follow_up in preview.of(view(task, task["response"], environment=environment)):
            found.states[follow_up["state"]] += 1
            if follow_up["reason_code"] == ReasonCode.INVALID:
                found.faults.setdefault(one.line, f"{follow_up['step']}: {follow_up['reason']}")
            if follow_up["state"] == "created":
                found.cost.add(follow_up["type"], project_of(follow_up["request"]))
            if len(found.follow_ups) < examples:
                found.follow_ups.append(follow_up)
    return found


def start(
    service: Service, workflow: Workflow, inputs: Sequence[Input], environment: str, actor: str
) -> tuple[list[tuple[Input, str]], list[UUID]]:
    """Store the inputs, and audit how many. Returns each with `created` or `already_exists`, and the jobs to dispatch.

    An interruption leaves the rest for the next call with the same inputs.
    """
    activations(service)  # the steps apply from before the inputs on
    outcomes: list[tuple[Input, str]] = []
    jobs: list[UUID] = []
    try:
        for one in inputs:
            body = canonical_json(input_task(workflow.name, one.task_id, one.row))
            receipt = receive(service, body, environment, kind=INPUT)
            outcomes.append((one, ALREADY_EXISTS if receipt.status == "duplicate" else CREATED))
            jobs += receipt.jobs
    finally:
        with service.engine.begin() as connection:
            counts = Counter(outcome for _, outcome in outcomes)
            log_action(connection, actor, "workflow.start", workflow.name, dict(counts))
    return outcomes, jobs
