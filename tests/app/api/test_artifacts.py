"""Files behind responses in the API."""

import io
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from models import Artifact, Job
from pipeline.service import Service
from tests.app.api.conftest import Deliver

Get = Callable[..., Any]

CONTENT = b"0123456789" * 1000


@pytest.fixture
def stored(deliver: Deliver, get: Get, service: Service) -> Callable[..., str]:
    """The id of an artifact whose content is here."""

    def store(media_type: str | None = "application/json", state: str = "stored") -> str:
        deliver("videoannotation/file_of_frames", task_id="t")
        (artifact,) = get("/tasks/t")["artifacts"]
        sha256, size = service.store.put(io.BytesIO(CONTENT))
        values = {"state": state, "sha256": sha256, "size_bytes": size, "media_type": media_type}
        with service.engine.begin() as connection:
            connection.execute(
                update(Artifact).where(Artifact.id == UUID(artifact["id"])).values(reason="why", **values)
            )
        found: str = artifact["id"]
        return found

    return store


def test_the_content_of_a_stored_file_is_its_bytes(client: FlaskClient, stored: Any) -> None:
    answer = client.get(f"/api/v1/artifacts/{stored()}/content")
    assert answer.status_code == 200
    assert answer.data == CONTENT
    assert answer.content_length == len(CONTENT)
    assert answer.mimetype == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_a_range_and_a_known_content_are_answered_shortly(client: FlaskClient, stored: Any) -> None:
    address = f"/api/v1/artifacts/{stored()}/content"
    part = client.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.data) == (206, CONTENT[10:20])
    known = client.get(address, headers={"If-None-Match": part.headers["ETag"]})
    assert (known.status_code, known.data) == (304, b"")
    beyond = client.get(address, headers={"Range": "bytes=99999999-"})
    assert (beyond.status_code, beyond.content_type) == (416, "application/problem+json")


@pytest.mark.parametrize("media_type", [None, "text/html", "image/svg+xml", "a\r\nSet-Cookie: b"])
def test_a_media_type_that_could_be_a_page_is_only_bytes(
    client: FlaskClient, stored: Any, media_type: str | None
) -> None:
    answer = client.get(f"/api/v1/artifacts/{stored(media_type)}/content")
    assert answer.mimetype == "application/octet-stream"


def test_a_file_that_is_not_here_is_not_found_with_the_reason(
    client: FlaskClient, stored: Any, service: Service
) -> None:
    failed = client.get(f"/api/v1/artifacts/{stored(state='failed')}/content")
    assert failed.status_code == 404
    assert "failed, why" in failed.json["detail"]
    assert client.get(f"/api/v1/artifacts/{uuid4()}/content").status_code == 404
    assert client.get(f"/api/v1/artifacts/{uuid4()}").status_code == 404


def test_a_content_that_was_deleted_is_not_found(client: FlaskClient, stored: Any, service: Service) -> None:
    artifact = client.get(f"/api/v1/artifacts/{stored()}").json
    service.store.delete(artifact["sha256"])
    assert client.get(f"/api/v1/artifacts/{artifact['id']}/content").status_code == 404


def test_a_failed_file_is_asked_for_again(
    client: FlaskClient, stored: Any, service: Service, get: Get
) -> None:
    artifact_id = stored(state="failed")
    with service.engine.begin() as connection:
        connection.execute(update(Job).values(state="dead"))
    answer = client.post(f"/api/v1/artifacts/{artifact_id}/retry")
    assert (answer.status_code, answer.json["state"]) == (200, "pending")
    (job,) = get("/jobs")["data"]
    assert (job["kind"], job["state"], job["subject"]) == ("fetch", "ready", artifact_id)
    assert client.post(f"/api/v1/artifacts/{uuid4()}/retry").status_code == 404


def test_rows_of_a_file_count_only_when_all_of_it_is_read(
    deliver: Deliver, get: Get, service: Service, stored: Any
) -> None:
    from pipeline.db.annotation_rows import write_annotations
    from scale.annotations import Annotation

    artifact_id = UUID(stored(state="pending"))
    rows = [Annotation(at, "box", "car", None, 0, None, {"left": at}, None) for at in range(3)]
    with service.engine.begin() as connection:
        response_id = connection.scalar(
            update(Artifact)
            .where(Artifact.id == artifact_id)
            .values(role="annotations")
            .returning(Artifact.response_id)
        )
        assert response_id is not None
        write_annotations(connection, response_id, 1, rows)
    assert get("/tasks/t/annotations")["data"] == []
    with service.engine.begin() as connection:
        connection.execute(update(Artifact).values(state="stored"))
    assert [row["position"] for row in get("/tasks/t/annotations")["data"]] == [0, 1, 2]
    assert get("/tasks/t/annotations")["data"][0]["file"] == 1
