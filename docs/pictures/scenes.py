"""The files that the pictured tasks are about: a street, its lidar points, a receipt, a call. The same each time."""

from __future__ import annotations

import io
import json
import math
import wave
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = (640, 360)
FRAMES = 4
PACE = 26
"""Pixels that the car moves from frame to frame."""
SMOOTH = 3
"""Pictures are drawn this many times larger, for smooth edges."""
Points = list[tuple[float, float]]


class Part(NamedTuple):
    """One thing of the street: what it is, its form, its points in pixels, and its color."""

    label: str
    form: str  # polygon, or ellipse with two corners of its box
    points: Points
    color: str


def rectangle(left: float, top: float, width: float, height: float) -> Points:
    """Return the corners of an upright rectangle, clockwise from its upper left one."""
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def circle(x: float, y: float, radius: float) -> Points:
    """Return two corners of the box of a circle."""
    return [(x - radius, y - radius), (x + radius, y + radius)]


HOUSE: Points = [(24, 215), (24, 84), (92, 46), (160, 84), (160, 215)]
WINDOWS = [
    *((x, y) for x in (44, 82, 120) for y in (100, 145)),
    *((x, y) for x in (192, 228, 264) for y in (122, 165)),
    *((x, y) for x in (536, 592) for y in (50, 95, 140)),
]
DASHES = range(10, SIZE[0], 94)
VAN_CORNERS = {
    "face-topleft": (356, 156),
    "face-topright": (520, 156),
    "face-bottomright": (520, 284),
    "face-bottomleft": (356, 284),
    "side-topcorner": (562, 162),
    "side-bottomcorner": (562, 276),
}
VAN_WHEELS = ((402, 272), (484, 272))
VAN_BOX = (356, 156, 206, 132)
PEDESTRIAN_BOX = (580, 186, 28, 106)
WHEEL_RADIUS = 18


def car_left(frame: int) -> int:
    """Return where the car begins."""
    return 56 + PACE * frame


def car_box(frame: int = 0) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the car."""
    return car_left(frame), 214, 176, 86


def car_outline(frame: int = 0) -> Points:
    """Return the corners of the car without its wheels."""
    places = [
        (0, 282),
        (0, 246),
        (8, 240),
        (38, 238),
        (58, 214),
        (116, 214),
        (140, 240),
        (170, 248),
        (176, 260),
    ]
    return [(car_left(frame) + x, y) for x, y in [*places, (176, 282)]]


def car_wheels(frame: int = 0) -> Points:
    """Return the centres of the car's wheels."""
    return [(car_left(frame) + x, 282) for x in (38, 138)]


def street(frame: int = 0) -> list[Part]:
    """Return the parts of the street, from back to front. From frame to frame the car moves to the right."""
    left = car_left(frame)
    return [
        Part("sky", "polygon", rectangle(0, 0, 640, 225), "#bcd9ee"),
        Part("building", "polygon", HOUSE, "#d9b99a"),
        Part("building", "polygon", rectangle(176, 104, 124, 111), "#c9d0c0"),
        Part("building", "polygon", rectangle(520, 30, 108, 185), "#b9a7b8"),
        *(Part("building", "polygon", rectangle(x, y, 20, 24), "#5f7488") for x, y in WINDOWS),
        Part("tree", "polygon", rectangle(327, 140, 8, 85), "#6d4c33"),
        Part("tree", "ellipse", [(296, 72), (366, 160)], "#5d9a57"),
        Part("sidewalk", "polygon", rectangle(0, 215, 640, 25), "#cbc5ba"),
        Part("road", "polygon", rectangle(0, 240, 640, 120), "#6f7379"),
        Part("road", "polygon", rectangle(0, 244, 640, 4), "#e8e8e4"),
        *(Part("road", "polygon", rectangle(x, 330, 52, 5), "#e8e8e4") for x in DASHES),
        Part("van", "polygon", rectangle(356, 156, 164, 118), "#3d78b8"),
        Part("van", "polygon", [(520, 156), (562, 162), (562, 266), (520, 274)], "#2b5c93"),
        Part("van", "polygon", rectangle(368, 168, 40, 34), "#24364a"),
        Part("van", "polygon", [(526, 166), (556, 170), (556, 198), (526, 198)], "#24364a"),
        *(Part("van", "ellipse", circle(*at, 16), "#17181a") for at in VAN_WHEELS),
        Part(
            "pedestrian",
            "polygon",
            [(584, 206), (604, 206), (608, 250), (601, 292), (594, 262), (587, 292), (580, 250)],
            "#2e7d32",
        ),
        Part("pedestrian", "ellipse", circle(594, 196, 10), "#e6b48f"),
        Part("car", "polygon", car_outline(frame), "#c0392b"),
        Part(
            "car",
            "polygon",
            [(left + 46, 238), (left + 63, 219), (left + 84, 219), (left + 84, 238)],
            "#24364a",
        ),
        Part(
            "car",
            "polygon",
            [(left + 90, 238), (left + 90, 219), (left + 113, 219), (left + 129, 238)],
            "#24364a",
        ),
        *(Part("car", "ellipse", circle(*at, WHEEL_RADIUS), "#17181a") for at in car_wheels(frame)),
        Part("car", "ellipse", circle(left + 169, 256, 5), "#ffe58a"),
        Part("car", "polygon", rectangle(left, 250, 6, 10), "#ff8a7a"),
    ]


def street_image(frame: int = 0) -> bytes:
    """Return the street as PNG."""
    image = Image.new("RGB", (SIZE[0] * SMOOTH, SIZE[1] * SMOOTH))
    _paint(image, [(part, part.color) for part in street(frame)], SMOOTH)
    return _png(image.resize(SIZE, Image.Resampling.LANCZOS))


def street_indexes(index_of: Mapping[str, int]) -> bytes:
    """Return a PNG whose pixels are the indexes of what is seen there; 0 for labels without one."""
    image = Image.new("L", SIZE)
    _paint(image, [(part, index_of.get(part.label, 0)) for part in street()], 1)
    return _png(image)


def _paint(image: Image.Image, parts: Sequence[tuple[Part, str | int]], scale: int) -> None:
    draw = ImageDraw.Draw(image)
    for part, fill in parts:
        points = [(x * scale, y * scale) for x, y in part.points]
        (draw.ellipse if part.form == "ellipse" else draw.polygon)(points, fill=fill)


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


RECEIPT_SIZE = (480, 560)
RECEIPT = (
    ("shop", "Corner Bakery", 40, 44, 34),
    ("address", "12 Mill Street, Springfield", 40, 92, 18),
    ("item", "2 x Rye bread", 40, 168, 22),
    ("price", "7.80", 380, 168, 22),
    ("item", "1 x Apple cake", 40, 212, 22),
    ("price", "3.40", 380, 212, 22),
    ("item", "1 x Coffee", 40, 256, 22),
    ("price", "2.60", 380, 256, 22),
    ("total", "13.80", 368, 340, 28),
    ("date", "2026-03-14  09:26", 40, 440, 18),
)
"""label, text, left, top and font size in pixels of each line."""


def receipt() -> bytes:
    """Return a receipt as PNG."""
    width = RECEIPT_SIZE[0]
    image = Image.new("RGB", RECEIPT_SIZE, "#f6f2e9")
    draw = ImageDraw.Draw(image)
    for _, text, left, top, size in RECEIPT:
        draw.text((left, top), text, fill="#2a2a2a", font=ImageFont.load_default(size))
    draw.text((40, 340), "Total", fill="#2a2a2a", font=ImageFont.load_default(28))
    for y in (136, 310, 404):
        draw.line((40, y, width - 40, y), fill="#8d877b", width=2)
    for number, x in enumerate(range(40, 300, 7)):
        draw.rectangle((x, 486, x + 1 + number * 5 % 4, 530), fill="#2a2a2a")
    return _png(image)


def receipt_blocks(labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the lines of the receipt with these labels, as blocks with what is written there."""
    blocks = []
    for label, text, left, top, size in RECEIPT:
        if label in labels:
            x0, y0, x1, y1 = ImageFont.load_default(size).getbbox(text)
            place = {"left": left + x0 - 4, "top": top + y0 - 4, "width": x1 - x0 + 8, "height": y1 - y0 + 8}
            blocks.append({"label": label, "text": text, "page": 0, "location": {"type": "box", **place}})
    return blocks


CALL_SECONDS = 4.2


def call() -> bytes:
    """Return a tone that swells like spoken words, as WAV."""
    time = np.arange(0, CALL_SECONDS, 1 / 8000)
    loudness = np.abs(np.sin(time * 5)) * (time % 1.4 < 1.1)
    samples = (loudness * np.sin(time * 2 * math.pi * 180) * 9000).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    return content.getvalue()


class Object3d(NamedTuple):
    """A thing in the lidar scene: label, centre, width, length and height in metres, and yaw in radians."""

    label: str
    center: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float


def objects_3d(frame: int = 0) -> list[Object3d]:
    """Return what stands on the street. Yaw 0 looks along +y; the first car drives on."""
    return [
        Object3d("car", (-3.5, -6.0 + 1.5 * frame, 0.8), (1.9, 4.5, 1.6), 0.0),
        Object3d("car", (3.6, 5.0, 0.8), (1.9, 4.4, 1.6), math.pi),
        Object3d("truck", (4.2, -7.5, 1.5), (2.5, 7.5, 3.0), math.pi),
        Object3d("pedestrian", (-8.0, 3.0, 0.9), (0.7, 0.7, 1.8), 0.4),
        Object3d("pedestrian", (-7.4, 4.6, 0.9), (0.7, 0.7, 1.8), -0.6),
    ]


GROUND_POINTS = 3600


def lidar_points(frame: int = 0) -> tuple[list[dict[str, float]], list[int]]:
    """Return the points of a lidar frame, and the place in objects_3d of what each belongs to; -1 for the ground."""
    random = np.random.default_rng(7)
    distance, bearing = 2 + 22 * random.random(GROUND_POINTS), random.random(GROUND_POINTS) * 2 * math.pi
    ground = np.stack(
        [distance * np.cos(bearing), distance * np.sin(bearing), random.normal(0, 0.02, GROUND_POINTS)], 1
    )
    places, owners = [ground], [-1] * GROUND_POINTS
    for number, one in enumerate(objects_3d(frame)):
        count = int(60 * (one.size[0] + one.size[1]) * one.size[2])
        inside = random.random((count, 3)) - 0.5
        axis, side = random.integers(0, 3, count), np.where(random.random(count) < 0.5, -0.5, 0.5)
        inside[np.arange(count), axis] = side
        right, ahead, up = (inside * one.size).T
        x = one.center[0] + right * math.cos(one.yaw) - ahead * math.sin(one.yaw)
        y = one.center[1] + right * math.sin(one.yaw) + ahead * math.cos(one.yaw)
        places.append(np.stack([x, y, one.center[2] + up], 1))
        owners += [number] * count
    every = np.concatenate(places).round(3).tolist()
    return [{"x": x, "y": y, "z": z, "i": 0.5} for x, y, z in every], owners


def lidar_frame(frame: int, images: Sequence[str] = ()) -> bytes:
    """Return a lidar frame as Scale takes it: its points, and the addresses of its camera images."""
    return json.dumps(
        {"points": lidar_points(frame)[0], "images": [{"image_url": one} for one in images]}
    ).encode()


def cuboids(frame: int = 0) -> list[dict[str, Any]]:
    """Return the things of the lidar scene as cuboids."""
    return [
        {
            "uuid": f"cuboid-{number}",
            "label": one.label,
            "position": dict(zip("xyz", one.center, strict=True)),
            "dimensions": dict(zip("xyz", one.size, strict=True)),
            "yaw": round(one.yaw, 4),
        }
        for number, one in enumerate(objects_3d(frame))
    ]
