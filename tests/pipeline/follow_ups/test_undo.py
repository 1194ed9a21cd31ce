"""A workflow that created wrong tasks is undone: what is not done is canceled at Scale, also after an interruption."""

from pipeline.follow_ups import decisions
from pipeline.operations.queries.follow_ups import count_by_state, matching_unique_ids
from pipeline.operations.queries.runs import get_run
from tests.factories.callbacks import boxes
from tests.factories.pipelines import ROOT, Pipeline, asks
from workers.runner import next_job, run_job


def test_every_task_that_is_not_done_is_canceled_at_scale(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(for_each="annotation")})
    pipeline.receive(boxes("car", "bus", "tree", "cat"))
    done, *wrong = pipeline.children("ask")
    pipeline.finish(done)
    service = pipeline.service
    with service.engine.begin() as connection:
        chosen = matching_unique_ids(connection, {"workflow": "w"}, ("held", "planned", "created"))
        assert count_by_state(connection, chosen) == {"created": 3}
        for unique_id in chosen:
            decisions.cancel(connection, unique_id, "ana")
    first = next_job(service)
    assert first is not None
    run_job(service, first)  # and the worker is stopped here
    pipeline.work()
    states = {task["task_id"]: task["status"] for task in pipeline.sandbox.tasks()}
    assert {states[task_id] for task_id in wrong} == {"canceled"}
    assert states[done] == "completed"
    assert sorted(pipeline.states().values()) == ["canceled", "canceled", "canceled", "completed"]
    with service.reader.begin() as connection:
        run = get_run(connection, wrong[0], service.prices)
    assert (run["task_id"], run["open"], run["state"]) == (ROOT, 0, "completed")
