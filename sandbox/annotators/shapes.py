"""Draw, measure and move shapes of Scale's six geometries within a canvas.

Pixels, origin top left. Coordinates are rounded to hundredths, or to whole pixels with `integer_pixels`.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sandbox.annotators.values import as_bool, as_dict, as_list, as_number, number_or_none
from scale import geometry
from scale.fields import is_number

MAX_VERTICES = 2000  # a larger min_vertices is a mistake of the request, not work for anybody


class Region(NamedTuple):
    """Hold an axis-aligned rectangle: the canvas to draw on, or the place of one shape in it."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Return the width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Return the height in pixels."""
        return self.bottom - self.top

    def within(self, canvas: "Region") -> "Region":
        """Return the part of the region inside the canvas."""
        return Region(
            min(max(self.left, canvas.left), canvas.right),
            min(max(self.top, canvas.top), canvas.bottom),
            max(min(self.right, canvas.right), canvas.left),
            max(min(self.bottom, canvas.bottom), canvas.top),
        )

    def around(self, other: "Region") -> "Region":
        """Return the smallest region that contains both."""
        return Region(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def at_least(self, width: float, height: float, canvas: "Region") -> "Region":
        """Return the region enlarged to a minimum size, as far as the canvas allows."""
        width, height = (
            max(self.width, min(width, canvas.width)),
            max(self.height, min(height, canvas.height)),
        )
        left = min(self.left, canvas.right - width)
        top = min(self.top, canvas.bottom - height)
        return Region(left, top, left + width, top + height)


class GeometryLimits(NamedTuple):
    """Hold what a request demands of one geometry (its Geometry object, or the parameters of the older task types)."""

    min_width: float = 0
    min_height: float = 0
    min_vertices: int = 0
    max_vertices: int | None = None
    can_rotate: bool = False
    integer_pixels: bool = False
    splines: bool = False
    camera: dict[str, Any] = {}


def geometry_limits(params: dict[str, Any]) -> GeometryLimits:
    """Read the limits from a Geometry object or the parameters of a task."""
    most = number_or_none(params.get("max_vertices"))
    return GeometryLimits(
        min_width=max(0, as_number(params.get("min_width"), 0)),
        min_height=max(0, as_number(params.get("min_height"), 0)),
        min_vertices=int(min(MAX_VERTICES, max(0, as_number(params.get("min_vertices"), 0)))),
        max_vertices=int(most) if most and most >= 1 else None,
        can_rotate=as_bool(params.get("can_rotate")),
        integer_pixels=as_bool(params.get("integer_pixels")),
        splines=as_bool(params.get("splines")),
        camera={key: params.get(key) for key in ("camera_intrinsics", "camera_rotation_quaternion")},
    )


def random_region(canvas: Region, rng: random.Random) -> Region:
    """Return a region for one shape: 8 to 35 % of the canvas in each direction."""
    width, height = canvas.width * rng.uniform(0.08, 0.35), canvas.height * rng.uniform(0.08, 0.35)
    left, top = (
        rng.uniform(canvas.left, canvas.right - width),
        rng.uniform(canvas.top, canvas.bottom - height),
    )
    return Region(left, top, left + width, top + height)


def draw_shape(
    kind: str, region: Region, canvas: Region, limits: GeometryLimits, rng: random.Random
) -> dict[str, Any]:
    """Draw a shape of a geometry in `region`, which is cut to the canvas and enlarged to the minimum size.

    Returns Scale's geometry keys.
    """
    region = region.within(canvas).at_least(limits.min_width, limits.min_height, canvas)
    return _DRAW_FUNCTIONS[kind](_Rounding(canvas, limits.integer_pixels), region, limits, rng)


class _Rounding(NamedTuple):
    """Round coordinates. Regions lie within the canvas, so shapes drawn in them do, too."""

    canvas: Region
    whole: bool

    def at(self, value: float) -> float:
        return round(value) if self.whole else round(value, 2)

    def point(self, x: float, y: float) -> dict[str, Any]:
        return {"x": self.at(x), "y": self.at(y)}


def _draw_box(
    pencil: _Rounding, region: Region, limits: GeometryLimits, rng: random.Random
) -> dict[str, Any]:
    """Draw left, top, width, height; with can_rotate also `rotation` (radians, clockwise) about the center and the corners.

    The corners are rotated, left and top are those of the unrotated box. Source: docs, "Boxes".
    """
    left, top = pencil.at(region.left), pencil.at(region.top)
    if pencil.whole:
        left, top = math.floor(region.left), math.floor(region.top)
    # Sizes are rounded up, so that a box at its smallest size does not fall short of it.
    digits = 1 if pencil.whole else 100
    width = min(math.ceil(round(region.width * digits, 6)) / digits, pencil.canvas.right - left)
    height = min(math.ceil(round(region.height * digits, 6)) / digits, pencil.canvas.bottom - top)
    width, height = (int(width), int(height)) if pencil.whole else (round(width, 2), round(height, 2))
    box = {"left": left, "top": top, "width": width, "height": height}
    if not limits.can_rotate:
        return box
    for rotation in [round(rng.uniform(-0.6, 0.6), 4) for _ in range(6)] + [0.0]:
        corners = rotated_corners(box, rotation)
        if rotation == 0 or all(
            pencil.canvas.left <= x <= pencil.canvas.right and pencil.canvas.top <= y <= pencil.canvas.bottom
            for x, y in corners
        ):
            break
    return {**box, "rotation": rotation, "vertices": [pencil.point(x, y) for x, y in corners]}


def rotated_corners(box: dict[str, Any], rotation: float) -> list[tuple[float, float]]:
    """Return the corners (x, y), clockwise from the top left one, of a box rotated clockwise about its center."""
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


def _choose_vertex_count(limits: GeometryLimits, usual: int, fewest: int) -> int:
    """Return a number within min_vertices and max_vertices; the maximum wins over a larger minimum."""
    count = max(usual, fewest, limits.min_vertices)
    return count if limits.max_vertices is None else min(count, limits.max_vertices)


def _draw_polygon(
    pencil: _Rounding, region: Region, limits: GeometryLimits, rng: random.Random
) -> dict[str, Any]:
    """Draw vertices clockwise on the screen; the first is not repeated. Source: docs, "Polygons"."""
    count = _choose_vertex_count(limits, rng.randint(5, 9), 3)
    x, y = (region.left + region.right) / 2, (region.top + region.bottom) / 2
    vertices = []
    for step in range(count):
        angle = 2 * math.pi * (step + rng.uniform(-0.3, 0.3)) / count
        reach = rng.uniform(0.75, 1) / 2
        vertices.append(
            pencil.point(
                x + region.width * reach * math.cos(angle), y + region.height * reach * math.sin(angle)
            )
        )
    return {"vertices": vertices}


def _draw_line(
    pencil: _Rounding, region: Region, limits: GeometryLimits, rng: random.Random
) -> dict[str, Any]:
    """Draw vertices from left to right. A guess: with `splines` a line has `spline: true`, the key that layers use."""
    count = _choose_vertex_count(limits, rng.randint(2, 6), 2 if limits.max_vertices != 1 else 1)
    vertices = [
        pencil.point(
            region.left + region.width * (step + rng.uniform(0, 0.8)) / count,
            region.top + region.height * rng.random(),
        )
        for step in range(count)
    ]
    return {"vertices": vertices, **({"spline": True} if limits.splines else {})}


def _draw_point(
    pencil: _Rounding, region: Region, limits: GeometryLimits, rng: random.Random
) -> dict[str, Any]:
    return pencil.point((region.left + region.right) / 2, (region.top + region.bottom) / 2)


def _draw_ellipse(
    pencil: _Rounding, region: Region, limits: GeometryLimits, rng: random.Random
) -> dict[str, Any]:
    """Draw the four extremal points: top, right, bottom, left. Source: docs, "Ellipses"."""
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


def _draw_cuboid(
    pencil: _Rounding, region: Region, limits: GeometryLimits, rng: random.Random
) -> dict[str, Any]:
    """Draw the six visible vertices and the six edges between them; with a camera also the eight corners.

    Source: docs, "Cuboid Annotation".
    """
    fold = region.left + region.width * rng.uniform(0.5, 0.8)
    side_top = region.top + region.height * rng.uniform(0.05, 0.25)
    side_bottom = region.bottom - region.height * rng.uniform(0.05, 0.25)
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
        "edges": _cuboid_edges(corners),
        **_project_corners(corners, limits.camera),
    }


def _cuboid_edges(corners: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
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


def _project_corners(corners: dict[str, tuple[float, float]], camera: dict[str, Any]) -> dict[str, Any]:
    """Return points_2d and points_3d: the eight corners in the image and as seen from the camera, in arbitrary units.

    The face is assumed parallel to the image at depth 1, the side as much farther as it is smaller. Corners 0 to 3 are the
    upper ones (front left, front right, back right, back left), 4 to 7 those below them. A guess: points_3d are rotated by
    the camera's rotation and relative to its position. Source: docs, "Cuboid Annotation".
    """
    lens = _Lens.read(camera)
    if lens is None:
        return {}
    image, depths = _cuboid_corners(corners)
    space = [lens.unproject(u, v, depth) for (u, v), depth in zip(image, depths, strict=True)]
    return {
        "points_2d": [{"x": round(u, 2), "y": round(v, 2)} for u, v in image],
        "points_3d": [{"x": round(x, 6), "y": round(y, 6), "z": round(z, 6)} for x, y, z in space],
    }


def _cuboid_corners(corners: dict[str, tuple[float, float]]) -> tuple[list[tuple[float, float]], list[float]]:
    """Return the eight corners of a cuboid in the image, and the depth of each."""
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
    return image, [1.0, 1.0, 1 / shrink, 1 / shrink] * 2


class _Lens(NamedTuple):
    """Hold the intrinsics and the rotation (w, x, y, z) of a camera."""

    fx: float
    fy: float
    cx: float
    cy: float
    scale: float
    skew: float
    rotation: tuple[float, ...]

    @classmethod
    def read(cls, camera: dict[str, Any]) -> "_Lens | None":
        """Return the lens that a request describes, or None if a number is missing."""
        given = as_dict(camera.get("camera_intrinsics"))
        quaternion = as_dict(camera.get("camera_rotation_quaternion"))
        numbers = [
            *(number_or_none(given.get(key)) for key in ("fx", "fy", "cx", "cy")),
            *(number_or_none(quaternion.get(key)) for key in "wxyz"),
        ]
        known = [number for number in numbers if number is not None]
        if len(known) < len(numbers) or not known[0] or not known[1] or not any(known[4:]):
            return None
        fx, fy, cx, cy, *rotation = known
        scale, skew = as_number(given.get("scalefactor"), 1.0) or 1.0, as_number(given.get("skew"), 0.0)
        return cls(fx, fy, cx, cy, scale, skew, tuple(rotation))

    def unproject(self, u: float, v: float, depth: float) -> tuple[float, float, float]:
        """Return the point at a pixel and a depth, turned by the camera's rotation."""
        y = (v * self.scale - self.cy) / self.fy
        x = (u * self.scale - self.cx - self.skew * y) / self.fx
        return _rotate((x * depth, y * depth, depth), self.rotation)


_Point3 = tuple[float, float, float]


def _rotate(point: _Point3, quaternion: Sequence[float]) -> _Point3:
    """Return a point rotated by a quaternion (w, x, y, z) of any length but 0."""
    norm = math.sqrt(sum(part * part for part in quaternion))
    w, x, y, z = (part / norm for part in quaternion)
    first = _cross_product((x, y, z), point)
    second = _cross_product((x, y, z), first)
    px, py, pz = (p + 2 * (w * a + b) for p, a, b in zip(point, first, second, strict=True))
    return px, py, pz


def _cross_product(a: _Point3, b: _Point3) -> _Point3:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


_DRAW_FUNCTIONS: dict[str, Callable[[_Rounding, Region, GeometryLimits, random.Random], dict[str, Any]]] = {
    "box": _draw_box,
    "polygon": _draw_polygon,
    "line": _draw_line,
    "point": _draw_point,
    "cuboid": _draw_cuboid,
    "ellipse": _draw_ellipse,
}
GEOMETRIES = tuple(_DRAW_FUNCTIONS)

_PARTS = ("vertices", "edges", "points_2d")
_X_KEYS, _Y_KEYS = ("left", "x", "x1", "x2"), ("top", "y", "y1", "y2")


def bounding_box(annotation: dict[str, Any]) -> Region | None:
    """Return the bounding box of an annotation of any geometry; None if it has no coordinates."""
    box = geometry.bounds(annotation, _PARTS)
    return box and Region(*box)


def nudge_shape(annotation: dict[str, Any], canvas: Region, rng: random.Random) -> dict[str, Any]:
    """Move an annotation a little, keeping its size, and within the canvas if it was.

    Returns it unchanged if it has no coordinates or no room to move.
    """
    held = bounding_box(annotation)
    if held is None:
        return annotation
    whole = all(
        isinstance(part[key], int)
        for part in _coordinate_holders(annotation)
        for key in _X_KEYS + _Y_KEYS
        if is_number(part.get(key))
    )
    dx = _random_offset(held.left - canvas.left, canvas.right - held.right, canvas.width, whole, rng)
    dy = _random_offset(held.top - canvas.top, canvas.bottom - held.bottom, canvas.height, whole, rng)
    return _translate(annotation, dx, dy)


def _random_offset(before: float, after: float, length: float, whole: bool, rng: random.Random) -> float:
    """Return an offset of at most 1 % of the canvas into the room on either side; 0 if there is none."""
    unit = 1 if whole else 0.01
    reach = max(1.0, length * 0.01)
    rooms = [-int(min(reach, max(0.0, before)) / unit), int(min(reach, max(0.0, after)) / unit)]
    rooms = [room for room in rooms if room]
    if not rooms:
        return 0
    room = rng.choice(rooms)
    units = int(room * rng.uniform(0.5, 1)) or (1 if room > 0 else -1)
    return units if whole else round(units * unit, 2)


def _translate(annotation: dict[str, Any], dx: float, dy: float) -> dict[str, Any]:
    moved = dict(annotation)
    for key in _PARTS:
        if isinstance(annotation.get(key), list):
            moved[key] = [dict(part) if isinstance(part, dict) else part for part in annotation[key]]
    for part in _coordinate_holders(moved):
        for keys, by in ((_X_KEYS, dx), (_Y_KEYS, dy)):
            for key in keys:
                if is_number(part.get(key)):
                    part[key] = part[key] + by if isinstance(by, int) else round(part[key] + by, 6)
    return moved


def _coordinate_holders(annotation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects that hold coordinates: the annotation itself, its vertices, edges and projected corners."""
    yield annotation
    for key in _PARTS:
        yield from (part for part in as_list(annotation.get(key)) if isinstance(part, dict))
