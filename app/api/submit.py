"""`POST /tasks`: the first task of a pipeline, created at Scale once under its unique_id."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Regexp

from app.api.blueprint import Blueprint, actor
from app.api.lists import OutputSchema
from app.api.problems import ProblemError
from app.extensions import service
from pipeline.follow_ups import submit
from pipeline.follow_ups.submit import ALREADY_EXISTS, CREATED, InvalidInput
from pipeline.jobs.queue import RetryLater
from pipeline.operations.queries import Record
from scale.client import PermanentError, ScaleError, Throttled

blueprint = Blueprint("submit", "First tasks of a pipeline.")


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
    environment = fields.String(load_default="live", validate=OneOf(("live", "test")))


class Submitted(OutputSchema):
    """The task, and whether it was created or existed already."""

    task_id = fields.String()
    unique_id = fields.String()
    outcome = fields.String(validate=OneOf((CREATED, ALREADY_EXISTS)))


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
