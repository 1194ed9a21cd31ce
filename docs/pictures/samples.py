"""A task of each type on the files of scenes.py, with the result that its picture shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import scenes

Put = Callable[[str, bytes, str], str]
"""Stores a file with its name and media type at the sandbox. Returns its address."""
Sample = dict[str, Any]
"""`params`, the request; `response`, what the sandbox answers with; `query`, that of the console's page; `area`, what of it
is pictured, if not all of the result."""
ROWS = "[data-place]"

VEHICLES = ["car", "van", "pedestrian"]
TEXT = (
    "Ada Lovelace met Charles Babbage at a party in London in June 1833. He showed her his Difference Engine,"
    " and years later she described how its successor could be programmed."
)
SPANS = (
    ("Ada Lovelace", "person"),
    ("Charles Babbage", "person"),
    ("London", "place"),
    ("June 1833", "date"),
    ("Difference Engine", "machine"),
)


def boxes(frame: int = 0) -> list[dict[str, Any]]:
    """Return a box around each vehicle and person of the street."""
    placed = zip(VEHICLES, (scenes.car_box(frame), scenes.VAN_BOX, scenes.PEDESTRIAN_BOX), strict=True)
    return [
        {
            "type": "box",
            "uuid": label,
            "label": label,
            **dict(zip(("left", "top", "width", "height"), box, strict=True)),
        }
        for label, box in placed
    ]


def shape(kind: str, label: str, points: scenes.Points) -> dict[str, Any]:
    """Return an annotation with vertices."""
    return {"type": kind, "label": label, "vertices": [{"x": x, "y": y} for x, y in points]}


def lanes() -> list[dict[str, Any]]:
    """Return the lines on the road."""
    return [
        shape("line", "solid line", [(0, 246), (320, 246), (640, 246)]),
        shape("line", "dashed line", [(10, 332), (326, 332), (632, 332)]),
    ]


def points() -> list[dict[str, Any]]:
    """Return a point on each light of the car."""
    left = scenes.car_left(0)
    return [
        {"type": "point", "label": "headlight", "x": left + 169, "y": 256},
        {"type": "point", "label": "brakelight", "x": left + 3, "y": 255},
    ]


def polygons(frame: int = 0) -> list[dict[str, Any]]:
    """Return the outlines of the car and the house."""
    return [shape("polygon", "car", scenes.car_outline(frame)), shape("polygon", "building", scenes.HOUSE)]


def van() -> dict[str, Any]:
    """Return the cuboid around the van."""
    corners = [
        {"type": "vertex", "description": name, "x": x, "y": y} for name, (x, y) in scenes.VAN_CORNERS.items()
    ]
    return {"type": "cuboid", "label": "van", "vertices": corners}


def wheels() -> list[dict[str, Any]]:
    """Return an ellipse around each wheel of the car."""
    radius = scenes.WHEEL_RADIUS
    return [
        shape("ellipse", "wheel", [(x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)])
        for x, y in scenes.car_wheels()
    ]


def on_image(response: dict[str, Any], **params: Any) -> Callable[[Put], Sample]:
    """Return a sample on the picture of the street."""

    def make(put: Put) -> Sample:
        address = put("street.png", scenes.street_image(), "image/png")
        return {"params": {"attachment_type": "image", "attachment": address, **params}, "response": response}

    return make


def drawn(annotations: list[dict[str, Any]]) -> Callable[[Put], Sample]:
    """Return a sample of a type that draws one shape."""
    labels = list(dict.fromkeys(one["label"] for one in annotations))
    return on_image({"annotations": annotations}, objects_to_annotate=labels, with_labels=True)


def geometries(annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the parameter `geometries` that asks for these shapes."""
    asked: dict[str, dict[str, list[str]]] = {}
    for one in annotations:
        labels = asked.setdefault(one["type"], {"objects_to_annotate": []})["objects_to_annotate"]
        if one["label"] not in labels:
            labels.append(one["label"])
    return asked


EVERY_SHAPE = [boxes()[0], polygons()[1], *lanes(), *points(), van(), *wheels()]


def segmented(put: Put) -> Sample:
    """Return a segmentation of the street."""
    labels = ["sky", "building", "tree", "sidewalk", "road", "car", "van", "pedestrian"]
    index_of = {label: index for index, label in enumerate(labels, 1)}
    mask = put("indexes.png", scenes.street_indexes(index_of), "image/png")
    mapping = {label: {"index": index, "color": "#808080"} for label, index in index_of.items()}
    response = {"annotations": {"combined": {"indexedImage": mask}}, "labelMapping": mapping}
    return {**on_image(response, labels=labels)(put), "area": ROWS}


def put_json(put: Put, name: str, value: Any) -> dict[str, str]:
    """Return the reference to a JSON file."""
    return {"url": put(name, json.dumps(value).encode(), "application/json")}


def over_frames(
    shapes: Callable[[int], list[dict[str, Any]]], events: Sequence[dict[str, Any]] = (), **params: Any
) -> Callable[[Put], Sample]:
    """Return a sample on the frames of the street; its page shows the second one."""

    def make(put: Put) -> Sample:
        frames = range(scenes.FRAMES)
        images = [put(f"frame-{n}.png", scenes.street_image(n), "image/png") for n in frames]
        found = [{"annotations": shapes(n)} for n in frames]
        request = {"attachment_type": "image", "attachments": images, **params}
        if "objects_to_annotate" not in params:
            request["geometries"] = geometries(shapes(0))
        response = {"annotations": put_json(put, "frames.json", found)}
        if events:
            response["events"] = put_json(put, "events.json", {"events": events})
        return {"params": request, "response": response, "query": "?frame=1"}

    return make


def played(put: Put, clip: bytes) -> Sample:
    """Return a sample on a clip of the street: each object with its frames, one a second."""
    tracks = {
        label: {
            "label": label,
            "geometry": "box",
            "frames": [
                {
                    "key": frame,
                    "timestamp": frame,
                    **{key: value for key, value in box.items() if key not in ("uuid", "label", "type")},
                }
                for frame in range(scenes.FRAMES)
                for box in boxes(frame)
                if box["label"] == label
            ],
        }
        for label in VEHICLES
    }
    return {
        "params": {
            "attachment_type": "video",
            "attachment": put("street.mp4", clip, "video/mp4"),
            "frame_rate": 1,
            "geometries": geometries(boxes()),
        },
        "response": {"annotations": put_json(put, "tracks.json", {"annotations": tracks})},
        "query": "?frame=1",
    }


def lidar(put: Put, response: Callable[[Put], dict[str, Any]], area: str = ROWS, **params: Any) -> Sample:
    """Return a sample on two lidar frames, each with the image of a camera."""
    frames = []
    for frame in range(2):
        image = put(f"camera-{frame}.png", scenes.street_image(frame), "image/png")
        frames.append(put(f"lidar-{frame}.json", scenes.lidar_frame(frame, [image]), "application/json"))
    labels = ["car", "truck", "pedestrian"]
    request = {"attachment_type": "json", "attachments": frames, "labels": labels, **params}
    return {"params": request, "response": response(put), "area": area}


def cuboid_file(put: Put) -> dict[str, Any]:
    """Return a response with the cuboids of two frames."""
    return {"annotations": put_json(put, "cuboids.json", [{"cuboids": scenes.cuboids(n)} for n in range(2)])}


def segment_files(put: Put) -> dict[str, Any]:
    """Return a response with the cuboids, and the object that each point belongs to."""
    objects = [{"label": "ground", "index": 1}]
    objects += [
        {"label": one.label, "index": number, "instance": number - 1}
        for number, one in enumerate(scenes.objects_3d(), 2)
    ]
    owners = [[owner + 2 for owner in scenes.lidar_points(frame)[1]] for frame in range(2)]
    content = {"objects": objects, "point_objects": owners}
    return {**cuboid_file(put), "point_segmentations": put_json(put, "points.json", content)}


def linked_file(put: Put) -> dict[str, Any]:
    """Return a response with the boxes that the camera sees, and the cuboids that they show."""
    linked = [
        {**box, "cuboid_uuid": f"cuboid-{number}"} for number, box in zip((0, 2, 3), boxes(), strict=True)
    ]
    seen = {"camera_responses": [{"camera_used": 0, "annotations": linked}]}
    return {"annotations": put_json(put, "links.json", [seen, seen])}


MAP = [
    shape("polygon", "crosswalk", [(-6, 8), (6, 8), (6, 11), (-6, 11)]),
    shape("line", "curb", [(-6, -14), (-6, 14)]),
    shape("line", "curb", [(6, -14), (6, 14)]),
    shape("line", "middle line", [(0, -14), (0, 7)]),
    {"type": "point", "label": "traffic light", "x": 7, "y": 7},
    {"type": "point", "label": "traffic light", "x": -7, "y": 12},
]
TOGGLES, ABOVE, IN_3D = "[data-toggles]", "[data-place] .picture", "canvas.points, [data-points-state]"


def map_file(put: Put) -> dict[str, Any]:
    """Return a response with the map of the street."""
    return {"annotations": put_json(put, "map.json", [{"annotations": MAP}])}


def on_receipt(response: dict[str, Any], **params: Any) -> Callable[[Put], Sample]:
    """Return a sample about the receipt."""

    def make(put: Put) -> Sample:
        address = put("receipt.png", scenes.receipt(), "image/png")
        request = {"attachment_type": "image", "attachment": address, **params}
        return {
            "params": request,
            "response": response,
            **({"area": ROWS} if "annotations" in response else {}),
        }

    return make


def blocks(*labels: str) -> Callable[[Put], Sample]:
    """Return a sample with the lines of the receipt that have these labels."""
    features = [{"type": "block", "label": label} for label in labels]
    return on_receipt({"annotations": scenes.receipt_blocks(labels)}, features=features)


def fixed(params: Mapping[str, Any], response: Mapping[str, Any]) -> Callable[[Put], Sample]:
    """Return a sample that needs no file."""
    return lambda put: {"params": dict(params), "response": dict(response)}


def compared(put: Put) -> Sample:
    """Return a comparison of two pictures of the street."""
    images = [put(f"frame-{n}.png", scenes.street_image(n), "image/png") for n in (0, 3)]
    return {
        "params": {
            "attachment_type": "image",
            "attachments": images,
            "choices": ["the same", "different"],
            "fields": {"difference": "What differs?"},
        },
        "response": {"choice": "different", "fields": {"difference": "The red car is further to the right."}},
    }


def entities() -> Sample:
    """Return names in a text, and who is related to what."""
    spans = [
        {
            "id": words,
            "start": TEXT.index(words),
            "end": TEXT.index(words) + len(words),
            "text": words,
            "label": label,
        }
        for words, label in SPANS
    ]
    relationships = [
        {"id": "r1", "source_ref": "Ada Lovelace", "target_ref": "Charles Babbage", "name": "met"},
        {"id": "r2", "source_ref": "Charles Babbage", "target_ref": "Difference Engine", "name": "invented"},
    ]
    labels = [{"name": name, "description": name} for name in dict.fromkeys(label for _, label in SPANS)]
    return {
        "params": {"text": TEXT, "labels": labels},
        "response": {"annotations": spans, "relationships": relationships},
    }


def spoken(put: Put) -> Sample:
    """Return the transcript of a call."""
    words = ("Hello,", "when", "do", "you", "open", "on", "Sunday?")
    alignment = [
        {
            "word": word,
            "start": round(0.3 + 0.5 * n, 1),
            "end": round(0.7 + 0.5 * n, 1),
            "confidence": round(0.97 - n / 100, 2),
        }
        for n, word in enumerate(words)
    ]
    return {
        "params": {"attachment_type": "audio", "attachment": put("call.wav", scenes.call(), "audio/wav")},
        "response": {"transcript": " ".join(words), "duration": scenes.CALL_SECONDS, "alignment": alignment},
    }


def message(role: str, text: str, rating: int | None = None) -> dict[str, Any]:
    """Return a message of a conversation."""
    rated = [{"key": "helpfulness", "type": "integer", "title": "Helpfulness", "value": rating}]
    return {"role": role, "content": {"text": text}, "annotations": rated if rating else []}


def stages(*responses: tuple[str, str]) -> Callable[[Put], Sample]:
    """Return the outputs of a conversation or of the stages of a task."""
    outputs = [{"type": kind, "output": output} for kind, output in responses]
    return fixed({}, {"responses": outputs})


FIELDS = {"shop": "Name of the shop", "total": "Sum at the bottom"}
PRODUCTS = [
    {"item": "Rye bread", "price": "7.80"},
    {"item": "Apple cake", "price": "3.40"},
    {"item": "Coffee", "price": "2.60"},
]
INSTRUCTIONS = ("Instructions", "")

EVENTS = [{"label": "car passes", "type": "range", "start": 1, "end": 3}]

SAMPLES: dict[str, Callable[[Put], Sample]] = {
    "annotation": drawn(boxes()),
    "pointannotation": drawn(points()),
    "lineannotation": drawn(lanes()),
    "polygonannotation": drawn(polygons()),
    "cuboidannotation": drawn([van()]),
    "imageannotation": on_image({"annotations": EVERY_SHAPE}, geometries=geometries(EVERY_SHAPE)),
    "segmentannotation": segmented,
    "videoannotation": over_frames(lambda frame: [*boxes(frame), polygons(frame)[1]], EVENTS),
    "videoboxannotation": over_frames(boxes, objects_to_annotate=VEHICLES),
    "videocuboidannotation": over_frames(lambda _: [van()], objects_to_annotate=["van"]),
    "federal2dvideoannotation": over_frames(polygons),
    "laneannotation": over_frames(lambda _: lanes(), objects_to_annotate=["solid line", "dashed line"]),
    "lidarannotation": lambda put: lidar(put, cuboid_file, f"{TOGGLES}, {ABOVE}, {IN_3D}"),
    "lidarsegmentation": lambda put: lidar(
        put, segment_files, f"{IN_3D}, [data-place] table", labels=["car", "truck", "pedestrian", "ground"]
    ),
    "lidarlinking": lambda put: lidar(put, linked_file, labels=VEHICLES),
    "lidartopdown": lambda put: lidar(
        put, map_file, f"{TOGGLES}, {ABOVE}", labels=[], geometries=geometries(MAP)
    ),
    "sensorfusion": lambda put: lidar(put, cuboid_file, IN_3D),
    "categorization": on_image({"category": "day"}, categories=["day", "dusk", "night"]),
    "comparison": compared,
    "transcription": on_receipt(
        {"fields": {"shop": "Corner Bakery", "total": "13.80"}, "repeatable_fields": PRODUCTS},
        fields=FIELDS,
        repeatable_fields={"item": "Item", "price": "Price"},
    ),
    "datacollection": fixed(
        {
            "attachment_type": "website",
            "attachment": "https://bakery.example/",
            "fields": {"phone": "Telephone", "hours": "Opening hours"},
        },
        {
            "fields": {"phone": "+1 555 0100", "hours": "Tuesday to Sunday, 7 to 18"},
            "time_spent_in_seconds": 48.25,
        },
    ),
    "audiotranscription": spoken,
    "documenttranscription": blocks("shop", "item", "price", "total"),
    "documentmodel": blocks("shop", "address", "date", "total"),
    "namedentityrecognition": lambda put: entities(),
    "textcollection": lambda put: {
        "params": {
            "attachments": [{"type": "image", "content": put("receipt.png", scenes.receipt(), "image/png")}],
            "fields": [
                {"type": "text", "field_id": "shop", "title": "Shop"},
                {"type": "number", "field_id": "total", "title": "Total"},
                {
                    "type": "field_set",
                    "field_id": "items",
                    "max_responses_required": 9,
                    "fields": [{"type": "text", "field_id": "item"}, {"type": "number", "field_id": "price"}],
                },
            ],
        },
        "response": {"annotations": {"shop": "Corner Bakery", "total": "13.80", "items": PRODUCTS}},
    },
    "chat": stages(
        INSTRUCTIONS, ("Chat", "You can park on Mill Street; it is free after six."), ("Rating", "4")
    ),
    "chatlite": stages(INSTRUCTIONS, ("Chat", "The bakery opens at seven.")),
    "chatexperimental": stages(
        INSTRUCTIONS, ("Chat", "Rye, wheat and spelt."), ("Comment", "Short and correct.")
    ),
    "multichat": lambda put: {
        "params": {},
        "response": {
            "threads": [
                {
                    "id": name,
                    "turns": [
                        {
                            "id": f"{name}-1",
                            "messages": [
                                message("user", "Is the bakery open on Sunday?"),
                                message("assistant", text, rating),
                            ],
                        }
                    ],
                }
                for name, text, rating in (
                    ("model-a", "Yes, from 7 to 18.", 5),
                    ("model-b", "I am not sure. Please call them.", 2),
                )
            ]
        },
    },
    "multistage": stages(INSTRUCTIONS, ("Write", "Why is rye bread dark?"), ("Review", "Clear. Approved.")),
}
"""By task type."""
