"""Result files become rows: annotations, masks, and what cannot be read."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from sqlalchemy import update

from models import Annotation, Artifact, Job, Response
from pipeline.artifacts import extract
from pipeline.artifacts.retry import retry
from pipeline.db.ids import utcnow
from pipeline.jobs import queue
from pipeline.receive import replay
from pipeline.service import Service
from scale.annotations import Annotation as Value
from scale.task_types.base import INDEX_IMAGE_ROLES
from tests.amounts import amount
from tests.assertions import only, table
from tests.factories.callbacks import callback, receive_callback
from tests.factories.files import BOX, Files, claim, video, work_without_planning
from tests.fake_server import ReceivedRequest, reply
from workers.runner import run_due_jobs, run_job


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>Not JSON</html>", "not JSON"),
        (b'[{"annotations": [{"type": "box"}, ', "not JSON"),
        (b'"a text"', "a string"),
    ],
)
def test_a_file_that_cannot_be_read_has_failed_and_leaves_no_row(
    content: bytes, reason: str, service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "ANNOTATION_BATCH_SIZE", 1)
    files.has["/a"] = content
    receive_callback(service, video(files, "/a"))
    work_without_planning(service)
    artifact = only(service, Artifact)
    assert artifact["state"] == "failed"
    assert reason in artifact["reason"]
    assert table(service, Annotation) == []
    assert only(service, Response)["annotation_count"] == 0
    assert service.store.exists(artifact["sha256"])
    files.has["/a"] = [{"annotations": [BOX]}]
    with service.engine.begin() as connection:
        retry(connection, artifact["id"], "ana")
    work_without_planning(service)
    assert (only(service, Artifact)["state"], len(table(service, Annotation))) == ("stored", 1)


def test_an_error_of_our_own_on_a_file_is_its_reason_and_it_is_read_once_fixed(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: Any) -> Iterator[Any]:
        yield Value(0, "box", "car", None, 0, None, {}, None)
        raise KeyError("a mistake")

    files.has["/a"] = [{"annotations": [BOX] * 3}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    with monkeypatch.context() as broken:
        broken.setattr(extract, "ResultFileReader", mistaken)
        run_job(service, claim(service))
    assert (only(service, Artifact)["state"], only(service, Artifact)["reason"]) == (
        "failed",
        "reading it failed: KeyError: 'a mistake'",
    )
    assert table(service, Annotation) == []
    with service.engine.begin() as connection:
        queue.retry(connection, only(service, Job)["id"])
    run_job(service, claim(service))
    assert len(table(service, Annotation)) == 3


def test_what_postgresql_does_not_store_is_replaced(service: Service, files: Files) -> None:
    files.has["/a"] = (
        b'[{"annotations": [{"type": "point", "label": "a\\u0000b", "x": 1, "y": 2, "n\\u0000": "\\\\u0000"}]}]'
    )
    receive_callback(service, video(files, "/a"))
    work_without_planning(service)
    row = only(service, Annotation)
    assert (row["label"], row["geometry"]) == ("a\ufffdb", {"x": 1, "y": 2, "n\ufffd": "\\u0000"})


def test_a_worker_that_vanishes_while_reading_leaves_no_row_twice(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "ANNOTATION_BATCH_SIZE", 2)
    files.has["/a"] = [{"annotations": [BOX] * 5}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    written = extract.write_annotations

    def vanish_at_the_third(*given: Any) -> int:
        if len(table(service, Annotation)) == 4:
            raise SystemExit
        return written(*given)

    monkeypatch.setattr(extract, "write_annotations", vanish_at_the_third)
    first = claim(service)
    with pytest.raises(SystemExit):
        run_job(service, first)
    assert len(table(service, Annotation)) == 4
    assert only(service, Response)["annotation_count"] == 0
    monkeypatch.setattr(extract, "write_annotations", written)
    with service.engine.begin() as connection:
        connection.execute(update(Job).values(run_at=utcnow() - timedelta(seconds=1)))
    run_job(service, claim(service))
    assert sorted(row["position"] for row in table(service, Annotation)) == [0, 1, 2, 3, 4]
    assert only(service, Response)["annotation_count"] == 5
    assert files.requests == ["/a"]  # what was kept is not fetched again


def test_a_worker_that_lost_its_lease_writes_nothing_more(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "ANNOTATION_BATCH_SIZE", 1)
    files.has["/a"] = [{"annotations": [BOX] * 3}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    late, rows, written = claim(service), [], extract.write_annotations

    def lose(*given: Any) -> int:
        monkeypatch.setattr(extract, "write_annotations", written)
        return written(*given)

    def expire(*given: Any) -> Iterator[Any]:
        for piece in pieces(*given):
            yield piece
            rows.append(len(piece))
            if len(rows) == 1:
                with service.engine.begin() as connection:
                    connection.execute(update(Job).values(run_at=utcnow() - timedelta(seconds=1)))
                run_job(service, claim(service))

    pieces = extract.batches
    monkeypatch.setattr(extract, "batches", lambda *some: expire(*some) if not rows else pieces(*some))
    monkeypatch.setattr(extract, "write_annotations", lose)
    run_job(service, late)
    assert sorted(row["position"] for row in table(service, Annotation)) == [0, 1, 2]
    assert only(service, Response)["annotation_count"] == 3
    assert table(service, Job) == []


def test_files_of_a_response_that_is_parsed_again_meanwhile_are_dropped(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.has["/a"] = [{"annotations": [BOX] * 3}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    fetching, pieces = claim(service), extract.batches

    def replaced(*rows: Any) -> Iterator[Any]:
        with service.engine.begin() as connection:
            connection.execute(Artifact.__table__.delete())
        yield from pieces(*rows)

    monkeypatch.setattr(extract, "batches", replaced)
    run_job(service, fetching)
    assert table(service, Annotation) == []
    assert table(service, Job) == []


SCENE = np.array([[0, 0, 1, 1, 0], [0, 2, 1, 1, 0], [0, 2, 2, 3, 0]])


MAPPING = {
    "road": {"index": 1, "color": "#ff0000", "numPixels": 4},
    "car": [{"index": 2, "color": "#00ff00"}, {"index": 3, "color": "#00ff00"}],
    "sky": {"index": 4, "color": "#0000ff"},
}


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


def extended(scene: Any) -> bytes:
    scene = np.asarray(scene, np.uint32)
    channels = [scene & 255, scene >> 8 & 255, scene >> 16 & 255, np.full_like(scene, 255)]
    return png(np.stack(channels, -1))


def segmentation(
    files: Files, *roles: str, labeled: Any = None, unlabeled: bool = False, mapping: Any = MAPPING
) -> bytes:
    images: dict[str, Any] = {"combined": {role: files.url(f"/{role}") for role in roles}}
    if labeled:
        images["labeled"] = labeled
    if unlabeled:
        images["unlabeled"] = files.url("/unlabeled")
    return callback({"annotations": images, "labelMapping": mapping}, type="segmentannotation")


def masks(service: Service) -> list[tuple[Any, ...]]:
    names = ("pixels", "left", "top", "width", "height")
    rows = sorted(table(service, Annotation), key=lambda row: row["position"])
    return [(row["type"], row["label"], *(row["geometry"].get(name) for name in names)) for row in rows]


MEASURED = [
    ("mask", "road", 4, 2, 0, 2, 2),
    ("mask", "car", 3, 1, 1, 2, 2),
    ("mask", "car", 1, 3, 2, 1, 1),
    ("mask", "sky", 0, 0, 0, 0, 0),
]


@pytest.mark.parametrize("role", INDEX_IMAGE_ROLES)
def test_an_index_image_completes_one_mask_row_an_index(role: str, service: Service, files: Files) -> None:
    files.has[f"/{role}"] = png(SCENE) if role == "indexedImage" else extended(SCENE)
    receive_callback(service, segmentation(files, role))
    assert masks(service)[0] == ("mask", "road", None, None, None, None, None)
    run_due_jobs(service)
    assert masks(service) == MEASURED
    for row in table(service, Annotation):
        rle = row["geometry"]["rle"]
        assert (coco.decode(rle) == (row["geometry"]["index"] == SCENE)).all()
    artifact = only(service, Artifact)
    assert artifact["details"] == {"width": 5, "height": 3, "unlabeled_pixels": 7}
    assert (artifact["state"], artifact["reason"], artifact["annotation_count"]) == ("stored", None, None)
    assert only(service, Response)["annotation_count"] == 4


@pytest.mark.parametrize("first", [0, 1])
def test_the_extended_index_image_wins_in_either_order(first: int, service: Service, files: Files) -> None:
    files.has = {"/indexedImage": png(SCENE % 2), "/extendedIndexedImage": extended(SCENE)}
    receive_callback(service, segmentation(files, *INDEX_IMAGE_ROLES))
    by_role = {str(row["id"]): row["role"] for row in table(service, Artifact)}
    waiting = {by_role[row["subject"]]: row["id"] for row in table(service, Job)}
    for role in (INDEX_IMAGE_ROLES[first], INDEX_IMAGE_ROLES[1 - first]):
        run_job(service, queue.claim(service.engine, 60, job_id=waiting[role]))  # type: ignore[arg-type]
    assert masks(service) == MEASURED


def test_the_plain_index_image_counts_where_the_extended_one_cannot_be_read(
    service: Service, files: Files
) -> None:
    files.has = {"/indexedImage": png(SCENE), "/extendedIndexedImage": b"no image"}
    receive_callback(service, segmentation(files, *INDEX_IMAGE_ROLES))
    run_due_jobs(service)
    assert masks(service) == MEASURED
    failed = next(row for row in table(service, Artifact) if row["state"] == "failed")
    assert failed["reason"] == "it is not a PNG image"


UNMAPPED = [
    ("mask", None, 4, 2, 0, 2, 2),
    ("mask", None, 3, 1, 1, 2, 2),
    ("mask", None, 1, 3, 2, 1, 1),
]
LOST_IMAGES = {"unreadable": b"no image", "not a picture of indexes": b"\x89PNG\r\n\x1a\n", "refused": None}


@pytest.mark.parametrize("first", [0, 1], ids=["plain first", "extended first"])
@pytest.mark.parametrize("how", LOST_IMAGES)
def test_without_a_mapping_the_plain_image_gives_the_rows_where_the_extended_one_fails(
    how: str, first: int, service: Service, files: Files
) -> None:
    """The rows are those of one image, whichever is read, in any order, and also once the other one arrives."""
    files.has = {"/indexedImage": png(SCENE), "/extendedIndexedImage": LOST_IMAGES[how]}
    if how == "refused":
        files.has["/extendedIndexedImage"] = reply(b"", 302, Location="http://127.0.0.1:1/elsewhere")
    receive_callback(service, segmentation(files, *INDEX_IMAGE_ROLES, mapping=None))
    by_role = {str(row["id"]): row["role"] for row in table(service, Artifact)}
    waiting = {by_role[row["subject"]]: row["id"] for row in table(service, Job)}
    for role in (INDEX_IMAGE_ROLES[first], INDEX_IMAGE_ROLES[1 - first]):
        run_job(service, queue.claim(service.engine, 60, job_id=waiting[role]))  # type: ignore[arg-type]
    run_due_jobs(service)
    states = {row["role"]: row["state"] for row in table(service, Artifact)}
    assert states == {"indexedImage": "stored", "extendedIndexedImage": "failed"}
    assert masks(service) == UNMAPPED
    assert only(service, Response)["annotation_count"] == 3
    files.has["/extendedIndexedImage"] = extended(np.where(SCENE == 3, 300, SCENE))
    failed = next(row["id"] for row in table(service, Artifact) if row["state"] == "failed")
    with service.engine.begin() as connection:
        retry(connection, failed, "ana")
    run_due_jobs(service)
    assert {row["geometry"]["index"] for row in table(service, Annotation)} == {1, 2, 300}
    assert len(table(service, Annotation)) == only(service, Response)["annotation_count"] == 3


def test_what_mapping_counts_and_pixels_disagree_about_is_said(service: Service, files: Files) -> None:
    files.has["/indexedImage"] = png(np.where(SCENE == 3, 9, SCENE))
    mapping = {**MAPPING, "road": {"index": 1, "numPixels": 5}}
    receive_callback(service, segmentation(files, "indexedImage", mapping=mapping))
    run_due_jobs(service)
    assert only(service, Artifact)["reason"] == (
        "label 'road', index 1: numPixels is 5, the image has 4; "
        "index 9 has 1 pixels and no entry in labelMapping"
    )


def test_the_images_of_labels_are_compared_once_all_are_here_in_any_order(
    service: Service, files: Files
) -> None:
    files.has = {
        "/indexedImage": png(SCENE),
        "/road": png((SCENE == 1) * 255),
        "/car-0": png((SCENE == 2) * 255),
        "/car-1": png((SCENE == 1) * 255),
        "/broken": b"no image",
        "/unlabeled": png((SCENE == 0) * 255),
    }
    labeled = {
        "road": files.url("/road"),
        "car": [files.url("/car-0"), files.url("/car-1")],
        "sky": files.url("/broken"),
    }
    for number, last in enumerate(("indexedImage", "labeled:road")):
        receive_callback(
            service,
            segmentation(files, "indexedImage", labeled=labeled, unlabeled=True).replace(
                b"0001", b"000%d" % number
            ),
        )
        of_role = {
            str(row["id"]): row["role"] for row in table(service, Artifact) if row["state"] == "pending"
        }
        for row in sorted(table(service, Job), key=lambda row: of_role[row["subject"]] == last):
            run_job(service, queue.claim(service.engine, 60, job_id=row["id"]))  # type: ignore[arg-type]
    reasons = {(row["task_id"][-1], row["role"]): row["reason"] for row in table(service, Artifact)}
    for number in "01":
        assert {role: reason for (at, role), reason in reasons.items() if at == number} == {
            "indexedImage": None,
            "labeled:road": None,
            "labeled:car:0": None,
            "labeled:car:1": "the image 'labeled:car:1' lacks 1 pixels of the index image and has 4 others",
            "labeled:sky": "it is not a PNG image",
            "unlabeled": None,
        }
    assert {row["state"] for row in table(service, Artifact)} == {"stored"}


def test_a_replay_measures_the_masks_again_without_fetching(service: Service, files: Files) -> None:
    files.has["/indexedImage"] = png(SCENE)
    receipt = receive_callback(service, segmentation(files, "indexedImage"))
    run_due_jobs(service)
    replay.replay(service, receipt.delivery_id, "ana")
    assert only(service, Artifact)["state"] == "pending"
    run_due_jobs(service)
    assert masks(service) == MEASURED
    assert files.requests == ["/indexedImage"]
    assert table(service, Job) == []


def test_a_mask_bomb_is_refused(service: Service, files: Files) -> None:
    width = (100_000).to_bytes(4, "big")
    files.has["/indexedImage"] = png(SCENE)[:16] + width + width + png(SCENE)[24:]
    receive_callback(service, segmentation(files, "indexedImage"))
    run_due_jobs(service)
    assert "100,000 × 100,000 pixels are more than" in only(service, Artifact)["reason"]


FETCH_WITHIN = """
import resource, sys
from uuid import UUID
import psutil
from config import Settings
from pipeline.bootstrap import build_service
from pipeline.jobs import queue, queues
from sqlalchemy import select
from models import Artifact, Response
from workers.runner import run_job
import workers.celery_app

url, host, store, megabytes = sys.argv[1:]
service = build_service(Settings(database_url=url, artifact_hosts=(host,), artifact_store=store, secret_key="s",
                                max_artifact_bytes=2**31))
with service.reader.begin() as connection:
    connection.execute(select(Artifact)).all()
idle = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (idle + int(megabytes) * 2**20,) * 2)
run_job(service, queue.claim_bounded(service.engine, 60, queues.FETCH, 1))
with service.reader.begin() as connection:
    print(*connection.execute(select(Artifact.state, Artifact.reason, Response.annotation_count)).one(), sep="|")
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_large_file_becomes_rows_within_300_mb_over_the_idle_worker(
    service: Service, files: Files, database_url: str, tmp_path: Path
) -> None:
    vertices = ",".join(f'{{"x":{n}.5,"y":{n}}}' for n in range(300))
    shape = f'{{"type":"polygon","label":"road","uuid":"u","vertices":[{vertices}]}}'
    frame = ('{"annotations":[' + ",".join([shape] * 20) + "]}").encode()
    frames = amount(40_000_000, 200_000_000) // len(frame)  # as Python objects: more than 400 MB

    def large(_: ReceivedRequest) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n["
        for _ in range(frames - 1):
            yield frame + b","
        yield frame + b"]"

    files.has["/large"] = large
    receive_callback(service, video(files, "/large", type="videopolygonannotation"))
    service.engine.dispose()
    command = [
        sys.executable,
        "-c",
        FETCH_WITHIN,
        database_url,
        files.host,
        str(tmp_path / "artifacts"),
        "300",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == f"stored|None|{20 * frames}", done.stderr[-3000:]


def test_a_file_whose_rows_are_far_larger_than_it_fails_with_the_number_and_leaves_no_row(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "FREE_CHARACTERS", 100_000)
    monkeypatch.setattr(extract, "MAX_BATCH_CHARACTERS", 20_000)
    keys = [{"key": key, "x": 1, "y": 2} for key in range(500)]
    track = {"label": "x", "geometry": "point", "attributes": {"a": "A" * 5_000}, "frames": keys}
    files.has["/result"] = json.dumps({"annotations": {"u1": track}}).encode()
    receive_callback(service, video(files, "/result", type="videoplaybackannotation"))
    work_without_planning(service)
    artifact = only(service, Artifact)
    assert artifact["state"] == "failed"
    assert re.match(r"its rows have more than [\d,]+ characters, 10 times", artifact["reason"])
    assert table(service, Annotation) == []


@pytest.mark.parametrize("mapping", [{}, None])
def test_an_index_image_without_a_mapping_gives_masks_without_labels(
    mapping: Any, service: Service, files: Files
) -> None:
    files.has = {"/indexedImage": png(SCENE), "/extendedIndexedImage": extended(SCENE)}
    receive_callback(service, segmentation(files, *INDEX_IMAGE_ROLES, mapping=mapping))
    work_without_planning(service)
    assert masks(service) == [
        ("mask", None, 4, 2, 0, 2, 2),
        ("mask", None, 3, 1, 1, 2, 2),
        ("mask", None, 1, 3, 2, 1, 1),
    ]
    assert [row["geometry"]["index"] for row in table(service, Annotation)] == [1, 2, 3]
    assert only(service, Response)["annotation_count"] == 3
    assert [row["state"] for row in table(service, Artifact)] == ["stored", "stored"]
