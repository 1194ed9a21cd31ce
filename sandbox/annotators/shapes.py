"""Geometry as labelers draw it: shapes of Scale's six kinds within a canvas, their bounds, and small corrections.

Pixels, origin top left. Every drawn coordinate is rounded to hundredths, or to whole pixels with `integer_pixels`.
"""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sandbox.annotators.assignment import mapping, number, sequence, truth
from scale import geometry
from scale.fields import is_number

MOST_VERTICES = 2000  # a larger min_vertices is a mistake of the request, not work for anybody


class Region(NamedTuple):
    """An axis-aligned rectangle: the canvas that may be drawn on, or the place of one shape in it."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def within(self, canvas: "Region") -> "Region":
        return Region(
            min(max(self.left, canvas.left), canvas.right),
            min(max(self.top, canvas.top), canvas.bottom),
            max(min(self.right, canvas.right), canvas.left),
            max(min(self.bottom, canvas.bottom), canvas.top),
        )

    def around(self, other: "Region") -> "Region":
        return Region(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def at_least(self, width: float, height: float, canvas: "Region") -> "Region":
        """The same place, grown to a smallest size as far as the canvas allows."""
        width, height = (
            max(self.width, min(width, canvas.width)),
            max(self.height, min(height, canvas.height)),
        )
        left = min(self.left, canvas.right - width)
        top = min(self.top, canvas.bottom - height)
        return Region(left, top, left + width, top + height)


class Asked(NamedTuple):
    """What a request says about one geometry (its Geometry object, or the parameters of the older task types)."""

    min_width: float = 0
    min_height: float = 0
    min_vertices: int = 0
    max_vertices: int | None = None
    can_rotate: bool = False
    integer_pixels: bool = False
    splines: bool = False
    camera: dict[str, Any] = {}


def asked(params: dict[str, Any]) -> Asked:
    most = number(params.get("max_vertices"))
    return Asked(
        min_width=max(0, number(params.get("min_width"), 0)),
        min_height=max(0, number(params.get("min_height"), 0)),
        min_vertices=int(min(MOST_VERTICES, max(0, number(params.get("min_vertices"), 0)))),
        max_vertices=int(most) if most and most >= 1 else None,
        can_rotate=truth(params.get("can_rotate")),
        integer_pixels=truth(params.get("integer_pixels")),
        splines=truth(params.get("splines")),
        camera={key: params.get(key) for key in ("camera_intrinsics", "camera_rotation_quaternion")},
    )


def place(canvas: Region, die: random.Random) -> Region:
    """A place for one shape: 8 to 35 % of the canvas in each direction."""
    width, height = canvas.width * die.uniform(0.08, 0.35), canvas.height * die.uniform(0.08, 0.35)
    left, top = (
        die.uniform(canvas.left, canvas.right - width),
        die.uniform(canvas.top, canvas.bottom - height),
    )
    return Region(left, top, left + width, top + height)


def draw(kind: str, region: Region, canvas: Region, wish: Asked, die: random.Random) -> dict[str, Any]:
    """Scale's own geometry keys of a shape of this kind in `region`, which is cut to the canvas and grown to min sizes."""
    region = region.within(canvas).at_least(wish.min_width, wish.min_height, canvas)
    return _DRAWN[kind](_Pencil(canvas, wish.integer_pixels), region, wish, die)


class _Pencil(NamedTuple):
    """Rounds what is drawn. Regions lie within the canvas, so what is drawn in them does too."""

    canvas: Region
    whole: bool

    def at(self, value: float) -> float:
        return round(value) if self.whole else round(value, 2)

    def point(self, x: float, y: float) -> dict[str, Any]:
        return {"x": self.at(x), "y": self.at(y)}


def _box(pencil: _Pencil, region: Region, wish: Asked, die: random.Random) -> dict[str, Any]:
    """left, top, width, height; with can_rotate also `rotation` (radians, clockwise) about the center and the four
    corners after it, while left/top stay those of the unrotated box. Source: docs, "Boxes"."""
    left, top = pencil.at(region.left), pencil.at(region.top)
    if pencil.whole:
        left, top = math.floor(region.left), math.floor(region.top)
    # Sizes are rounded up, so that a box at its smallest size does not fall short of it.
    digits = 1 if pencil.whole else 100
    width = min(math.ceil(round(region.width * digits, 6)) / digits, pencil.canvas.right - left)
    height = min(math.ceil(round(region.height * digits, 6)) / digits, pencil.canvas.bottom - top)
    width, height = (int(width), int(height)) if pencil.whole else (round(width, 2), round(height, 2))
    box = {"left": left, "top": top, "width": width, "height": height}
    if not wish.can_rotate:
        return box
    for rotation in [round(die.uniform(-0.6, 0.6), 4) for _ in range(6)] + [0.0]:
        corners = rotated_corners(box, rotation)
        if rotation == 0 or all(
            pencil.canvas.left <= x <= pencil.canvas.right and pencil.canvas.top <= y <= pencil.canvas.bottom
            for x, y in corners
        ):
            break
    return {**box, "rotation": rotation, "vertices": [pencil.point(x, y) for x, y in corners]}


def rotated_corners(box: dict[str, Any], rotation: float) -> list[tuple[float, float]]:
    """Corners (x, y) from the top left one clockwise, of a box turned clockwise about its center."""
    half_width, half_height = box["width"] / 2, box["height"] / 2
    x, y = box["left"] + half_width, box["top"] + half_height
    cos, sin = math.cos(rotation), math.sin(rotation)
    return [
        (x + dx * cos - dy * sin, y + dx * sin + dy * cos)
        for dx, dy in (
            (-half_width, -half_height),
            (half_width, -half_height),
            (half_width, half_height),
            (-half_width, half_height),
        )
    ]


def _vertex_count(wish: Asked, usual: int, fewest: int) -> int:
    """Within min_vertices and max_vertices; a contradicting pair is settled in favor of the maximum."""
    count = max(usual, fewest, wish.min_vertices)
    return count if wish.max_vertices is None else min(count, wish.max_vertices)


def _polygon(pencil: _Pencil, region: Region, wish: Asked, die: random.Random) -> dict[str, Any]:
    """Vertices once around, clockwise on the screen; the first is not repeated. Source: docs, "Polygons"."""
    count = _vertex_count(wish, die.randint(5, 9), 3)
    x, y = (region.left + region.right) / 2, (region.top + region.bottom) / 2
    vertices = []
    for step in range(count):
        angle = 2 * math.pi * (step + die.uniform(-0.3, 0.3)) / count
        reach = die.uniform(0.75, 1) / 2
        vertices.append(
            pencil.point(
                x + region.width * reach * math.cos(angle), y + region.height * reach * math.sin(angle)
            )
        )
    return {"vertices": vertices}


def _line(pencil: _Pencil, region: Region, wish: Asked, die: random.Random) -> dict[str, Any]:
    """Vertices from left to right. A guess: lines asked for as `splines` come back with `spline: true`, the key that
    layers use for them."""
    count = _vertex_count(wish, die.randint(2, 6), 2 if wish.max_vertices != 1 else 1)
    vertices = [
        pencil.point(
            region.left + region.width * (step + die.uniform(0, 0.8)) / count,
            region.top + region.height * die.random(),
        )
        for step in range(count)
    ]
    return {"vertices": vertices, **({"spline": True} if wish.splines else {})}


def _point(pencil: _Pencil, region: Region, wish: Asked, die: random.Random) -> dict[str, Any]:
    return pencil.point((region.left + region.right) / 2, (region.top + region.bottom) / 2)


def _ellipse(pencil: _Pencil, region: Region, wish: Asked, die: random.Random) -> dict[str, Any]:
    """The four extremal points: top, right, bottom, left. Source: docs, "Ellipses"."""
    x, y = (region.left + region.right) / 2, (region.top + region.bottom) / 2
    return {
        "vertices": [
            pencil.point(x, region.top),
            pencil.point(region.right, y),
            pencil.point(x, region.bottom),
            pencil.point(region.left, y),
        ]
    }


_EDGES = {
    "face-top": ("face-topleft", "face-topright"),
    "face-right": ("face-topright", "face-bottomright"),
    "face-bottom": ("face-bottomright", "face-bottomleft"),
    "face-left": ("face-bottomleft", "face-topleft"),
    "side-top": ("face-topright", "side-topcorner"),
    "side-bottom": ("face-bottomright", "side-bottomcorner"),
}


def _cuboid(pencil: _Pencil, region: Region, wish: Asked, die: random.Random) -> dict[str, Any]:
    """The six visible vertices and the six edges between them; with a camera also its eight corners.

    Source: docs, "Cuboid Annotation".
    """
    fold = region.left + region.width * die.uniform(0.5, 0.8)
    side_top = region.top + region.height * die.uniform(0.05, 0.25)
    side_bottom = region.bottom - region.height * die.uniform(0.05, 0.25)
    corners = {
        "face-topleft": (region.left, region.top),
        "face-bottomleft": (region.left, region.bottom),
        "face-topright": (fold, region.top),
        "face-bottomright": (fold, region.bottom),
        "side-topcorner": (region.right, side_top),
        "side-bottomcorner": (region.right, side_bottom),
    }
    corners = {name: (pencil.at(x), pencil.at(y)) for name, (x, y) in corners.items()}
    return {
        "vertices": [
            {"description": name, "x": x, "y": y, "type": "vertex"} for name, (x, y) in corners.items()
        ],
        "edges": _edges(corners),
        **_corners_in_space(corners, wish.camera),
    }


def _edges(corners: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    return [
        {
            "description": name,
            "x1": corners[start][0],
            "y1": corners[start][1],
            "x2": corners[end][0],
            "y2": corners[end][1],
            "type": "edge",
        }
        for name, (start, end) in _EDGES.items()
    ]


def _corners_in_space(corners: dict[str, tuple[float, float]], camera: dict[str, Any]) -> dict[str, Any]:
    """points_2d and points_3d: the eight corners in the image and, in units of their own, as seen from the camera.

    The face is taken to be parallel to the image at depth 1; the side is as much farther as it is smaller. Corners 0 to
    3 are the upper ones (front left, front right, back right, back left), 4, 5, 6, 7 the ones below 0, 1, 2, 3. A guess:
    points_3d are turned by the camera's rotation and relative to its place. Source: docs, "Cuboid Annotation".
    """
    lens = mapping(camera.get("camera_intrinsics"))
    turn = [number(mapping(camera.get("camera_rotation_quaternion")).get(key)) for key in "wxyz"]
    fx, fy, cx, cy = (number(lens.get(key)) for key in ("fx", "fy", "cx", "cy"))
    if not fx or not fy or cx is None or cy is None or None in turn or not any(turn):
        return {}
    scale = number(lens.get("scalefactor")) or 1.0
    skew = number(lens.get("skew"), 0.0)
    top_left, bottom_left = corners["face-topleft"], corners["face-bottomleft"]
    top_right, bottom_right = corners["face-topright"], corners["face-bottomright"]
    side_top, side_bottom = corners["side-topcorner"], corners["side-bottomcorner"]
    shrink = (side_bottom[1] - side_top[1]) / ((bottom_left[1] - top_left[1]) or 1) or 1.0
    back = (top_right[0] - top_left[0]) * shrink
    image = [
        top_left,
        top_right,
        side_top,
        (side_top[0] - back, side_top[1]),
        bottom_left,
        bottom_right,
        side_bottom,
        (side_bottom[0] - back, side_bottom[1]),
    ]
    depths = [1.0, 1.0, 1 / shrink, 1 / shrink] * 2
    space = []
    for (u, v), depth in zip(image, depths, strict=True):
        y = (v * scale - cy) / fy
        x = (u * scale - cx - skew * y) / fx
        space.append(_turned((x * depth, y * depth, depth), turn))
    return {
        "points_2d": [{"x": round(u, 2), "y": round(v, 2)} for u, v in image],
        "points_3d": [{"x": round(x, 6), "y": round(y, 6), "z": round(z, 6)} for x, y, z in space],
    }


def _turned(point: tuple[float, float, float], quaternion: list[float]) -> tuple[float, float, float]:
    norm = math.sqrt(sum(part * part for part in quaternion))
    w, *axis = (part / norm for part in quaternion)
    first = _cross(axis, point)
    second = _cross(axis, first)
    return tuple(p + 2 * (w * a + b) for p, a, b in zip(point, first, second, strict=True))


def _cross(a: Any, b: Any) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


_DRAWN: dict[str, Callable[[_Pencil, Region, Asked, random.Random], dict[str, Any]]] = {
    "box": _box,
    "polygon": _polygon,
    "line": _line,
    "point": _point,
    "cuboid": _cuboid,
    "ellipse": _ellipse,
}
KINDS = tuple(_DRAWN)

_PARTS = ("vertices", "edges", "points_2d")
_ACROSS, _DOWN = ("left", "x", "x1", "x2"), ("top", "y", "y1", "y2")


def bounds(annotation: dict[str, Any]) -> Region | None:
    """Return the bounding box of one of Scale's annotation objects; None if it has no coordinates."""
    box = geometry.bounds(annotation, _PARTS)
    return box and Region(*box)


def nudge(annotation: dict[str, Any], canvas: Region, die: random.Random) -> dict[str, Any]:
    """The same annotation a little to the side, still within the canvas if it was; the size stays.

    What has no coordinates, or no room to move, comes back as it was.
    """
    held = bounds(annotation)
    if held is None:
        return annotation
    whole = all(
        isinstance(part[key], int)
        for part in _parts(annotation)
        for key in _ACROSS + _DOWN
        if is_number(part.get(key))
    )
    dx = _step(held.left - canvas.left, canvas.right - held.right, canvas.width, whole, die)
    dy = _step(held.top - canvas.top, canvas.bottom - held.bottom, canvas.height, whole, die)
    return _moved(annotation, dx, dy)


def _step(before: float, after: float, length: float, whole: bool, die: random.Random) -> float:
    """A step of at most 1 % of the canvas, into the room that there is on either side; 0 where there is none."""
    unit = 1 if whole else 0.01
    reach = max(1.0, length * 0.01)
    rooms = [-int(min(reach, max(0.0, before)) / unit), int(min(reach, max(0.0, after)) / unit)]
    rooms = [room for room in rooms if room]
    if not rooms:
        return 0
    room = die.choice(rooms)
    units = int(room * die.uniform(0.5, 1)) or (1 if room > 0 else -1)
    return units if whole else round(units * unit, 2)


def _moved(annotation: dict[str, Any], dx: float, dy: float) -> dict[str, Any]:
    moved = dict(annotation)
    for key in _PARTS:
        if isinstance(annotation.get(key), list):
            moved[key] = [dict(part) if isinstance(part, dict) else part for part in annotation[key]]
    for part in _parts(moved):
        for keys, by in ((_ACROSS, dx), (_DOWN, dy)):
            for key in keys:
                if is_number(part.get(key)):
                    part[key] = part[key] + by if isinstance(by, int) else round(part[key] + by, 6)
    return moved


def _parts(annotation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects that hold coordinates: the annotation itself, its vertices, edges and projected corners."""
    yield annotation
    for key in _PARTS:
        yield from (part for part in sequence(annotation.get(key)) if isinstance(part, dict))
