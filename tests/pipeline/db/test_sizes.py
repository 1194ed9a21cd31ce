"""Details with large values: left out of a request with a memory budget, whole for everyone else."""

from sqlalchemy import insert

from models import FollowUp
from pipeline.db.ids import new_id, utcnow
from pipeline.db.memory_budget import memory_budget
from pipeline.db.sizes import MAX_VALUE_CHARACTERS
from pipeline.operations.queries.follow_ups import get_follow_up
from pipeline.service import Service


def test_a_large_request_is_left_out_of_a_bounded_read_and_its_project_is_known(service: Service) -> None:
    request = {"project": "night", "instruction": "x" * MAX_VALUE_CHARACTERS}
    row = {
        "unique_id": "f", "id": new_id(), "workflow": "w", "workflow_digest": "d", "step": "s", "state": "held",
        "environment": "live", "source_task_id": "t", "task_type": "annotation", "request": request, "planned_at": utcnow(),
    }  # fmt: skip
    with service.engine.begin() as connection:
        connection.execute(insert(FollowUp), [row])
    with service.reader.begin() as connection:
        whole = get_follow_up(connection, "f")
        with memory_budget():
            bounded = get_follow_up(connection, "f")
    assert (whole["request"], whole["left_out"]) == (request, [])
    assert (bounded["request"], bounded["left_out"]) == (None, ["request"])
    assert whole["request_project"] == bounded["request_project"] == "night"
