"""One annotation is the same in the API, in expressions, in layers files and in exports, for every task type."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from PIL import Image

from app.application import create_app
from app.extensions import SERVICE
from config import load_settings
from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from pipeline.datasets import versions
from pipeline.datasets.versions import Request
from pipeline.follow_ups.views import load_snapshot
from pipeline.service import Service
from scale.layers import LAYER_KEYS, layers
from scale.task_types import TASK_TYPES
from tests.factories.callbacks import callback, receive_callback
from tests.fake_server import FakeServer, reply
from workers.runner import run_due_jobs
from workflows.definition.recipes import layers_file

PAYLOADS = Path(__file__).parents[2] / "payloads"
TOKEN = "a-token-of-the-tests"
TASK_ID = "5f1e9b000000000000000001"
FILES = sorted(path.name.removesuffix(".rows.json") for path in (PAYLOADS / "files").glob("*.rows.json"))
INLINE = sorted(
    path.relative_to(PAYLOADS).as_posix().removesuffix(".expected.json")
    for path in PAYLOADS.glob("*/*.expected.json")
    if "annotations" in json.loads(path.read_text())
)

OF_OTHER_TYPES = [
    f"video_frames of {known.name}"
    for known in TASK_TYPES
    if known.result_form == "file" and known.name.startswith(("video", "lane", "federal"))
]
"""Task types of which only the form of the response is recorded, with a file of the form that they share."""
INDEX_IMAGE = io.BytesIO()
Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) % 5).save(INDEX_IMAGE, "PNG")

Identity = tuple[str | None, str | None, str | None, str | None]


def identity(one: dict[str, Any]) -> Identity:
    """Return what names an annotation: type, label, uuid and frame. A value of a wrong form, kept raw, names nothing."""
    values = [one.get(name) for name in ("type", "label", "uuid", "frame")]
    return tuple(str(value) if isinstance(value, str | int) and value != "" else None for value in values)  # type: ignore[return-value]


@pytest.fixture
def answers() -> Iterator[FakeServer]:
    with FakeServer(lambda _: reply(b"", 404)) as server:
        yield server


@pytest.fixture
def application(database_url: str, tmp_path: Path, answers: FakeServer) -> Iterator[Flask]:
    settings = {
        "API_TOKEN": TOKEN,
        "SECRET_KEY": "secret",
        "DATABASE_URL": database_url,
        "ARTIFACT_STORE": str(tmp_path / "artifacts"),
        "ARTIFACT_HOSTS": answers.url.removeprefix("http://"),
        "WORKFLOWS_DIR": str(tmp_path / "none"),
    }
    made = create_app(load_settings(settings))
    yield made
    made.extensions[SERVICE].engine.dispose()


@pytest.fixture
def read(application: Flask, answers: FakeServer) -> Callable[[str], Service]:
    """`read(case)` → the service after it has received a recorded body, or a recorded result file."""
    service: Service = application.extensions[SERVICE]

    def read_one(case: str) -> Service:
        case, _, other_type = case.partition(" of ")
        if case in FILES:
            about = json.loads((PAYLOADS / "files" / f"{case}.rows.json").read_text())
            about["task_type"] = other_type or about["task_type"]
            content = (PAYLOADS / "files" / f"{case}.json").read_bytes()
            answers.answer = lambda _: reply(content)
            response = {about["role"]: {"url": f"{answers.url}/{case}"}}
            body = callback(response, task_id=TASK_ID, type=about["task_type"], params=about["params"])
        else:
            body = (PAYLOADS / f"{case}.json").read_bytes()
        if case.startswith("segmentannotation/"):
            answers.answer = lambda _: reply(INDEX_IMAGE.getvalue())
            body = re.sub(rb'https://[^"]+', f"{answers.url}/image.png".encode(), body)
        receive_callback(service, body)
        run_due_jobs(service)
        return service

    return read_one


def get(application: Flask, path: str, **query: Any) -> Any:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = application.test_client().get(f"/api/v1{path}", query_string=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json


def of_the_api(application: Flask, task_id: str) -> list[dict[str, Any]]:
    """Return every annotation of a task, page by page."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 1000}
    while True:
        page = get(application, f"/tasks/{task_id}/annotations", **query)
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def of_expressions(service: Service, task_id: str) -> list[dict[str, Any]]:
    with service.reader.begin() as connection:
        snapshot = load_snapshot(connection, task_id)
    assert snapshot is not None
    return snapshot.view.annotations


def of_an_export(service: Service, folder: Path) -> list[dict[str, Any]]:
    version = versions.create(service, "all", Request(), "ana")
    format_ = find_format("csv")
    assert format_ is not None
    write_export(service, version, format_, Options(), str(folder))
    with (folder / "annotations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def in_layers(grouped: dict[str, list[dict[str, Any]]]) -> Counter[Identity]:
    """Return the annotations of one Layers object, whose keys are the shapes."""
    shapes = {plural: shape for shape, plural in LAYER_KEYS.items()}
    return Counter(identity({**one, "type": shapes[key]}) for key, ones in grouped.items() for one in ones)


def without_frame(one: Identity) -> Identity:
    return (*one[:3], None)


@pytest.mark.parametrize("case", [*INLINE, *FILES, *OF_OTHER_TYPES])
def test_an_annotation_is_the_same_in_each_view(
    case: str, application: Flask, read: Callable[[str], Service], tmp_path: Path
) -> None:
    service = read(case)
    tasks = get(application, "/tasks")["data"]
    if not tasks or tasks[0]["response_number"] is None:
        pytest.skip("the body leaves no current response")
    task_id = tasks[0]["task_id"]
    task = get(application, f"/tasks/{task_id}")
    rows, seen = of_the_api(application, task_id), of_expressions(service, task_id)
    api = Counter(map(identity, rows))
    assert task["annotation_count"] == len(rows)
    assert Counter(map(identity, seen)) == api
    assert attributes_of(seen) == attributes_of(rows)
    drawn = in_layers(layers(seen)[0])
    assert not drawn - Counter(map(without_frame, api.elements()))
    if any(row["frame"] is not None for row in rows):
        for frame, grouped in enumerate(layers_file(seen, 0)):
            of_frame = Counter(without_frame(one) for one in api.elements() if one[3] == str(frame))
            assert not in_layers(grouped) - of_frame
    if task["error"] is None and task["status"] == "completed" and task["environment"] == "live":
        assert Counter(map(identity, of_an_export(service, tmp_path / "export"))) == api


def attributes_of(ones: list[dict[str, Any]]) -> Counter[str]:
    return Counter(
        json.dumps(one["attributes"], sort_keys=True)
        for one in ones
        if isinstance(one.get("attributes"), dict)
    )


def test_every_task_type_that_has_annotations_is_among_them() -> None:
    of_files = {
        json.loads((PAYLOADS / "files" / f"{case}.rows.json").read_text())["task_type"] for case in FILES
    }
    of_others = {case.partition(" of ")[2] for case in OF_OTHER_TYPES}
    covered = {case.partition("/")[0] for case in INLINE} | of_files | of_others
    assert {known.name for known in TASK_TYPES if known.yields} - covered == set()
