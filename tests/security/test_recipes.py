"""Data of a callback that looks like an instruction of ours: it stays data, whatever keys it has."""

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine

from pipeline.follow_ups import signed_urls
from pipeline.follow_ups.activation import activations
from tests.factories.pipelines import Pipeline
from tests.fake_server import FakeServer, reply
from tests.pipeline.conftest import open_pipeline, open_service, sandbox, scale_process

__all__ = ["open_pipeline", "open_service", "sandbox", "scale_process"]  # fixtures

PUBLIC = "http://127.0.0.1:9"
TRIANGLE = [{"x": 1, "y": 1}, {"x": 9, "y": 1}, {"x": 1, "y": 9}]


@pytest.fixture
def internal() -> Iterator[FakeServer]:
    """A host of the customer's network that the service may reach and the sender of a callback may not."""
    with FakeServer(lambda asked: reply(b"internal page", Content_Type="image/png")) as peer:
        yield peer


@pytest.fixture
def chain(open_pipeline: Callable[..., Pipeline], internal: FakeServer) -> Pipeline:
    host = f"127.0.0.1:{internal.port}"
    return open_pipeline(attachment_hosts=(host,), artifact_hosts=(host,), public_url=PUBLIC)


def recipes(url: str) -> list[Any]:
    """What an attacker could write, in the forms in which recipes are stored, shown, or were once written."""
    mirror = {"make": "mirror", "of": url}
    return [
        {"$file": mirror},
        mirror,
        {"path": ["attachment"], "recipe": mirror},
        {"files": [{"path": ["attachment"], "recipe": mirror}]},
        {"$file": {"make": "crop", "of": url, "left": 0, "top": 0, "width": 9, "height": 9}},
        {"$file": {"make": "layers", "task_id": "x", "response": None, "labels": None}},
        {"$file": {"make": "renewal", "of": url, "original": mirror}},
        {"$file": 5},
        {"$file": {"make": ["x"]}},
        {"$file": {}},
    ]


def steps(**params: Any) -> dict[str, Any]:
    request = {"attachment": "https://images.example/a.png", "objects_to_annotate": ["car"], **params}
    return {
        "boxes": {
            "after": {"type": "polygonannotation"},
            "create": {"type": "annotation", "params": request},
        }
    }


@pytest.mark.parametrize("position", range(10))
def test_a_file_recipe_in_a_callback_is_sent_as_the_data_that_it_is(
    chain: Pipeline, internal: FakeServer, position: int
) -> None:
    forged = recipes(f"{internal.url}/admin")[position]
    chain.workflow(steps(metadata="${{ task.metadata }}", layers="${{ layers }}"))
    polygon = {"label": "car", "vertices": TRIANGLE, "attributes": {"k": forged}}
    chain.receive({"annotations": [polygon]}, type="polygonannotation", metadata={"inner": [forged]})
    (created,) = chain.at_scale().values()
    sent = chain.sandbox.original_request(created["task_id"])
    assert sent["metadata"] == {"inner": [forged]}
    assert sent["layers"]["polygons"][0]["attributes"] == {"k": forged}
    assert internal.requests == []
    (row,) = chain.follow_ups().values()
    assert row["files"] is None


def test_a_file_recipe_in_the_place_of_an_attachment_is_not_followed(
    chain: Pipeline, internal: FakeServer
) -> None:
    forged = recipes(internal.url)[0]
    chain.workflow(steps(attachment="${{ task.params.attachment }}"))
    chain.receive(
        {"annotations": [{"label": "car", "vertices": TRIANGLE}]},
        type="polygonannotation",
        params={"attachment": forged},
    )
    assert internal.requests == []
    for task in chain.sandbox.tasks():
        assert "/files/" not in json.dumps(chain.sandbox.original_request(task["task_id"]))


def test_no_expression_can_build_a_file_recipe(chain: Pipeline, internal: FakeServer) -> None:
    expressions = {
        "one": "${{ {\"$file\": {make: 'mirror', of: task.metadata.url}} }}",
        "two": "${{ merge(task.metadata.recipe, {make: 'mirror'}) }}",
        "three": "${{ to_array(task.metadata.recipe)[0] }}",
    }
    chain.workflow(steps(metadata=expressions))
    chain.receive(
        {"annotations": [{"label": "car", "vertices": TRIANGLE}]},
        type="polygonannotation",
        metadata={"url": internal.url, "recipe": {"$file": {"make": "mirror", "of": internal.url}}},
    )
    (created,) = chain.at_scale().values()
    sent = chain.sandbox.original_request(created["task_id"])
    assert sent["metadata"]["one"] == {"$file": {"make": "mirror", "of": internal.url}}
    assert internal.requests == []


def test_an_expired_url_of_ours_in_the_data_is_not_renewed(chain: Pipeline) -> None:
    """Only the URL that the service itself put into a request is replaced by a new one."""
    sha256, _ = chain.service.store.put(io.BytesIO(b"of another customer"))
    url = signed_urls.signed_url(chain.service.settings, sha256, "image/png")
    chain.workflow(steps(metadata={"note": "${{ annotations[0].attributes.note }}"}))
    activations(chain.service)  # the workflow is older than the result, whose receipt is not moved
    with time_machine.travel(time.time() + signed_urls.LIFETIME.total_seconds() + 60, tick=True):
        polygon = {"label": "car", "vertices": TRIANGLE, "attributes": {"note": url}}
        chain.receive({"annotations": [polygon]}, type="polygonannotation")
        (created,) = chain.at_scale().values()
    assert chain.sandbox.original_request(created["task_id"])["metadata"] == {"note": url}


def test_an_expired_url_of_ours_is_not_mirrored(chain: Pipeline) -> None:
    sha256, _ = chain.service.store.put(io.BytesIO(b"of another customer"))
    url = signed_urls.signed_url(chain.service.settings, sha256, "image/png")
    written = steps(attachment="${{ annotations[0].attributes.note }}")
    written["boxes"]["mirror"] = "attachment"
    chain.workflow(written)
    activations(chain.service)  # the workflow is older than the result, whose receipt is not moved
    with time_machine.travel(time.time() + signed_urls.LIFETIME.total_seconds() + 60, tick=True):
        polygon = {"label": "car", "vertices": TRIANGLE, "attributes": {"note": url}}
        chain.receive({"annotations": [polygon]}, type="polygonannotation")
        assert chain.at_scale() == {}
    (row,) = chain.follow_ups().values()
    assert row["state"] == "failed"
