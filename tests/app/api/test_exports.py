"""Exports through the API: requested, run by a worker, downloaded, deleted."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from pipeline.datasets import versions
from pipeline.datasets.versions import Request
from pipeline.service import Service
from tests.app.api.conftest import Deliver
from workers.runner import run_due_jobs


@pytest.fixture
def boxes(deliver: Deliver) -> None:
    deliver("annotation/accepted", metadata={"width": 640, "height": 480})


def test_an_export_is_requested_run_and_downloaded(
    client: FlaskClient, service: Service, boxes: None, get: Callable[..., Any], tmp_path: Any
) -> None:
    version = versions.create(service, "street", Request(), "ana")
    requested = client.post("/api/v1/exports", json={"format": "coco", "dataset": "street"})
    assert requested.status_code == 202, requested.text
    assert requested.json["state"] == "waiting"
    assert requested.json["dataset"] == "street@1"
    run_due_jobs(service)
    export = get(f"/exports/{requested.json['id']}")
    assert (export["state"], export["progress"], export["reason"]) == ("completed", 1.0, None)
    content = client.get(f"/api/v1/exports/{export['id']}/content")
    assert content.mimetype == "application/zip"
    format_ = find_format("coco")
    assert format_ is not None
    write_export(service, version, format_, Options(), str(tmp_path / "out.zip"))
    assert content.data == (tmp_path / "out.zip").read_bytes()
    assert [row["id"] for row in get("/exports")["data"]] == [export["id"]]


def test_filters_choose_the_tasks(client: FlaskClient, service: Service, boxes: None) -> None:
    body = {
        "format": "csv",
        "filters": {"type": "annotation"},
        "options": {"split": {"train": 0.5, "val": 0.5}},
    }
    export_id = client.post("/api/v1/exports", json=body).json["id"]
    run_due_jobs(service)
    with zipfile.ZipFile(io.BytesIO(client.get(f"/api/v1/exports/{export_id}/content").data)) as archive:
        manifest = json.loads(archive.read("export.json"))
    assert manifest["written"]["tasks"] == 1
    assert manifest["dataset"] is None


def test_a_deleted_export_has_no_content(client: FlaskClient, service: Service, boxes: None) -> None:
    export_id = client.post("/api/v1/exports", json={"format": "scale"}).json["id"]
    run_due_jobs(service)
    sha256 = client.get(f"/api/v1/exports/{export_id}").json["sha256"]
    assert client.delete(f"/api/v1/exports/{export_id}").status_code == 204
    assert client.get(f"/api/v1/exports/{export_id}/content").status_code == 404
    assert client.delete(f"/api/v1/exports/{export_id}").status_code == 404
    assert not service.store.exists(sha256)


def test_an_export_that_cannot_be_written_fails_with_its_reason(
    client: FlaskClient, service: Service, boxes: None
) -> None:
    versions.create(service, "street", Request(), "ana")
    export_id = client.post("/api/v1/exports", json={"format": "csv", "dataset": "street"}).json["id"]
    with service.engine.begin() as connection:
        versions.delete_version(connection, "street@1", "ana")
    run_due_jobs(service)
    export = client.get(f"/api/v1/exports/{export_id}").json
    assert (export["state"], export["reason"]) == ("failed", "There is no dataset street@1.")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"format": "nothing"}, 422),
        ({}, 422),
        ({"format": "csv", "filters": {"colour": "red"}}, 422),
        ({"format": "csv", "filters": {"type": 3}}, 422),
        ({"format": "csv", "dataset": "unknown"}, 404),
        ({"format": "csv", "dataset": "Not A Name"}, 422),
        ({"format": "csv", "options": {"images": "move"}}, 422),
        ({"format": "csv", "options": {"split": "train=0.8"}}, 422),
        ({"format": "csv", "options": {"split": 7}}, 422),
        ({"format": "csv", "options": {"classes": []}}, 422),
        ({"format": "csv", "options": {"classes": ["a\0"]}}, 400),
        ({"format": "csv", "filters": {"since": "0001-01-01T00:00:00+23:59"}}, 422),
        ({"format": "csv", "filters": {"metadata": {"a": "\ud800"}}}, 400),
        ({"format": "csv", "dataset": "a", "filters": {"type": "annotation"}}, 422),
    ],
)
def test_what_cannot_be_exported_is_refused(client: FlaskClient, body: dict[str, Any], status: int) -> None:
    answer = client.post("/api/v1/exports", json=body)
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"


def test_datasets_are_listed_and_shown(
    client: FlaskClient, service: Service, boxes: None, get: Callable[..., Any]
) -> None:
    versions.create(service, "street", Request(), "ana")
    versions.create(service, "street", Request(), "ana")
    assert [row["version"] for row in get("/datasets")["data"]] == [2, 1]
    assert get("/datasets/street")["version"] == 2
    assert get("/datasets/street@1")["tasks"] == 1
    assert client.get("/api/v1/datasets/street@7").status_code == 404
