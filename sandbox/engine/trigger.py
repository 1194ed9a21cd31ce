"""One real callback to any address, about a task that nobody created: to try an endpoint before there is anything else."""

from typing import Any, NamedTuple

from sandbox import annotators
from sandbox.annotators import PutFile
from sandbox.engine import lifecycle
from sandbox.engine.callbacks import Try, envelope, post
from sandbox.engine.parameters import check
from sandbox.engine.tasks import change, new_task
from sandbox.errors import ScaleError
from sandbox.examples import EXAMPLES, example
from sandbox.storage import clock

EVENTS = ("completed", "accepted", "rejected", "fixed", "commented", "recalled", "error")


class Triggered(NamedTuple):
    """What was sent, and what the receiver said."""

    task_id: str
    body: bytes
    outcome: Try


def trigger(
    type_name: str,
    event: str,
    url: str,
    callback_key: str,
    *,
    api_key: str,
    seed: int,
    put_file: PutFile,
    response: Any = None,
    changes: dict[str, Any] | None = None,
) -> Triggered:
    """POST the callback that Scale would make at this event of an example task; `changes` go over its request.

    Raises ScaleError where Scale would take no such task.
    """
    if type_name not in EXAMPLES:
        raise ScaleError(400, f"The type must be one of {', '.join(EXAMPLES)}")
    request = {**example(type_name), "callback_url": url, **(changes or {})}
    task = new_task(api_key, type_name, check(type_name, request), request, None, None)
    lifecycle.stamp(task)
    shown = {"type": type_name, "params": task.details["params"]}
    if event == "error":
        task.status = "error"
        change(task, response=annotators.error(shown, "attachments") if response is None else response)
    elif event == "recalled":
        change(task)
    else:
        answer = annotators.answer(shown, seed=seed, put_file=put_file) if response is None else response
        task.status, task.completed_at = "completed", clock.now()
        change(task, response=answer)
        if event != "completed":
            fixed = annotators.fix(shown, answer, seed=seed, put_file=put_file) if event == "fixed" else None
            lifecycle.review(task, event, None, fixed, "customer")
    body = envelope(task)
    headers = {"Content-Type": "application/json", "scale-callback-auth": callback_key}
    return Triggered(task.task_id, body, post(url, headers, body))
