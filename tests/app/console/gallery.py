"""A task of every kind that the console draws, with the files that they point to."""

import io
import json
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.service import Service
from workers.runner import run_due_jobs

SIZE = (640, 480)
PHOTO = (4000, 3000)
TURNED = (480, 640)
FRAMES = 3
CLIP = Path(__file__).with_name("clip.mp4")
"""A box that moves to the right for 1.6 seconds: 160 × 120 pixels, H.264."""
LABELS = ("meadow", "sheep")
SIGNED = "?X-Amz-Signature=secret-part"
"""What a presigned address ends with: it may be shown inside raw data only."""
HOSTILE = "<img src=x onerror=alert(1)>\"'=cmd|"

WORKFLOWS = {
    "second-look.yaml": f"""workflow: second-look
description: {json.dumps("Draw again what was accepted " + HOSTILE)}
steps:
  outlines:
    after: {{type: imageannotation, state: accepted}}
    hold: true
    create:
      type: polygonannotation
      params:
        instruction: Outline each car
        attachment_type: image
        attachment: ${{{{ task.params.attachment }}}}
        objects_to_annotate: [car]
        with_labels: true
""",
    "from-images.yaml": """workflow: from-images
steps:
  boxes:
    start: {columns: [image, objects]}
    copies: 2
    create:
      type: annotation
      params:
        instruction: Draw a box around each object
        attachment_type: image
        attachment: ${{ row.image }}
        objects_to_annotate: ${{ row.objects }}
""",
    "broken.yaml": "workflow: broken\nsteps:\n  one:\n    after: {type: annotation}\n    wrong: <b>1</b>\n",
    "nameless.yaml": "steps: [",
}
"""Files of workflows: one that plans, one that begins with inputs, one with errors, and one that is no YAML."""

BOX = {"type": "box", "label": "car", "uuid": "a", "left": 100, "top": 50, "width": 200, "height": 100}
SHAPES: list[dict[str, Any]] = [
    BOX,
    {**BOX, "uuid": "b", "left": 300, "rotation": 0.5},
    {
        "type": "polygon",
        "label": HOSTILE,
        "uuid": "c",
        "vertices": [{"x": 10, "y": 300}, {"x": 600, "y": 310}, {"x": 500, "y": 460}],
    },
    {
        "type": "line",
        "label": "lane",
        "uuid": "d",
        "vertices": [{"x": 5, "y": 200}, {"x": 300, "y": 220.5}, {"x": 630, "y": 190}],
    },
    {"type": "point", "label": "nose", "uuid": "e", "x": 40, "y": 60},
    {
        "type": "ellipse",
        "label": "wheel",
        "uuid": "f",
        "vertices": [{"x": 100, "y": 200}, {"x": 150, "y": 170}, {"x": 200, "y": 200}, {"x": 150, "y": 230}],
    },
    {
        "type": "cuboid",
        "label": "van",
        "uuid": "g",
        "vertices": [
            {"type": "vertex", "description": name, "x": x, "y": y}
            for name, x, y in (
                ("face-topleft", 330, 240),
                ("face-bottomleft", 330, 290),
                ("face-topright", 410, 240),
                ("face-bottomright", 410, 290),
                ("side-topcorner", 450, 252),
                ("side-bottomcorner", 450, 280),
            )
        ],
        "edges": [
            {"type": "edge", "x1": 330, "y1": 240, "x2": 410, "y2": 240},
            {"type": "edge", "x1": 410, "y1": 240, "x2": 450, "y2": 252},
        ],
    },
]
VIDEO = [
    {
        "key": frame,
        "annotations": [
            {
                "label": "car",
                "uuid": "v1",
                "type": "box",
                "left": 50 + 100 * frame,
                "top": 40,
                "width": 80,
                "height": 60,
            }
        ],
    }
    for frame in range(FRAMES)
]
CUBOIDS = [
    {
        "cuboids": [
            {
                "uuid": "l1",
                "label": "tractor",
                "position": {"x": 10.0 + frame, "y": 5.0, "z": 1.0},
                "dimensions": {"x": 2.0, "y": 4.5, "z": 1.5},
                "yaw": 0.7,
            }
        ]
    }
    for frame in range(2)
]

SEGMENTS = {
    "objects": [{"label": "tractor", "index": 1}, {"label": "ground", "index": 2}],
    "point_objects": [[1] * 1000 + [2] * 2000 + [0] * 1000, [2] * 4000],
}
EVENTS = [{"label": "turns", "type": "range", "start": 1, "end": 2}]


def seen(camera: int, left: float) -> dict[str, Any]:
    """What a camera saw of the car."""
    box = {key: value for key, value in BOX.items() if key != "uuid"}
    return {"camera_used": camera, "annotations": [{**box, "cuboid_uuid": "l1", "left": left}]}


CAMERAS = [{"camera_responses": [seen(0, 100), seen(1, 300)]}]


def rig(address: str) -> tuple[str, bytes]:
    """A lidar frame with the images of two cameras."""
    images = [{"image_url": f"{address}/{name}.png"} for name in ("street", "frame-1")]
    return "application/json", json.dumps({"points": [], "images": images}).encode()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def street(size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture whose left half is blue and whose right half is gray, so that it cannot be turned unnoticed."""
    image = Image.new("RGB", size, "#9ec5e8")
    image.paste("#777777", (size[0] // 2, 0, *size))
    return image


def photo() -> bytes:
    """A photograph of several MB: noise cannot be compressed."""
    noise = np.random.default_rng(7).integers(0, 256, (PHOTO[1] // 2, PHOTO[0] // 2, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise).resize(PHOTO), "JPEG", quality=92)


def turned() -> bytes:
    """A JPEG that is stored 640 × 480 and shown 480 × 640."""
    image = street()
    exif = image.getexif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


def sound() -> bytes:
    """A second of silence."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 8000)
    return content.getvalue()


def points(frame: int) -> bytes:
    """A lidar frame as Scale takes it: points in JSON."""
    numbers = np.random.default_rng(frame).normal(0, 12, (4000, 3))
    return json.dumps(
        {"points": [{"x": x, "y": y, "z": z / 8, "i": 0.5} for x, y, z in numbers.tolist()]}
    ).encode()


def mask() -> Image.Image:
    """An indexed mask: 1 in the lower half, 2 in a square at (100, 60) of 50 × 40 pixels."""
    pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    pixels[240:, :] = 1
    pixels[60:100, 100:150] = 2
    return Image.fromarray(pixels)


def files() -> dict[str, tuple[str, bytes]]:
    """Path → media type and content."""
    return {
        "/street.png": ("image/png", encoded(street(), "PNG")),
        "/turned.jpg": ("image/jpeg", turned()),
        "/photo.jpg": ("image/jpeg", photo()),
        "/chime.wav": ("audio/wav", sound()),
        "/clip.mp4": ("video/mp4", CLIP.read_bytes()),
        "/mask.png": ("image/png", encoded(mask(), "PNG")),
        **{
            f"/{name}.json": ("application/json", json.dumps(content).encode())
            for name, content in (
                ("video", VIDEO),
                ("cuboids", CUBOIDS),
                ("segments", SEGMENTS),
                ("events", EVENTS),
                ("cameras", CAMERAS),
            )
        },
        **{f"/frame-{number}.png": ("image/png", encoded(street(), "PNG")) for number in range(FRAMES)},
        **{f"/points-{number}.json": ("application/json", points(number)) for number in range(2)},
    }


@contextmanager
def serving(content: dict[str, tuple[str, bytes]]) -> Iterator[str]:
    """Serve files on a loopback port. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            media_type, body = content.get(self.path.partition("?")[0], ("", b""))
            self.send_response(200 if media_type else 403)
            self.send_header("Content-Type", media_type or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def allow(service: Service, address: str) -> None:
    """Let the service fetch attachments and result files from the server of serving()."""
    host = address.partition("//")[2]
    service.settings = replace(service.settings, attachment_hosts=(host,), artifact_hosts=(host,))


def fill(service: Service, deliver: Callable[..., object], address: str) -> None:
    """Store one task of each kind, and fetch their result files."""
    picture = {"attachment": f"{address}/street.png{SIGNED}", "attachment_type": "image"}
    task = {"type": "imageannotation", "task_id": "drawn", "params": picture}
    deliver("annotation/accepted", **task, response={"annotations": SHAPES}, metadata={"season": "spring"})
    later = {"annotations": [{**BOX, "label": "bus"}, {**SHAPES[1], "left": 330}, *SHAPES[3:]]}
    deliver("annotation/accepted", **task, response=later, updated_at="2031-01-01T00:00:00Z")
    deliver(
        "annotation/accepted", **task, response={"annotations": SHAPES}, updated_at="2032-01-01T00:00:00Z"
    )
    for name, size in (("turned", TURNED), ("photo", PHOTO)):
        box = {**BOX, "left": size[0] / 4, "top": size[1] / 4, "width": size[0] / 2, "height": size[1] / 2}
        deliver(
            "annotation/accepted",
            task_id=name,
            type="imageannotation",
            params={"attachment": f"{address}/{name}.jpg", "attachment_type": "image"},
            response={"annotations": [box]},
        )
    deliver(
        "annotation/accepted",
        task_id="expired",
        params={"attachment": f"{address}/gone.png{SIGNED}", "attachment_type": "image"},
        response={"annotations": [BOX]},
    )
    deliver(
        "videoannotation/file_of_frames",
        task_id="video",
        params={
            "attachments": [f"{address}/frame-{n}.png" for n in range(FRAMES)],
            "attachment_type": "image",
        },
        response={
            "annotations": {"url": f"{address}/video.json"},
            "events": {"url": f"{address}/events.json"},
        },
    )
    deliver(
        "videoannotation/file_of_frames",
        task_id="clip",
        params={"attachment": f"{address}/clip.mp4", "attachment_type": "video", "frame_rate": 2},
        response={"annotations": {"url": f"{address}/video.json"}},
    )
    clouds = {"attachments": [f"{address}/points-{n}.json" for n in range(2)], "attachment_type": "json"}
    deliver(
        "lidarannotation/file_of_cuboids",
        task_id="lidar",
        params=clouds,
        response={"annotations": {"url": f"{address}/cuboids.json"}},
    )
    deliver(
        "lidarsegmentation/file_of_points",
        task_id="segments",
        params={**clouds, "labels": ["tractor", "ground"]},
        response={
            "annotations": {"url": f"{address}/cuboids.json"},
            "point_segmentations": {"url": f"{address}/segments.json"},
        },
    )
    deliver(
        "lidarlinking/file_of_cameras",
        task_id="cameras",
        params={"attachments": [f"{address}/rig.json"], "attachment_type": "json", "labels": ["car"]},
        response={"annotations": {"url": f"{address}/cameras.json"}},
    )
    masks = {
        "annotations": {"combined": {"indexedImage": f"{address}/mask.png"}},
        "labelMapping": {label: {"index": n, "color": "#00ff00"} for n, label in enumerate(LABELS, 1)},
    }
    deliver("segmentannotation/instances", task_id="masks", params=picture, response=masks)
    deliver("documenttranscription/blocks_on_pages", task_id="document")
    deliver(
        "audiotranscription/alignment",
        task_id="audio",
        params={"attachment": f"{address}/chime.wav{SIGNED}", "attachment_type": "audio"},
    )
    deliver("namedentityrecognition/spans_and_relationships", task_id="text")
    for name in ("categorization/several", "comparison/choice_and_fields", "transcription/repeatable_fields"):
        deliver(name, task_id=name.partition("/")[0])
    for name, attachments in (("collected", [f"{address}/street.png"]), ("asked", [])):
        given = {"attachments": [{"type": "image", "content": one} for one in attachments]}
        deliver("textcollection/as_documented", task_id=name, params=given)
    deliver("chat/responses", task_id="chat")
    deliver("multichat/threads_of_turns", task_id="talk")
    deliver(b"not json")
    deliver(b'{"task_id": [1]}')
    run_due_jobs(service)
