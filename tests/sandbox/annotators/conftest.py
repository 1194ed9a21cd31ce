"""Fixtures of the annotator tests: a store for result files, and one request of every task type."""

import json
from typing import Any

import pytest

CAR_OR_BUS = ["car", "bus"]
IMAGE = {"attachment": "https://example.com/street.png", "attachment_type": "image"}
FRAMES = {"attachments": [f"https://example.com/{n}.png" for n in range(4)], "attachment_type": "image"}
SHAPES = {
    "box": {"objects_to_annotate": CAR_OR_BUS, "min_width": 12, "min_height": 8},
    "polygon": {"objects_to_annotate": ["house"], "min_vertices": 4, "max_vertices": 7},
    "line": {"objects_to_annotate": ["curb"]},
    "point": {"objects_to_annotate": ["headlight"]},
    "cuboid": {"objects_to_annotate": ["van"]},
    "ellipse": {"objects_to_annotate": ["wheel"]},
}
OBJECTS = {"objects_to_annotate": CAR_OR_BUS, "with_labels": True}
FORM = [
    {
        "type": "category",
        "field_id": "color",
        "choices": [{"label": "Red", "value": "red"}, {"label": "Blue", "value": "blue"}],
    },
    {"type": "text", "field_id": "title", "title": "Title"},
    {"type": "number", "field_id": "price"},
    {"type": "boolean", "field_id": "in_stock"},
    {
        "type": "category",
        "field_id": "sizes",
        "choices": [{"value": "S"}, {"value": "M"}],
        "max_responses_required": 3,
    },
    {"type": "field_set", "field_id": "maker", "fields": [{"type": "text", "field_id": "name"}]},
]
LABELS = ["road", {"choice": "thing", "subchoices": ["car", {"choice": "person"}], "instance_label": True}]

REQUESTS: dict[str, dict[str, Any]] = {
    "annotation": IMAGE | OBJECTS,
    "pointannotation": IMAGE | OBJECTS,
    "lineannotation": IMAGE | OBJECTS,
    "polygonannotation": IMAGE | OBJECTS,
    "cuboidannotation": IMAGE | {"objects_to_annotate": CAR_OR_BUS},
    "imageannotation": IMAGE | {"geometries": SHAPES},
    "segmentannotation": IMAGE | {"labels": LABELS},
    "videoannotation": FRAMES | {"geometries": SHAPES, "events_to_annotate": ["turn", "stop"]},
    "videoplaybackannotation": {
        "attachment": "https://example.com/drive.mp4",
        "attachment_type": "video",
        "duration_time": 5,
        "geometries": SHAPES,
    },
    "videoboxannotation": FRAMES | OBJECTS,
    "videopolygonannotation": FRAMES | OBJECTS,
    "videocuboidannotation": FRAMES | OBJECTS,
    "laneannotation": FRAMES | OBJECTS,
    "federal2dvideoannotation": FRAMES | {"geometries": SHAPES},
    "lidarannotation": FRAMES | {"attachment_type": "json", "labels": CAR_OR_BUS},
    "sensorfusion": FRAMES | {"attachment_type": "json", "labels": CAR_OR_BUS},
    "lidarsegmentation": {
        "lidar_task": "5774cc78b01249ab09f089dd",
        "lidar_task_frames": [0, 2],
        "labels": LABELS,
    },
    "lidarlinking": FRAMES
    | {"attachment_type": "json", "labels": CAR_OR_BUS, "annotation_type": "annotation"},
    "lidartopdown": FRAMES | {"geometries": {kind: SHAPES[kind] for kind in ("polygon", "line", "point")}},
    "categorization": {"attachment": "some text", "attachment_type": "text", "categories": ["red", "blue"]},
    "comparison": FRAMES | {"choices": ["yes", "no"], "fields": {"difference": "Describe it"}},
    "transcription": IMAGE
    | {
        "fields": {"title": "The title"},
        "repeatable_fields": {"item": "Item", "kind": {"description": "Kind", "choices": ["food", "drink"]}},
    },
    "datacollection": {
        "attachment": "https://example.com",
        "attachment_type": "website",
        "fields": {"jobs": "Jobs URL"},
    },
    "audiotranscription": {
        "attachment": "https://example.com/a.mp3",
        "phrases": ["Weigh bridge"],
        "verbatim": True,
    },
    "phonecall": {"phone_number": "5055005555", "choices": ["yes", "no"]},
    "textcollection": {"fields": FORM, "attachments": [{"type": "text", "content": "A shirt"}]},
    "namedentityrecognition": {
        "text": "Ada met Bilal in Ankara in May.",
        "labels": [{"name": "person"}, {"name": "place"}],
    },
    "documenttranscription": IMAGE | {"features": [{"type": "block", "label": "paragraph"}]},
    "documentmodel": FRAMES | {"features": [{"type": "block", "label": "total"}]},
    "chat": {"template_variables": {"prompt": "Explain tides"}},
    "chatlite": {},
    "chatexperimental": {},
    "multichat": {"messages": [{"role": "user", "content": "Hello"}]},
    "multistage": {"stages": [{"type": "Review"}]},
}


class FileStore:
    """Store result files under numbered URLs."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def put(self, content: bytes, media_type: str) -> str:
        url = f"https://results.example.com/{len(self.files)}"
        self.files[url] = content
        return url

    def json(self, url: str) -> Any:
        return json.loads(self.files[url])


@pytest.fixture
def store() -> FileStore:
    return FileStore()


@pytest.fixture(params=list(REQUESTS))
def task(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One task of every type."""
    return {"type": request.param, "params": REQUESTS[request.param]}
