"""However much is to be created, no callback waits behind it, and a queue that Scale has closed is passed by."""

from collections import Counter

import pytest
from sqlalchemy import text

from pipeline.db.ids import utcnow
from pipeline.follow_ups import decisions
from pipeline.jobs import kinds, queue, queues
from pipeline.operations import checks
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import Pipeline, asks
from workers.runner import run_job

MANY = 20_000


def test_what_came_last_is_planned_before_what_has_long_waited_to_be_created(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": asks(for_each="annotation")})
    receive_callback(pipeline.service, callback(boxes(*["car"] * 30)))
    planned = queue.claim(pipeline.service.engine, 60)
    assert planned is not None
    run_job(pipeline.service, planned)
    receive_callback(pipeline.service, callback(boxes("car"), task_id="5f1e9b000000000000000002"))
    following = queue.claim(pipeline.service.engine, 60)
    assert following is not None
    assert (following.kind, following.subject) == (kinds.PLAN, "5f1e9b000000000000000002")
    created = queue.claim(pipeline.service.engine, 60)
    assert created is not None
    assert (created.kind, created.queue) == (kinds.CREATE, "live")


def test_while_scale_asks_to_wait_jobs_are_not_woken_in_vain_and_planning_goes_on(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": asks(for_each="annotation")})
    pipeline.sandbox.add_fault("throttled", retry_after=30)
    pipeline.receive(boxes(*["car"] * 40))
    pipeline.receive(boxes("car"), task_id="5f1e9b000000000000000002")
    assert Counter(pipeline.states().values()) == {"planned": 41}
    woken = [job for job in pipeline.jobs() if job["last_error"]]
    assert len(woken) == 1
    assert len([job for job in pipeline.jobs() if job["run_at"] <= utcnow()]) == 40


@pytest.mark.parametrize("name", ["", "parse", "fetch", "live"])
def test_claiming_takes_one_step_into_the_index_however_many_wait(pipeline: Pipeline, name: str) -> None:
    numbers = "WITH RECURSIVE n(g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < :many)"
    columns = "id, kind, key, subject, queue, state, run_at, created_at"
    moment = "'2026-01-01 10:00:00.000000'"
    postgresql = pipeline.service.engine.dialect.name == "postgresql"
    made_id = "gen_random_uuid()" if postgresql else "lower(hex(randomblob(16)))"
    fill = f"INSERT INTO jobs ({columns}) {numbers} SELECT {made_id}, 'create', 'create:' || g, g, :queue, 'ready', {moment}, {moment} FROM n"
    with pipeline.service.engine.begin() as connection:
        connection.execute(text(fill), {"many": MANY, "queue": name})
    with pipeline.service.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE jobs")
        statement = queue.claim_statement(queues.QUEUES)
        written = statement.compile(connection, compile_kwargs={"render_postcompile": True})
        explain = "EXPLAIN " if postgresql else "EXPLAIN QUERY PLAN "
        parameters = written.construct_params({"owner": "me", "lease": 60.0})
        if postgresql:
            rows = connection.exec_driver_sql(explain + str(written), parameters).all()
        else:
            rows = connection.exec_driver_sql(
                explain + str(written), tuple(parameters[name] for name in written.positiontup or ())
            ).all()
    plan = " ".join(str(row) for row in rows)
    assert plan.count("ix_jobs_due") == len(queues.QUEUES) + 1  # and whether a fetch job is due
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


def creation_messages(pipeline: Pipeline) -> list[str]:
    with pipeline.service.reader.begin() as connection:
        return [check.message for check in checks.creation(pipeline.service, connection)]


def test_a_pause_of_task_creation_is_a_health_check(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault("refused", status=401)
    pipeline.receive(boxes("car"))
    assert any("Scale refuses the API key" in message for message in creation_messages(pipeline))
    with pipeline.service.engine.begin() as connection:
        decisions.pause_creation(connection, "ana")
    assert any("ana" in message for message in creation_messages(pipeline))
