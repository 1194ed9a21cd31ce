"""A task is created: checked, given its project's parameters, and, under a test key, answered before its creation is."""

from typing import Any

from sandbox.engine import lifecycle
from sandbox.engine.parameters import check, rules_of
from sandbox.engine.sandbox import Sandbox
from sandbox.engine.tasks import inherited_params, new_task, refuse_taken_unique_id, task_object
from sandbox.settings import is_test_key


def create(
    world: Sandbox, account: str, type_name: str, request: dict[str, Any], callback_first: bool = False
) -> dict[str, Any]:
    """The new task as Scale would answer. Raises ScaleError.

    `callback_first` completes the task whatever the key, and delivers its callback before this returns.
    """
    rules_of(type_name)
    with world.store.read() as session:
        project, batch, inherited = inherited_params(session, account, request)
        checked = check(type_name, request, inherited)
        refuse_taken_unique_id(session, account, checked.general.get("unique_id"))
    task = new_task(account, type_name, checked, request, project, batch)
    at_once = is_test_key(account) or callback_first
    # Outside of the transaction: annotators may read attachments, and they keep files.
    done = lifecycle.answer(world, task) if at_once else None
    early = None
    with world.store.write() as session:
        refuse_taken_unique_id(session, account, task.unique_id)
        lifecycle.stamp(task)
        session.add(task)
        if done is None:
            task.answer_at = lifecycle.due(world, task, batch)
        else:
            session.flush()
            delivery = lifecycle.settle(session, world, task, done)
            if callback_first and delivery is not None and delivery.state == "pending":
                # The office leaves it alone for so long; should this process die, it will be sent then.
                delivery.next_try_at = task.updated_at + 60_000
                session.flush()
                early = delivery.number
        shown = task_object(task)
    if early is None:
        world.wake()
    else:
        world.deliver_now(early)
    return shown
