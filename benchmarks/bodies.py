"""Callback bodies of the three sizes that are measured, each with a task_id of its own."""

import json
from dataclasses import dataclass

ID = b"0123456789abcdef01234567"


@dataclass(frozen=True)
class Body:
    """A callback whose task_id can be filled in without serializing it again."""

    name: str
    annotations: int
    parts: tuple[bytes, ...]

    def with_id(self, number: int) -> bytes:
        """Return the body of the task with this number."""
        return (b"%024x" % number).join(self.parts)

    @property
    def size(self) -> int:
        """Return the bytes of one body."""
        return len(self.with_id(0))


def make(name: str, type_name: str, annotations: list[dict], instruction: str) -> Body:
    """Return a callback of a completed task whose id can be replaced."""
    response = {"annotations": annotations, "global_attributes": {}, "is_customer_fix": False}
    task = {
        "task_id": ID.decode(),
        "type": type_name,
        "status": "completed",
        "created_at": "2026-03-02T10:00:00.000Z",
        "updated_at": "2026-03-02T11:30:00.125Z",
        "completed_at": "2026-03-02T11:30:00.125Z",
        "callback_url": "https://hooks.example.com/callbacks/scale",
        "instruction": instruction,
        "urgency": "standard",
        "is_test": False,
        "project": "meadow",
        "params": {
            "attachment_type": "image",
            "attachment": "https://images.example.com/meadow/000017.jpg",
            "objects_to_annotate": ["sheep", "tractor", "fence post"],
            "with_labels": True,
            "min_width": 10,
            "min_height": 10,
        },
        "metadata": {"camera": "north", "shot": 17},
        "response": response,
    }
    whole = {"response": response, "task_id": ID.decode(), "task": task}
    return Body(name, len(annotations), tuple(json.dumps(whole).encode().split(ID)))


def box(number: int) -> dict:
    """Return a box as Scale sends it."""
    return {
        "uuid": f"6f1d2c3b-5a49-4e78-8c9d-{number:012x}",
        "geometry": "box",
        "label": ("sheep", "tractor", "fence post")[number % 3],
        "left": 10.5 + number % 1900,
        "top": 4.25 + number % 1000,
        "width": 38.0,
        "height": 21.5,
    }


def polygon(number: int) -> dict:
    """Return a triangle as Scale sends it."""
    corners = [{"x": 10 + number, "y": 10}, {"x": 80 + number, "y": 14}, {"x": 44 + number, "y": 60}]
    return {"label": "sheep", "uuid": f"7f1d2c3b-5a49-4e78-8c9d-{number:012x}", "vertices": corners}


ONE_BOX = make("2 KB, 1 box", "annotation", [box(0)], "Draw a box around each **sheep**. " * 15)
FIFTY_BOXES = make("50 boxes", "annotation", [box(n) for n in range(50)], "Draw a box around each **sheep**.")
THOUSAND_BOXES = make("1,000 boxes", "annotation", [box(n) for n in range(1000)], "Box every **sheep**.")
POLYGONS = make(
    "a chain's first result", "polygonannotation", [polygon(n) for n in range(3)], "Outline them."
)
