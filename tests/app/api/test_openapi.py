"""The OpenAPI document, and whether the API does what it says, for requests that nobody would think of."""

from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings
from schemathesis import Case

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


def test_the_document_is_openapi_3_1_and_needs_no_token(client: FlaskClient) -> None:
    answer = client.application.test_client().get("/api/openapi.json")
    assert answer.status_code == 200
    document = answer.json
    assert document["openapi"].startswith("3.1")
    assert document["security"] == [{"token": []}]
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described >= ENDPOINTS


def test_every_error_is_described_as_a_problem(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").json
    assert all(
        operation["responses"]["default"] == {"$ref": "#/components/responses/DEFAULT_ERROR"}
        for item in document["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
    )
    assert list(document["components"]["responses"]["DEFAULT_ERROR"]["content"]) == ["application/problem+json"]


schema = schemathesis.pytest.from_fixture("described")


@pytest.fixture
def described(app: Flask, deliver: Deliver) -> Any:
    """The document of an application that holds a little of everything."""
    deliver("annotation/accepted", task_id="t")
    deliver("annotation/fixed", task_id="t", updated_at="2031-01-01T00:00:00Z")
    deliver("segmentannotation/instances")
    deliver("categorization/several_with_their_ids")
    deliver("batch/a_batch_object")
    deliver(b"no JSON")
    return schemathesis.openapi.from_wsgi("/api/openapi.json", app)


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_api_does_what_its_document_says(case: Case) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
