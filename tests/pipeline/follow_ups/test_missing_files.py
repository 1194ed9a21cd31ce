"""Nothing is paid for while a file of the result is missing, and everything is planned once the file arrives."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from models import Artifact, Delivery
from pipeline.artifacts.retry import retry
from pipeline.db.ids import utcnow
from pipeline.follow_ups import decisions
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.receive.replay import replay
from tests.assertions import only, table
from tests.factories.pipelines import ROOT, Pipeline, asks
from tests.fake_server import FakeServer, reply

BOX = {"type": "box", "label": "car", "left": 1, "top": 2, "width": 30, "height": 40, "uuid": "u1"}
OTHER = {**BOX, "left": 100, "uuid": "u2"}
VIDEO = {"type": "videoannotation"}
ASK = f"w.ask.{ROOT}"


def question(instruction: str) -> dict[str, Any]:
    request = {"attachment_type": "text", "attachment": "x", "categories": ["a", "b"]}
    return {"type": "categorization", "params": {"instruction": instruction, **request}}


COUNT = question("${{ length(annotations) }} boxes")
LAYERS = {
    "type": "videoannotation",
    "params": {
        "instruction": "x",
        "attachment_type": "image",
        "attachments": "${{ task.params.attachments }}",
        "geometries": {"box": {"objects_to_annotate": ["car"]}},
        "layers": "${{ layers }}",
    },
}


class FileServer:
    """Serves one result file; 404 while `body` is None."""

    def __init__(self) -> None:
        self.body: Any = None
        self.peer = FakeServer(lambda _: reply(b"", 404) if self.body is None else reply(self.body))
        self.host = self.peer.url.removeprefix("http://")
        self.url = f"{self.peer.url}/x.json"


@pytest.fixture
def files() -> Iterator[FileServer]:
    server = FileServer()
    with server.peer:
        yield server


@pytest.fixture
def pipeline(open_pipeline: Callable[..., Pipeline], files: FileServer) -> Pipeline:
    return open_pipeline(artifact_hosts=(files.host,), max_artifact_bytes=10_000)


def receive_video(pipeline: Pipeline, url: str) -> None:
    params = {"attachments": ["https://example.com/a.png"], "attachment_type": "image"}
    pipeline.receive({"annotations": {"url": url}}, type="videoannotation", params=params)


def fail(pipeline: Pipeline, files: FileServer, how: str = "unreadable") -> None:
    """Receive a result whose file fails for this reason."""
    if how == "unreadable":
        files.body = b"<html>"
    elif how == "too large":
        files.body = b"[" + b" " * 10_000 + b"]"
    receive_video(pipeline, "http://127.0.0.1:1/x.json" if how == "host not allowed" else files.url)
    if how == "unavailable for 25 hours":
        with pipeline.service.engine.begin() as connection:
            past = utcnow() - timedelta(hours=26)
            connection.execute(update(Artifact).values(first_attempt_at=past))
        pipeline.skip_waiting()
    assert only(pipeline.service, Artifact)["state"] == "failed"


def arrive(pipeline: Pipeline, files: FileServer, *boxes: Any) -> None:
    """Serve the file, and retry it as a person does."""
    files.body = [{"annotations": list(boxes or (BOX,))}]
    with pipeline.service.engine.begin() as connection:
        connection.execute(update(Artifact).values(url=files.url))
        retry(connection, only(pipeline.service, Artifact)["id"], "ana")
    pipeline.work()


def row(pipeline: Pipeline, unique_id: str = ASK) -> dict[str, Any]:
    return pipeline.follow_ups()[unique_id]


@pytest.mark.parametrize("how", ["host not allowed", "unreadable", "too large", "unavailable for 25 hours"])
def test_a_follow_up_is_held_with_the_reason_of_the_file_and_created_with_it(
    pipeline: Pipeline, files: FileServer, how: str
) -> None:
    pipeline.workflow({"ask": asks(after=VIDEO, create=LAYERS)})
    fail(pipeline, files, how)
    held = row(pipeline)
    assert (held["state"], held["reason_code"], held["task_id"]) == ("held", "incomplete", None)
    assert only(pipeline.service, Artifact)["reason"] in held["reason"]
    assert pipeline.at_scale() == {}
    arrive(pipeline, files)
    created = row(pipeline)
    assert (created["state"], created["reason_code"], created["reason"]) == ("created", None, None)
    assert "layers" in pipeline.at_scale()[ASK]["params"]


@pytest.mark.parametrize(
    ("keys", "planned"),
    [
        ({"for_each": "annotation", "create": question("one box")}, [f"{ASK}.u1", f"{ASK}.u2"]),
        ({"for_each": "label", "create": question("one label")}, None),
        ({"for_each": "frame", "create": question("one frame")}, [f"{ASK}.0"]),
        (
            {"for_each": "annotation", "where": "annotation.left > `50`", "create": question("x")},
            [f"{ASK}.u2"],
        ),
        ({"when": "length(annotations) == `2`", "create": question("x")}, [ASK]),
        ({"when": "length(annotations) == `9`", "create": question("x")}, []),
        ({"create": COUNT, "copies": 2}, [f"{ASK}.1", f"{ASK}.2"]),
    ],
)
def test_what_stood_for_a_missing_file_is_replaced_by_what_follows_from_it(
    pipeline: Pipeline, files: FileServer, keys: dict[str, Any], planned: list[str] | None
) -> None:
    pipeline.workflow({"ask": asks(after=VIDEO, **keys)})
    fail(pipeline, files)
    assert set(pipeline.states().values()) == {"held"}
    arrive(pipeline, files, BOX, OTHER)
    rows = pipeline.follow_ups()
    created = [unique_id for unique_id, one in rows.items() if one["state"] == "created"]
    assert len(created) == 1 if planned is None else created == planned
    others = [one for unique_id, one in rows.items() if unique_id not in created]
    assert {(one["state"], one["reason_code"]) for one in others} <= {("canceled", "replanned")}
    assert set(pipeline.at_scale()) == set(created)


def test_a_step_that_uses_nothing_of_the_file_goes_on(pipeline: Pipeline, files: FileServer) -> None:
    pipeline.workflow({"ask": asks(after=VIDEO, create=question("about ${{ task.task_id }}"))})
    fail(pipeline, files)
    assert pipeline.states() == {ASK: "created"}
    arrive(pipeline, files)
    assert pipeline.states() == {ASK: "created"}
    assert len(pipeline.at_scale()) == 1


def test_a_person_cannot_approve_what_has_no_request_yet(pipeline: Pipeline, files: FileServer) -> None:
    pipeline.workflow({"ask": asks(after=VIDEO, create=COUNT)})
    fail(pipeline, files)
    with (
        pytest.raises(InvalidTransition, match="artifacts retry"),
        pipeline.service.engine.begin() as connection,
    ):
        decisions.approve(connection, ASK, "ana")
    assert row(pipeline)["decided_by"] is None
    with pipeline.service.engine.begin() as connection:
        decisions.cancel(connection, ASK, "ana")
    arrive(pipeline, files)
    assert (row(pipeline)["state"], row(pipeline)["reason_code"]) == ("canceled", "person")


def test_replaying_the_delivery_fetches_a_failed_file_again(pipeline: Pipeline, files: FileServer) -> None:
    pipeline.workflow({"ask": asks(after=VIDEO, create=COUNT)})
    fail(pipeline, files)
    files.body = [{"annotations": [BOX]}]
    replay(pipeline.service, only(pipeline.service, Delivery)["id"], "ana")
    pipeline.work()
    assert row(pipeline)["state"] == "created"


def test_a_new_response_whose_file_can_be_read_plans_the_step(pipeline: Pipeline, files: FileServer) -> None:
    pipeline.workflow({"ask": asks(after=VIDEO, create=COUNT)})
    fail(pipeline, files)
    files.body = [{"annotations": [BOX]}]
    receive_video(pipeline, f"{files.url}?signature=2")
    assert row(pipeline)["state"] == "created"
    assert len(table(pipeline.service, Artifact)) == 2


def test_a_file_of_the_parent_releases_what_its_child_planned(pipeline: Pipeline, files: FileServer) -> None:
    second = question("${{ length(parent.annotations) }} boxes")
    pipeline.workflow(
        {
            "first": asks(after=VIDEO, create=question("x")),
            "second": asks(after={"step": "first"}, create=second),
        }
    )
    fail(pipeline, files)
    (child,) = pipeline.children("first")
    pipeline.finish(child, {"category": "a"})
    unique_id = f"w.second.{child}"
    assert (row(pipeline, unique_id)["state"], row(pipeline, unique_id)["reason_code"]) == (
        "held",
        "incomplete",
    )
    arrive(pipeline, files)
    assert row(pipeline, unique_id)["state"] == "created"
    assert pipeline.at_scale()[unique_id]["instruction"] == "1 boxes"


def test_a_join_waits_for_the_file_of_one_of_its_results(pipeline: Pipeline, files: FileServer) -> None:
    together = question("${{ length(results[0].annotations) }} boxes")
    pipeline.workflow(
        {
            "video": asks(
                create={**LAYERS, "params": {**LAYERS["params"], "attachments": ["a.png"], "layers": None}}
            ),
            "together": {"after": {"step": "video"}, "join": {}, "create": together},
        }
    )
    pipeline.receive({"annotations": []})
    (child,) = pipeline.children("video")
    files.body = b"<html>"
    pipeline.finish(child, {"annotations": {"url": files.url}})
    (join,) = pipeline.joins().values()
    assert (join["fired_at"], join["verdict"]) == (None, None)
    joined = f"w.together.{ROOT}"
    assert (row(pipeline, joined)["state"], row(pipeline, joined)["reason_code"]) == ("held", "incomplete")
    arrive(pipeline, files)
    assert row(pipeline, joined)["state"] == "created"
    (join,) = pipeline.joins().values()
    assert join["verdict"] == "fire"


def mirrored(attachment: str) -> dict[str, Any]:
    """Keys of a step whose request has a copy of a file."""
    asked = question("look")
    return {
        "mirror": "attachment",
        "create": {**asked, "params": {**asked["params"], "attachment": attachment}},
    }


RESULT_URL = "${{ response.annotations.url }}"


@pytest.mark.parametrize("how", ["host not allowed", "unreadable", "too large", "unavailable for 25 hours"])
def test_a_copy_of_a_file_that_is_missing_is_made_once_the_file_arrives(
    pipeline: Pipeline, files: FileServer, how: str
) -> None:
    pipeline.workflow({"ask": asks(after=VIDEO, **mirrored(RESULT_URL))})
    fail(pipeline, files, how)
    held = row(pipeline)
    assert (held["state"], held["reason_code"], held["task_id"]) == ("held", "incomplete", None)
    assert only(pipeline.service, Artifact)["reason"] in held["reason"]
    assert pipeline.at_scale() == {}
    with pipeline.service.engine.begin() as connection:
        retry(connection, only(pipeline.service, Artifact)["id"], "ana")
    files.body = b"<still no JSON>" if how != "host not allowed" else None
    pipeline.work()
    assert row(pipeline)["state"] == "held"
    if how != "host not allowed":  # that URL never becomes one that is allowed
        arrive(pipeline, files)
        assert (row(pipeline)["state"], row(pipeline)["reason"]) == ("created", None)
        assert pipeline.at_scale()[ASK]["params"]["attachment"].startswith("http://127.0.0.1:9/files/")
        assert len(pipeline.at_scale()) == 1


@pytest.mark.parametrize("relation", ["parent", "joined child"])
def test_a_copy_of_the_file_of_another_task_waits_for_it_too(
    pipeline: Pipeline, files: FileServer, relation: str
) -> None:
    video = {**LAYERS, "params": {**LAYERS["params"], "attachments": ["a.png"], "layers": None}}
    if relation == "parent":
        second = asks(after={"step": "first"}, **mirrored("${{ parent.response.annotations.url }}"))
        pipeline.workflow({"first": asks(after=VIDEO, create=question("x")), "second": second})
        fail(pipeline, files)
        (child,) = pipeline.children("first")
        pipeline.finish(child, {"category": "a"})
        unique_id = f"w.second.{child}"
    else:
        joined = {
            "after": {"step": "video"},
            "join": {},
            **mirrored("${{ results[0].response.annotations.url }}"),
        }
        pipeline.workflow({"video": asks(create=video), "together": joined})
        pipeline.receive({"annotations": []})
        (child,) = pipeline.children("video")
        files.body = b"<html>"
        pipeline.finish(child, {"annotations": {"url": files.url}})
        unique_id = f"w.together.{ROOT}"
    held = row(pipeline, unique_id)
    assert (held["state"], held["reason_code"]) == ("held", "incomplete")
    arrive(pipeline, files)
    assert row(pipeline, unique_id)["state"] == "created"
    assert "/files/" in pipeline.at_scale()[unique_id]["params"]["attachment"]


def test_a_copy_of_an_attachment_that_cannot_be_fetched_fails_as_before(
    pipeline: Pipeline, files: FileServer
) -> None:
    pipeline.workflow({"ask": asks(after=VIDEO, **mirrored("http://127.0.0.1:1/never.png"))})
    files.body = [{"annotations": [BOX]}]
    receive_video(pipeline, files.url)
    assert (row(pipeline)["state"], row(pipeline)["reason_code"]) == ("failed", "file")
