"""What a paused workflow or an invalid file missed is planned once it can be."""

from collections.abc import Iterator

import pytest

from pipeline.follow_ups import decisions, pauses
from pipeline.follow_ups.pauses import replay_missed_of_fixed_files
from tests.factories.callbacks import at, boxes, callback, receive_callback
from tests.factories.pipelines import EACH, ROOT, Pipeline, asks
from workflows.definition.model import InvalidWorkflow, Workflows


def test_a_paused_workflow_replays_what_it_missed(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()}, "one")
    pipeline.workflow({"ask": asks()}, "two")
    with pipeline.service.engine.begin() as connection:
        decisions.pause(connection, "one", "ana")
    pipeline.receive(boxes("car"))
    pipeline.receive(boxes("car"), updated_at=at(11), customer_review_status="accepted")
    assert list(pipeline.states()) == [f"two.ask.{ROOT}"]
    with pipeline.service.engine.begin() as connection:
        assert len(decisions.resume(connection, "one", "ana")) == 1
    pipeline.work()
    assert sorted(pipeline.states()) == [f"one.ask.{ROOT}", f"two.ask.{ROOT}"]


def test_a_join_of_a_paused_workflow_waits_for_its_end(pipeline: Pipeline) -> None:
    last = {"after": {"step": "each"}, "join": {"wait": "all", "reduce": "majority"}}
    pipeline.workflow({"each": EACH, "last": last})
    pipeline.receive(boxes("car"))
    (child,) = pipeline.children("each")
    with pipeline.service.engine.begin() as connection:
        decisions.pause(connection, "w", "ana")
    pipeline.finish(child, {"category": "yes"})
    assert pipeline.joins()[f"w.last.{ROOT}"]["fired_at"] is None
    with pipeline.service.engine.begin() as connection:
        decisions.resume(connection, "w", "ana")
    pipeline.work()
    pipeline.skip_waiting()
    assert pipeline.joins()[f"w.last.{ROOT}"]["verdict"] == "fire"


def test_an_invalid_file_replays_what_it_missed_once_it_is_fixed(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()}, "sound")
    pipeline.write("workflow: broken\nsteps: {ask: {after: {typ: imageannotation}}}", "broken")
    pipeline.receive(boxes("car"))
    assert list(pipeline.states()) == [f"sound.ask.{ROOT}"]
    with pipeline.service.engine.begin() as connection:
        assert replay_missed_of_fixed_files(connection, pipeline.service) == []
    pipeline.workflow({"ask": asks()}, "broken")
    with pipeline.service.engine.begin() as connection:
        assert len(replay_missed_of_fixed_files(connection, pipeline.service)) == 1
        assert pauses.replay_missed_of_fixed_files(connection, pipeline.service) == []
    pipeline.work()
    assert sorted(pipeline.states()) == [f"broken.ask.{ROOT}", f"sound.ask.{ROOT}"]


def test_files_that_are_loaded_while_a_task_is_planned_plan_it_afterwards(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has just started waits two seconds for its files, and then plans without them."""
    pipeline.workflow({"ask": asks()})
    receive_callback(pipeline.service, callback(boxes("car")))
    loaded = pipeline.service.workflows

    class LoadedAfterTheFirstRead:
        def __init__(self) -> None:
            self._reads = self._results()

        def _results(self) -> Iterator[Workflows]:
            yield Workflows((), (InvalidWorkflow("workflows", None, ()),))
            while True:
                yield loaded

        def read(self) -> Workflows:
            return next(self._reads)

    monkeypatch.setattr(pipeline.service, "workflow_files", LoadedAfterTheFirstRead())
    pipeline.work()
    assert pipeline.states() == {}
    with pipeline.service.engine.begin() as connection:
        assert len(replay_missed_of_fixed_files(connection, pipeline.service)) == 1
    pipeline.work()
    assert list(pipeline.states()) == [f"w.ask.{ROOT}"]
