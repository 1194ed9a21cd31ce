"""Send one callback about an example task that does not exist, to try an endpoint before there is anything else."""

from typing import Any, NamedTuple

from sandbox import annotators
from sandbox.annotators import AnnotatorContext
from sandbox.engine import lifecycle
from sandbox.engine.callbacks import Attempt, envelope, post
from sandbox.engine.parameters import check_request
from sandbox.engine.tasks import new_task, update_task
from sandbox.errors import ScaleError
from sandbox.examples import EXAMPLES, example
from sandbox.settings import account_of
from sandbox.storage import clock
from sandbox.storage.store import Task

EVENTS = ("completed", "accepted", "rejected", "fixed", "commented", "recalled", "error")


class SentCallback(NamedTuple):
    """Hold a callback that was sent and the receiver's answer."""

    task_id: str
    body: bytes
    outcome: Attempt


def trigger(
    type_name: str,
    event: str,
    url: str,
    callback_key: str,
    *,
    api_key: str,
    context: AnnotatorContext,
    response: Any = None,
    changes: dict[str, Any] | None = None,
) -> SentCallback:
    """POST the callback that Scale would send for an event of an example task; `changes` override its request.

    Raises ScaleError if Scale would refuse the request.
    """
    if type_name not in EXAMPLES:
        raise ScaleError(400, f"The type must be one of {', '.join(EXAMPLES)}")
    request = {**example(type_name), "callback_url": url, **(changes or {})}
    checked = check_request(type_name, request)
    task = new_task(account_of(api_key), type_name, checked, request, None, None)
    lifecycle.set_creation_time(task)
    _apply_event(task, event, response, context)
    body = envelope(task)
    headers = {"Content-Type": "application/json", "scale-callback-auth": callback_key}
    return SentCallback(task.task_id, body, post(url, headers, body))


def _apply_event(task: Task, event: str, response: Any, context: AnnotatorContext) -> None:
    """Bring a pending task into the state after the event."""
    shown = {"type": task.type, "params": task.details["params"]}
    if event == "error":
        task.status = "error"
        error = annotators.make_error_response(shown, "attachments") if response is None else response
        update_task(task, response=error)
    elif event == "recalled":
        update_task(task)
    else:
        first = annotators.make_response(shown, context) if response is None else response
        task.status, task.completed_at = "completed", clock.now()
        update_task(task, response=first)
        if event != "completed":
            fixed = annotators.fix_response(shown, first, context) if event == "fixed" else None
            lifecycle.add_review(task, event, None, fixed, "customer")
