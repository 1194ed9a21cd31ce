"""Results with every geometry, for exports: posted as callbacks, with images and files behind them."""

import contextlib
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from PIL import Image

from config import Settings
from pipeline.bootstrap import build_service
from pipeline.db.migrations import migrate
from pipeline.receive.receive import receive
from pipeline.service import Service
from workers.runner import run_due_jobs

WIDTH, HEIGHT = 640, 480


class Files:
    """A web server for attachments and result files: path → bytes."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.requests: list[str] = []
        files = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(self.path.partition("?")[0])
                files.requests.append(path)
                body = files.content.get(path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                with contextlib.suppress(OSError):  # the reader has seen enough
                    self.wfile.write(body or b"")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def add(self, path: str, content: bytes) -> str:
        """The address of the content from now on."""
        self.content[path] = content
        return f"http://{self.host}{quote(path)}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def image(
    width: int = WIDTH, height: int = HEIGHT, *, orientation: int = 1, seed: int = 0, kind: str = "JPEG"
) -> bytes:
    """An image file with noise in it, so that no two are the same."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    made = Image.fromarray(pixels).resize((width, height))
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    file = io.BytesIO()
    made.save(file, kind, exif=exif)
    return file.getvalue()


def indexed_png(indexes: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(indexes.astype(np.uint8), "L").save(file, "PNG")
    return file.getvalue()


def ring(width: int = 40, height: int = 30) -> np.ndarray:
    """Index 1 is a ring with a hole, 2 are two pieces, the rest is 0."""
    indexes = np.zeros((height, width), np.uint8)
    indexes[5:20, 5:20] = 1
    indexes[10:15, 10:15] = 0
    indexes[2:4, 30:35] = 2
    indexes[24:28, 22:26] = 2
    return indexes


def box(label: str | None, uuid: str | None = None, **geometry: Any) -> dict[str, Any]:
    return _shape("box", label, uuid, geometry)


def polygon(label: str, uuid: str | None, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return _shape("polygon", label, uuid, {"vertices": [{"x": x, "y": y} for x, y in points], **more})


def shape(type_: str, label: str, uuid: str, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return _shape(type_, label, uuid, {"vertices": [{"x": x, "y": y} for x, y in points], **more})


def _shape(type_: str, label: str | None, uuid: str | None, geometry: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"type": type_, **geometry}
    if label is not None:
        made["label"] = label
    if uuid is not None:
        made["uuid"] = uuid
    return made


class Labeled:
    """A service over an empty database, and what was posted to it."""

    def __init__(self, database_url: str, folder: Path, files: Files, **settings: Any) -> None:
        (folder / "workflows").mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.files = files
        given: dict[str, Any] = {
            "database_url": database_url,
            "workflows_dir": str(folder / "workflows"),
            "artifact_store": str(folder / "artifacts"),
            "secret_key": "secret",
            "attachment_hosts": (files.host,),
            "artifact_hosts": (files.host,),
            **settings,
        }
        self.service: Service = build_service(Settings(**given), cache_seconds=0)
        self._posted = 0

    def post(
        self,
        task_id: str,
        type_: str,
        response: Any,
        *,
        params: dict[str, Any] | None = None,
        updated_at: str = "2026-01-02T00:00:00.000Z",
        **task: Any,
    ) -> None:
        """Receive a completed task, and read the files that its result points to."""
        body = {
            "task": {
                "task_id": task_id,
                "type": type_,
                "status": "completed",
                "project": "street",
                "batch": "b1",
                "params": params or {},
                "metadata": {},
                "created_at": "2026-01-01T00:00:00.000Z",
                "completed_at": updated_at,
                "updated_at": updated_at,
                **task,
            },
            "task_id": task_id,
            "response": response,
        }
        receive(self.service, json.dumps(body).encode(), "live")
        self.run_jobs()

    def run_jobs(self) -> None:
        """Run what a worker would run."""
        run_due_jobs(self.service)

    def post_image(self, task_id: str, address: str, *annotations: dict[str, Any], **task: Any) -> None:
        """A completed imageannotation."""
        params = {"attachment_type": "image", "attachment": address, "geometries": {}}
        self.post(task_id, "imageannotation", {"annotations": list(annotations)}, params=params, **task)

    def close(self) -> None:
        self.service.engine.dispose()


def fill(labeled: Labeled) -> None:
    """Tasks with every geometry, odd names, shared and empty images, a video, a segmentation, lidar frames and a text."""
    files = labeled.files
    first = files.add("/a/street.jpg", image(seed=1))
    second = files.add("/b/Street.JPG", image(320, 240, seed=2))
    third = files.add('/c/Straße 1, <"x">.png', image(200, 100, seed=3, kind="PNG"))
    turned = files.add("/d/turned.jpg", image(300, 200, orientation=6, seed=4))
    labeled.post_image(
        "65a000000000000000000001",
        first,
        box(
            "car", "u-box", left=10.25, top=-4.5, width=50, height=20.125, attributes={"color": "red", "n": 2}
        ),
        box("Fußgänger", "u-rotated", left=100, top=100, width=60, height=20, rotation=0.5),
        polygon("road", "u-pieces", (10, 200), (110, 200), (60, 290.5)),
        polygon("road", "u-pieces", (210, 200), (310, 200), (260, 290.5)),
        shape("line", "lane", "u-line", (0, 0), (100.5, 50), (200, 50)),
        {"type": "point", "label": "no", "uuid": "u-point", "x": 320.5, "y": 240},
        shape("ellipse", "12", "u-ellipse", (300, 100), (340, 80), (380, 100), (340, 120)),
        shape("cuboid", "car", "u-cuboid", *[(400 + 20 * n, 300 + 10 * (n % 3)) for n in range(6)]),
    )
    labeled.post_image(
        "65a000000000000000000002", first, box("car", "u-shared", left=600, top=400, width=100, height=200)
    )
    labeled.post_image("65a000000000000000000003", second)
    labeled.post_image(
        "65a000000000000000000004",
        third,
        box("=1+1", "u-formula", left=1, top=2, width=3, height=4),
        box(None, "u-unlabeled", left=5, top=6, width=7, height=8),
        box("car", "u-outside", left=900, top=900, width=7, height=8),
    )
    labeled.post_image(
        "65a000000000000000000005", turned, box("con", "u-turned", left=10, top=250, width=30, height=40)
    )
    labeled.post_image(
        "65a000000000000000000006",
        f"http://{files.host}/gone.jpg",
        box("car", "u-gone", left=1, top=1, width=5, height=5),
    )
    labeled.post_image(
        "65a000000000000000000007",
        f"http://{files.host}/measured.jpg",
        box("car", "u-measured", left=1, top=1, width=5, height=5),
        metadata={"width": 64, "height": 48},
    )
    _segmentation(labeled)
    _video(labeled)
    _lidar(labeled)
    _texts(labeled)


def _segmentation(labeled: Labeled) -> None:
    address = labeled.files.add("/s/scene.png", image(40, 30, seed=9, kind="PNG"))
    indexed = labeled.files.add("/s/indexed.png", indexed_png(ring()))
    labeled.post(
        "65a000000000000000000010",
        "segmentannotation",
        {
            "annotations": {"combined": {"indexedImage": indexed}},
            "labelMapping": {
                "pond": {"index": 1, "color": "#ff0000"},
                "reed": {"index": 2, "color": "#00ff00"},
                "empty": {"index": 3, "color": "#0000ff"},
            },
        },
        params={"attachment_type": "image", "attachment": address, "labels": ["pond", "reed", "empty"]},
    )


def _video(labeled: Labeled) -> None:
    frames = [labeled.files.add(f"/v/{n}.jpg", image(160, 120, seed=20 + n)) for n in range(3)]
    content = [
        {"annotations": [box("car", "t-1", left=1.5, top=2, width=10, height=5)]},
        {"annotations": []},
        {
            "annotations": [
                box("car", "t-1", left=3.5, top=2, width=10, height=5),
                box("bus", "t-2", left=-5, top=0, width=20, height=15),
            ]
        },
    ]
    file = labeled.files.add("/v/result.json", json.dumps(content).encode())
    labeled.post(
        "65a000000000000000000020",
        "videoannotation",
        {"annotations": {"url": file}},
        params={"attachment_type": "image", "attachments": frames, "geometries": {}},
    )


def _lidar(labeled: Labeled) -> None:
    cuboid = {
        "uuid": "l-1",
        "label": "truck",
        "position": {"x": 1.5, "y": -2, "z": 0.25},
        "dimensions": {"x": 2, "y": 4.5, "z": 1.5},
        "yaw": 1.57,
        "stationary": False,
        "camera_used": 0,
        "attributes": {"parked": "no"},
    }
    content = [{"cuboids": [cuboid]}, {"cuboids": []}]
    file = labeled.files.add("/l/result.json", json.dumps(content).encode())
    labeled.post(
        "65a000000000000000000030",
        "lidarannotation",
        {"annotations": {"url": file}},
        params={"attachment_type": "json", "attachments": ["https://x.example/0", "https://x.example/1"]},
    )


def _texts(labeled: Labeled) -> None:
    labeled.post(
        "65a000000000000000000040",
        "namedentityrecognition",
        {
            "annotations": [
                {"id": "s1", "start": 0, "end": 8, "text": "Old Mill", "label": "place"},
                {"id": "s2", "start": 19, "end": 23, "text": "Anna", "label": "person"},
            ],
            "relationships": [],
        },
        params={"text": "Old Mill is run by Anna 😀.", "labels": [{"name": "place"}, {"name": "person"}]},
    )
    labeled.post(
        "65a000000000000000000041",
        "categorization",
        {"category": "=cmd|' /C calc'!A0"},
        params={"attachment_type": "text", "attachment": "hello", "categories": ["a"]},
    )


@contextlib.contextmanager
def labeled_service(database_url: str, folder: Path, **settings: Any) -> Iterator[Labeled]:
    """An empty service with its files."""
    files = Files()
    labeled = Labeled(database_url, folder, files, **settings)
    try:
        yield labeled
    finally:
        labeled.close()
        files.close()


@contextlib.contextmanager
def filled_service(folder: Path) -> Iterator[Labeled]:
    """A service on SQLite that holds every geometry."""
    url = f"sqlite:///{folder / 'labeled.db'}"
    migrate(url)
    with labeled_service(url, folder) as labeled:
        fill(labeled)
        yield labeled
