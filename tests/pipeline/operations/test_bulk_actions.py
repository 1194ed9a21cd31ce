"""Bulk actions: they decide about what was confirmed, are continued by a worker, and can be stopped."""

from uuid import UUID

import pytest

from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.jobs import kinds, queue
from pipeline.operations import bulk_actions
from pipeline.operations.bulk_actions import find_action, get_action, request_action
from pipeline.operations.queries.jobs import list_jobs
from pipeline.service import Service
from workers.runner import run_due_jobs

RETRY = find_action("jobs.retry")


@pytest.fixture
def dead_jobs(service: Service) -> int:
    """More dead jobs than one batch takes."""
    count = bulk_actions.BATCH_SIZE + 10
    with service.engine.begin() as connection:
        queue.enqueue(connection, "unheard-of", [str(number) for number in range(count)])
    for _ in range(count):
        job = queue.claim(service.engine, 60)
        assert job is not None
        with service.engine.begin() as connection:
            queue.mark_dead(connection, job, "no such kind")
    return count


def begin(service: Service, expected: int) -> UUID:
    with service.engine.begin() as connection:
        return request_action(connection, RETRY, {"kind": "unheard-of"}, "ana", expected, None)


def dead(service: Service) -> int:
    with service.reader.begin() as connection:
        return len(list_jobs(connection, {"state": "dead"}).rows)


def test_a_worker_continues_what_a_web_process_began(service: Service, dead_jobs: int) -> None:
    action_id = begin(service, dead_jobs)
    with service.engine.begin() as connection:
        (job_id,) = queue.enqueue(connection, kinds.BULK, [str(action_id)])
    run_due_jobs(service, job_id)
    with service.reader.begin() as connection:
        row = get_action(connection, action_id)
    assert (row["state"], row["done"], row["failed"]) == ("completed", dead_jobs, 0)
    assert dead(service) == 0


def test_no_more_rows_are_decided_about_than_were_confirmed(service: Service, dead_jobs: int) -> None:
    action_id = begin(service, 3)
    assert bulk_actions.run_action(service, action_id, lambda _: None, 60)
    assert dead(service) == dead_jobs - 3


def test_a_stopped_action_decides_about_nothing_more(service: Service, dead_jobs: int) -> None:
    action_id = begin(service, dead_jobs)
    with service.engine.begin() as connection:
        bulk_actions.stop_action(connection, action_id, "bea")
    assert bulk_actions.run_action(service, action_id, lambda _: None, 60)
    assert dead(service) == dead_jobs
    with service.engine.begin() as connection, pytest.raises(InvalidTransition):
        bulk_actions.stop_action(connection, action_id, "bea")


def test_the_command_of_an_action_names_its_filters() -> None:
    approve = find_action("follow-ups.approve")
    assert approve.shell_line({"workflow": "a b"}) == "weighbridge follow-ups approve --workflow 'a b'"
    assert approve.shell_line({}) == "weighbridge follow-ups approve --since 2000-01-01"
    cancel = find_action("follow-ups.cancel")
    assert cancel.shell_line({"step": "x", "state": "held"}).endswith("--step x  # only where state = held")
