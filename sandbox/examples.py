"""One valid request of each task type: for callbacks about example tasks, and for the page."""

from typing import Any

IMAGE = "https://static.example.com/street.jpg"
FRAMES = [f"https://static.example.com/frame-{number}.jpg" for number in range(3)]
CLOUDS = [f"https://static.example.com/cloud-{number}.json" for number in range(2)]
VIDEO = "https://static.example.com/drive.mp4"
DOCUMENT = "https://static.example.com/receipt.jpg"

_ON_IMAGE = {"attachment_type": "image", "attachment": IMAGE, "with_labels": True}
_FRAMES = {"attachment_type": "image", "attachments": FRAMES}
_VEHICLES = ["car", "pedestrian"]
_BOXES = {"geometries": {"box": {"objects_to_annotate": _VEHICLES, "min_height": 10, "min_width": 10}}}
_CLOUDS = {"attachment_type": "json", "attachments": CLOUDS, "labels": _VEHICLES}
_FIELDS = {"name": "Name of the shop", "total": "Sum at the bottom"}

EXAMPLES: dict[str, dict[str, Any]] = {
    "annotation": {**_ON_IMAGE, "objects_to_annotate": _VEHICLES, "min_width": 30, "min_height": 30},
    "pointannotation": {**_ON_IMAGE, "objects_to_annotate": ["headlight", "brakelight"]},
    "lineannotation": {**_ON_IMAGE, "objects_to_annotate": ["solid line", "dashed line"]},
    "polygonannotation": {**_ON_IMAGE, "objects_to_annotate": _VEHICLES},
    "cuboidannotation": {**_ON_IMAGE, "objects_to_annotate": ["car", "truck"]},
    "imageannotation": {
        "attachment_type": "image",
        "attachment": IMAGE,
        "geometries": {
            "box": {"objects_to_annotate": _VEHICLES},
            "polygon": {"objects_to_annotate": ["building"]},
            "point": {"objects_to_annotate": ["headlight"]},
        },
    },
    "segmentannotation": {
        "attachment_type": "image",
        "attachment": IMAGE,
        "labels": ["road", "vegetation", "background"],
        "instance_labels": ["vehicle"],
    },
    "videoannotation": {**_FRAMES, **_BOXES},
    "videoplaybackannotation": {"attachment_type": "video", "attachment": VIDEO, **_BOXES},
    "videoboxannotation": {**_FRAMES, "objects_to_annotate": _VEHICLES},
    "videocuboidannotation": {**_FRAMES, "objects_to_annotate": _VEHICLES},
    "federal2dvideoannotation": {**_FRAMES, **_BOXES},
    "laneannotation": {**_FRAMES, "objects_to_annotate": ["lane"]},
    "lidarannotation": _CLOUDS,
    "lidarsegmentation": _CLOUDS,
    "lidarlinking": _CLOUDS,
    "lidartopdown": {**_CLOUDS, "geometries": {"polygon": {"objects_to_annotate": ["crosswalk"]}}},
    "sensorfusion": _CLOUDS,
    "categorization": {
        "instruction": "Is this object red or blue?",
        "attachment_type": "text",
        "attachment": "tomato",
        "categories": ["red", "blue"],
    },
    "comparison": {
        "attachment_type": "image",
        "attachments": [IMAGE, DOCUMENT],
        "choices": ["yes", "no"],
        "fields": {"difference": "What differs?"},
    },
    "transcription": {"attachment_type": "image", "attachment": DOCUMENT, "fields": _FIELDS},
    "datacollection": {"attachment_type": "website", "attachment": "https://example.com/", "fields": _FIELDS},
    "audiotranscription": {"attachment_type": "audio", "attachment": "https://static.example.com/call.mp3"},
    "documenttranscription": {"attachment": DOCUMENT, "features": [{"type": "block", "label": "barcode"}]},
    "documentmodel": {"attachment": DOCUMENT},
    "namedentityrecognition": {
        "text": "Ada Lovelace met Charles Babbage in London.",
        "labels": [
            {"name": "person", "description": "who"},
            {"name": "place", "description": "where"},
        ],
    },
    "textcollection": {
        "attachments": [{"type": "image", "content": DOCUMENT}],
        "fields": [
            {"type": "text", "field_id": "shop", "title": "Shop"},
            {"type": "number", "field_id": "total", "title": "Total"},
        ],
    },
    "chat": {"instruction": "Talk about the weather."},
    "chatexperimental": {"instruction": "Talk about the weather."},
    "chatlite": {"instruction": "Talk about the weather."},
    "multichat": {"instruction": "Talk about the weather."},
    "multistage": {"instruction": "Talk about the weather."},
}


def example(type_name: str) -> dict[str, Any]:
    """Return a request of this type, without a callback_url."""
    return {"instruction": "An example of the sandbox.", **EXAMPLES[type_name]}
