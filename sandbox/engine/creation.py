"""Create a task: check the request, add its project's parameters and, under a test key, complete it at once."""

from typing import Any

from sandbox.engine import lifecycle
from sandbox.engine.delivery import deliver
from sandbox.engine.parameters import check_request, find_rules
from sandbox.engine.sandbox import Sandbox
from sandbox.engine.tasks import check_unique_id_is_free, inherited_params, new_task, task_object
from sandbox.settings import is_test_account

CALLBACK_FIRST_GRACE_MS = 60_000
"""The scheduler sends a callback that `callback_first` delivers only after this time, in case the process ends first."""


def create_task(
    sandbox: Sandbox, account: str, type_name: str, request: dict[str, Any], callback_first: bool = False
) -> dict[str, Any]:
    """Create a task and return its task object. Raises ScaleError.

    `callback_first` completes the task whatever its key, and delivers its callback before this returns.
    """
    find_rules(type_name)
    with sandbox.store.read() as session:
        project, batch, inherited = inherited_params(session, account, request)
        checked = check_request(type_name, request, inherited)
        check_unique_id_is_free(session, account, checked.general.get("unique_id"))
    task = new_task(account, type_name, checked, request, project, batch)
    # Outside of the transaction: annotators may read attachments and store files.
    complete_at_once = is_test_account(account) or callback_first
    result = lifecycle.annotate(sandbox, task) if complete_at_once else None
    callback_number = None
    with sandbox.store.write() as session:
        check_unique_id_is_free(session, account, task.unique_id)
        lifecycle.set_creation_time(task)
        session.add(task)
        if result is None:
            task.complete_at = lifecycle.completion_time(sandbox, task, batch)
        else:
            session.flush()
            delivery = lifecycle.finish(session, sandbox, task, result)
            if callback_first and delivery is not None and delivery.state == "pending":
                delivery.next_attempt_at = task.updated_at + CALLBACK_FIRST_GRACE_MS
                session.flush()
                callback_number = delivery.number
        shown = task_object(task)
    if callback_number is not None:
        deliver(sandbox, callback_number)
    sandbox.work_available.set()
    return shown
