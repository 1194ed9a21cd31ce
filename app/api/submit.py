"""`POST /tasks`: the first task of a pipeline, created at Scale once under its unique_id."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Regexp

from app.api.blueprint import Blueprint, actor
from app.api.fields import environment_field
from app.api.lists import CostSchema, OutputSchema
from app.api.previews import loaded_workflow
from app.api.problems import ProblemError
from app.extensions import dispatcher, service
from pipeline.follow_ups import inputs, submit
from pipeline.follow_ups.submit import ALREADY_EXISTS, CREATED, InvalidInput
from pipeline.jobs.queue import RetryLater
from pipeline.operations.queries import Record
from scale.client import PermanentError, ScaleError, Throttled

blueprint = Blueprint("submit", "First tasks and inputs of a pipeline.")

MAX_INPUTS = 1_000
"""Inputs of one request."""


class Submission(Schema):
    """The body of a request for a task."""

    type = fields.String(
        required=True, validate=Length(1, 64), metadata={"description": "Type of the task at Scale."}
    )
    request = fields.Dict(
        required=True,
        metadata={
            "description": "The request to Scale, without callback_url and unique_id, which are added."
        },
    )
    unique_id = fields.String(
        validate=Regexp(r"^[A-Za-z0-9._-]{1,120}$"),
        metadata={
            "description": "Id of the task. By default it is derived from the request, so that sending the same request again creates nothing."
        },
    )
    environment = environment_field(load_default="live")


class Submitted(OutputSchema):
    """The task, and whether it was created or existed already."""

    task_id = fields.String()
    unique_id = fields.String()
    outcome = fields.String(validate=OneOf((CREATED, ALREADY_EXISTS)))


class Inputs(Schema):
    """The body of a request that starts a workflow."""

    inputs = fields.List(
        fields.Dict(),
        required=True,
        validate=Length(1, MAX_INPUTS),
        metadata={
            "description": "Inputs of the steps with `start`, which see each as `row`. `unique_id` of an input is its id;"
            " by default the id is derived from its content, so that sending the same input again starts nothing."
        },
    )
    environment = environment_field(load_default="live")
    dry_run = fields.Boolean(
        load_default=False, metadata={"description": "Only return what would follow; nothing is written."}
    )


class StartedInput(OutputSchema):
    """One input, and whether it is new."""

    task_id = fields.String(
        metadata={"description": "Id of the input, for /tasks/{task_id} and its lineage."}
    )
    outcome = fields.String(validate=OneOf((CREATED, ALREADY_EXISTS)))


class Started(OutputSchema):
    """What follows from the inputs."""

    inputs = fields.List(fields.Nested(StartedInput), metadata={"description": "Empty in a dry run."})
    follow_ups = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Number of follow-ups by state: created, held, skipped, already_exists."},
    )
    cost = fields.Nested(CostSchema, metadata={"description": "Expected cost of those that are created."})
    examples = fields.List(
        fields.Dict(), metadata={"description": "The first follow-ups with their requests."}
    )


@blueprint.post("/workflows/<string:name>/inputs")
@blueprint.arguments(Inputs)
@blueprint.response(200, Started)
def start_workflow(given: Mapping[str, Any], name: str) -> Record:
    """Start a workflow with inputs: no first task is needed"""
    workflow = loaded_workflow(name)
    environment = given["environment"]
    rows = [submit.Row(number, row) for number, row in enumerate(given["inputs"], 1)]
    try:
        found = inputs.read_inputs(service(), workflow, rows, environment)
    except InvalidInput as refused:
        raise ProblemError(422, f"{refused}.") from None
    preview = inputs.preview_inputs(service(), workflow, found, environment)
    if faults := preview.faults:
        line, fault = min(faults.items())
        raise ProblemError(422, f"{len(faults)} invalid inputs; nothing was started. Input {line}: {fault}.")
    if given["dry_run"]:
        return started_body([], preview)
    outcomes, jobs = inputs.start(service(), workflow, found, environment, actor())
    dispatcher().dispatch(jobs)
    return started_body(outcomes, preview)


def started_body(outcomes: Iterable[tuple[inputs.Input, str]], preview: inputs.InputPreview) -> Record:
    """Return what follows from inputs as the API and the command show it."""
    return {
        "inputs": [{"task_id": one.task_id, "outcome": outcome} for one, outcome in outcomes],
        "follow_ups": dict(preview.states),
        "cost": preview.cost.to_json(),
        "examples": preview.follow_ups,
    }


@blueprint.post("/tasks")
@blueprint.arguments(Submission)
@blueprint.response(200, Submitted)
def submit_task(given: Mapping[str, Any]) -> Record:
    """Create a task at Scale, once for each unique_id"""
    row = submit.Row(
        1, {**given["request"], **({"unique_id": given["unique_id"]} if "unique_id" in given else {})}
    )
    one = submit.task_for_row(row, "api", service().settings.unique_id_prefix, type_name=given["type"])
    try:
        return submit.submit_one(service(), given["environment"], one, actor())._asdict()
    except InvalidInput as fault:
        raise ProblemError(422, str(fault)) from None
    except RetryLater as later:
        raise ProblemError(409, str(later), Retry_After=str(math.ceil(later.delay))) from None
    except Throttled as slow:
        seconds = math.ceil(slow.delay)
        raise ProblemError(429, f"Scale API rate limit: {slow.message}", Retry_After=str(seconds)) from None
    except PermanentError as refused:
        raise ProblemError(422, f"Scale API error {refused.status}: {refused.message}") from None
    except ScaleError as doubt:
        raise ProblemError(502, f"Scale API error: {doubt.message}; send the same request again.") from None
