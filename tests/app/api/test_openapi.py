"""The OpenAPI document, and whether the API does what it says, for unlikely requests."""

import itertools
import re

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.checks import negative_data_rejection, positive_data_acceptance

from app.extensions import TOKEN_FAILURES
from app.failure_limiter import WINDOW_SECONDS, FailureLimiter
from tests.amounts import amount
from tests.app.api.conftest import TOKEN, Deliver

ENDPOINTS = {
    ("/api/v1/tasks", "get"),
    ("/api/v1/tasks/{task_id}", "get"),
    ("/api/v1/tasks/{task_id}/lineage", "get"),
    ("/api/v1/tasks/{task_id}/responses", "get"),
    ("/api/v1/tasks/{task_id}/responses/{number}/diff", "get"),
    ("/api/v1/tasks/{task_id}/annotations", "get"),
    ("/api/v1/deliveries", "get"),
    ("/api/v1/deliveries/{delivery_id}", "get"),
    ("/api/v1/deliveries/{delivery_id}/body", "get"),
    ("/api/v1/deliveries/{delivery_id}/replay", "post"),
    ("/api/v1/artifacts/{artifact_id}/content", "get"),
    ("/api/v1/jobs", "get"),
    ("/api/v1/jobs/{job_id}/retry", "post"),
    ("/api/v1/follow-ups", "get"),
    ("/api/v1/follow-ups/{unique_id}/approve", "post"),
    ("/api/v1/follow-ups/{unique_id}/cancel", "post"),
    ("/api/v1/workflows", "get"),
}

NOT_TOLD = [positive_data_acceptance, negative_data_rejection]
"""No schema tells what a cursor must be, nor that a blank filter counts as none."""


def test_the_document_is_openapi_3_1_and_needs_no_token(client: FlaskClient) -> None:
    answer = client.application.test_client().get("/api/openapi.json")
    assert answer.status_code == 200
    document = answer.json
    assert document["openapi"].startswith("3.1")
    assert document["security"] == [{"token": []}]
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described >= ENDPOINTS


def test_every_call_has_an_operation_id_and_the_document_names_its_server(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").json
    ids = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
    ]
    assert len(ids) == len(set(ids))
    assert {"list_tasks", "get_task", "replay_delivery", "approve_follow_up"} <= set(ids)
    assert document["servers"][0]["url"]


def test_every_description_is_a_whole_phrase(client: FlaskClient) -> None:
    def descriptions(value: object) -> list[str]:
        if isinstance(value, list):
            return [text for inner in value for text in descriptions(inner)]
        if not isinstance(value, dict):
            return []
        own = [value["description"]] if isinstance(value.get("description"), str) else []
        return own + [text for inner in value.values() for text in descriptions(inner)]

    schemas = client.get("/api/openapi.json").json["components"]["schemas"]
    for text in descriptions(schemas):
        assert not text.startswith(("Of ", "Null:", "Those ")), text


def test_every_error_is_described_as_a_problem(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").json
    assert all(
        operation["responses"]["default"] == {"$ref": "#/components/responses/DEFAULT_ERROR"}
        for item in document["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
    )
    assert list(document["components"]["responses"]["DEFAULT_ERROR"]["content"]) == [
        "application/problem+json"
    ]


def test_the_page_that_shows_the_document_needs_nothing_from_elsewhere(client: FlaskClient) -> None:
    page = client.get("/api/docs/")
    assert page.status_code == 200
    for address in re.findall(r'(?:src|href)="([^"]*)"', page.text):
        assert address.startswith("/api/docs/")
        assert client.get(address).status_code == 200, address
    assert '"url": "/api/openapi.json"' in page.text
    assert '"validatorUrl": null' in page.text


@pytest.mark.slow
def test_the_api_does_what_its_document_says(app: Flask, deliver: Deliver) -> None:
    deliver("annotation/accepted", task_id="t")
    deliver("annotation/fixed", task_id="t", updated_at="2031-01-01T00:00:00Z")
    deliver("segmentannotation/instances")
    deliver("categorization/several_with_their_ids")
    deliver("batch/a_batch_object")
    deliver(b"no JSON")
    # Each wrong token begins a window of its own: the limit of failures has its own tests.
    windows = itertools.count(step=2 * WINDOW_SECONDS).__next__
    app.extensions[TOKEN_FAILURES] = FailureLimiter(clock=windows)
    document = schemathesis.openapi.from_wsgi("/api/openapi.json", app)
    for operation in document.get_all_operations():
        for mode in GenerationMode:
            try:
                ask(operation.ok().as_strategy(generation_mode=mode))
            except Unsatisfiable:
                assert (
                    mode is GenerationMode.NEGATIVE
                )  # an operation without parameters cannot be asked wrongly


def ask(requests: SearchStrategy[Case]) -> None:
    """A few of these requests, the same ones each time, and whether each answer is as described."""

    @settings(
        max_examples=amount(3, 15),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def is_answered_as_described(case: Case) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=NOT_TOLD)

    is_answered_as_described()
