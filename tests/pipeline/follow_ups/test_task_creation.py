"""One task at Scale for each follow-up, whatever Scale answers, or does not."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from models import CreationPause, RateLimit
from pipeline.bootstrap import build_service
from pipeline.db.ids import utcnow
from pipeline.follow_ups import decisions, task_creation
from pipeline.jobs import kinds
from pipeline.operations.queries.creation import creation_status
from sandbox.pytest_plugin import ScaleSandbox
from scale.client import Client
from tests.assertions import TimeSpan, table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import ROOT, Pipeline, asks

EACH = asks(for_each="annotation")
ASK = f"w.ask.{ROOT}"


def pause_of(pipeline: Pipeline) -> dict[str, Any] | None:
    return next(iter(table(pipeline.service, RateLimit)), None)


@pytest.mark.parametrize("fault", ["error_before", "error_after", "reset", "reset_after"])
def test_a_doubtful_answer_ends_in_one_task(pipeline: Pipeline, fault: str) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault(fault, times=2)
    pipeline.receive(boxes("car"))
    assert pipeline.states() == {ASK: "planned"}
    for _ in range(2):
        pipeline.skip_waiting()
    assert pipeline.states() == {ASK: "created"}
    assert len(pipeline.sandbox.tasks()) == 1
    assert pipeline.jobs() == []


@pytest.mark.parametrize("fault", ["hang", "hang_after"])
def test_an_answer_that_never_comes_ends_in_one_task(pipeline: Pipeline, fault: str) -> None:
    settings = pipeline.service.settings
    impatient = Client(settings.scale_api_url, settings.scale_api_key or "", read_timeout=0.3)
    pipeline.service.scale_clients = {"live": impatient}
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault(fault, times=1, seconds=1)
    pipeline.receive(boxes("car"))
    assert pipeline.states() == {ASK: "planned"}
    pipeline.skip_waiting()
    assert pipeline.states() == {ASK: "created"}
    assert len(pipeline.sandbox.tasks()) == 1


@pytest.mark.parametrize("status", [400, 402, 404])
def test_what_scale_refuses_for_good_says_scales_words_on_the_follow_up(
    pipeline: Pipeline, status: int
) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault("refused", status=status, times=1)
    pipeline.receive(boxes("car"))
    (row,) = pipeline.follow_ups().values()
    assert row["state"] == "failed"
    assert row["reason"].startswith(f"Scale refused it with {status}: ")
    assert len(row["reason"]) > len(f"Scale refused it with {status}: ")
    with pipeline.service.engine.begin() as connection:
        decisions.retry(connection, ASK, "ana")
    pipeline.work()
    assert pipeline.states() == {ASK: "created"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_pauses_creation_and_it_resumes_by_itself(pipeline: Pipeline, status: int) -> None:
    pipeline.workflow({"each": EACH})
    pipeline.sandbox.add_fault("refused", status=status)
    with TimeSpan() as then:
        pipeline.receive(boxes(*["car"] * 8))
    assert Counter(pipeline.states().values()) == {"planned": 8}
    pause = pause_of(pipeline)
    assert pause is not None
    assert pause["reason"].startswith("Scale refuses the API key: ")
    assert pause["until"] in then.shift(60)
    assert all(job["attempts"] == 0 for job in pipeline.jobs())
    pipeline.sandbox.clear_faults()
    end_pause(pipeline)
    assert Counter(pipeline.states().values()) == {"created": 8}
    assert pause_of(pipeline) is None


def end_pause(pipeline: Pipeline) -> None:
    with pipeline.service.engine.begin() as connection:
        connection.execute(update(RateLimit).values(until=utcnow()))
    pipeline.skip_waiting()


def test_a_throttle_slows_every_worker_down(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH})
    pipeline.sandbox.add_fault("throttled", retry_after=30, times=1)
    with TimeSpan() as then:
        pipeline.receive(boxes("car"))
        pipeline.receive(boxes(*["car"] * 8), task_id="5f1e9b000000000000000002")
        pipeline.work_with(4)
    assert pipeline.sandbox.tasks() == []
    pause = pause_of(pipeline)
    assert pause is not None
    assert pause["reason"] == "Scale asks to slow down"
    assert pause["until"] in then.shift(30)
    end_pause(pipeline)
    assert len(pipeline.sandbox.tasks()) == 9


def test_a_test_account_goes_on_while_the_live_one_is_paused(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault("refused", status=401, account=pipeline.sandbox.live_key)
    pipeline.receive(boxes("car"))
    pipeline.receive(boxes("car"), task_id="5f1e9b000000000000000002", is_test=True)
    assert sorted(pipeline.states().values()) == ["created", "planned"]
    assert len(pipeline.sandbox.tasks(key=pipeline.sandbox.test_key)) == 1


def test_nothing_is_created_while_creation_is_paused(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    with pipeline.service.engine.begin() as connection:
        decisions.pause_creation(connection, "ana")
    pipeline.receive(boxes("car"))
    assert pipeline.states() == {ASK: "planned"}
    (job,) = pipeline.jobs()
    assert "weighbridge creation resume" in job["last_error"]
    with pipeline.service.engine.begin() as connection:
        decisions.resume_creation(connection, "ana")
    pipeline.skip_waiting()
    assert pipeline.states() == {ASK: "created"}


def test_without_a_key_follow_ups_are_held_and_released_once_it_is_there(
    open_pipeline: Callable[..., Pipeline],
) -> None:
    from pipeline.follow_ups.recording import release

    without = open_pipeline(scale_api_key=None)
    without.workflow({"ask": asks()})
    without.receive(boxes("car"))
    (row,) = without.follow_ups().values()
    assert (row["state"], row["reason"]) == ("held", "SCALE_API_KEY is not set")
    with_key = Pipeline(
        reopened(without, scale_api_key=without.sandbox.live_key), without.sandbox, without.folder
    )
    with with_key.service.engine.begin() as connection:
        assert release(connection, with_key.service) == 1
    with_key.work()
    assert with_key.states() == {ASK: "created"}


def reopened(pipeline: Pipeline, **settings: Any) -> Any:
    from dataclasses import replace

    from pipeline.bootstrap import build_service

    return build_service(
        replace(pipeline.service.settings, **settings), engine=pipeline.service.engine, cache_seconds=0
    )


def test_a_task_of_another_type_with_our_unique_id_is_not_adopted(pipeline: Pipeline) -> None:
    request = {"attachment": "https://example.com/a.png", "objects_to_annotate": ["car"]}
    pipeline.sandbox.create("annotation", **request, unique_id=ASK, callback_url="http://127.0.0.1:9/")
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["reason_code"]) == ("failed", "refused")
    assert "That task is not ours: its type is 'annotation', not 'categorization'" in row["reason"]


@pytest.mark.parametrize("new_url", ["http://127.0.0.1:10", "https://weighbridge.example/labels"])
def test_our_task_is_adopted_after_public_url_has_changed(
    open_pipeline: Callable[..., Pipeline], new_url: str
) -> None:
    """The answer to the POST is lost, and the worker is restarted with another PUBLIC_URL."""
    pipeline = open_pipeline()
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault("error_after", times=1)
    pipeline.receive(boxes("car"))
    assert pipeline.states() == {ASK: "planned"}
    restarted = replace(pipeline.service.settings, public_url=new_url)
    pipeline.service.settings = restarted
    pipeline.skip_waiting()
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["reason_code"]) == ("created", None)
    assert "calls back to http://127.0.0.1:9/callbacks/scale" in row["reason"]
    (task,) = pipeline.sandbox.tasks()
    assert row["task_id"] == task["task_id"]


@pytest.mark.parametrize("environment", ["live", "test"])
def test_a_key_of_the_other_environment_stops_creation_at_the_first_task(
    open_pipeline: Callable[..., Pipeline], sandbox: ScaleSandbox, environment: str
) -> None:
    pipeline = open_pipeline(scale_api_key=sandbox.test_key, scale_test_api_key=sandbox.live_key)
    pipeline.workflow({"each": EACH})
    receive_callback(
        pipeline.service,
        callback(boxes("car", "van", "bus"), is_test=environment == "test"),
        environment=environment,
    )
    pipeline.work()
    assert set(pipeline.states().values()) == {"planned"}
    (made,) = [*sandbox.tasks(sandbox.live_key), *sandbox.tasks(sandbox.test_key)]
    assert made["status"] == ("canceled" if environment == "test" else "completed")
    (pause,) = table(pipeline.service, CreationPause)
    assert (pause["environment"], pause["paused_by"]) == (environment, "weighbridge")
    setting = "SCALE_TEST_API_KEY" if environment == "test" else "SCALE_API_KEY"
    assert f"Set a {environment} key" in pause["reason"]
    assert pause["reason"].startswith(setting)
    with pipeline.service.reader.begin() as connection:
        status = creation_status(connection)
    assert (status["environments"], status["reason"]) == ([environment], pause["reason"])
    right_keys = replace(
        pipeline.service.settings, scale_api_key=sandbox.live_key, scale_test_api_key=sandbox.test_key
    )
    pipeline.service.settings = right_keys
    pipeline.service.scale_clients = build_service(right_keys, engine=pipeline.service.engine).scale_clients
    with pipeline.service.engine.begin() as connection:
        decisions.resume_creation(connection, "ana")
    pipeline.skip_waiting()
    assert set(pipeline.states().values()) == {"created"}


def test_a_callback_that_overtakes_the_answer_finds_its_follow_up(pipeline: Pipeline) -> None:
    """The worker's POST hangs after Scale has made the task; its callback is received before the job is tried again."""
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault("error_after", times=1)
    pipeline.receive(boxes("car"))
    (task,) = pipeline.sandbox.tasks()
    pipeline.finish(task["task_id"], {"category": "yes"})
    assert pipeline.states() == {ASK: "completed"}
    pipeline.skip_waiting()
    assert pipeline.states() == {ASK: "completed"}
    assert len(pipeline.sandbox.tasks()) == 1


def test_what_is_canceled_while_scale_is_asked_is_canceled_there_too(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:

    asked = task_creation.create_or_adopt

    def canceled_meanwhile(client: Any, task_type: str, request: dict[str, Any]) -> dict[str, Any]:
        task = asked(client, task_type, request)
        with pipeline.service.engine.begin() as connection:
            decisions.cancel(connection, request["unique_id"], "ana")
        return task

    monkeypatch.setattr(task_creation, "create_or_adopt", canceled_meanwhile)
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    assert pipeline.states() == {ASK: "canceled"}
    (task,) = pipeline.sandbox.tasks()
    assert task["status"] == "canceled"


def test_a_worker_that_lost_its_job_while_scale_was_asked_changes_nothing(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:

    asked = task_creation.create_or_adopt

    def overtaken(client: Any, task_type: str, request: dict[str, Any]) -> dict[str, Any]:
        task = asked(client, task_type, request)
        monkeypatch.setattr(task_creation, "create_or_adopt", asked)
        make_leases_end(pipeline)
        pipeline.work()
        assert pipeline.states() == {ASK: "created"}
        return task

    monkeypatch.setattr(task_creation, "create_or_adopt", overtaken)
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    assert pipeline.states() == {ASK: "created"}
    assert len(pipeline.sandbox.tasks()) == 1


def make_leases_end(pipeline: Pipeline) -> None:
    from sqlalchemy import update

    from models import Job
    from pipeline.db.dialect import from_now

    with pipeline.service.engine.begin() as connection:
        connection.execute(update(Job).values(run_at=from_now(-1)))


def test_a_follow_up_whose_worker_is_gone_for_good_can_be_retried(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault("error_before")
    pipeline.receive(boxes("car"))
    for _ in range(kinds.MAX_ATTEMPTS[kinds.CREATE]):
        pipeline.skip_waiting()
    (job,) = pipeline.jobs()
    assert job["state"] == "dead"
    pipeline.sandbox.clear_faults()
    with pipeline.service.engine.begin() as connection:
        decisions.retry(connection, ASK, "ana")
    pipeline.work()
    assert pipeline.states() == {ASK: "created"}
