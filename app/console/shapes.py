"""Annotations as SVG elements, in pixels of the image. Pure: the text of labels is escaped here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from exports.geometry import bounds, corners, ellipse_axes, is_rotated, vertices

POINT_RADIUS = 4
"""Pixels of an image of at most 1,000 pixels; larger ones have larger points."""
MAX_PIXELS = 100_000.0
"""Width and height that are assumed for an image of unknown size, in pixels."""
POINT_METRES = 0.3
CUBOID_EDGES = (
    ("face-topleft", "face-topright"),
    ("face-topright", "face-bottomright"),
    ("face-bottomright", "face-bottomleft"),
    ("face-bottomleft", "face-topleft"),
    ("side-topcorner", "side-bottomcorner"),
)
"""Edges between the vertices that Scale names, for a cuboid that lists none; the side lies to the right of the face, or
to the left. Source: docs, "Cuboid Annotation"."""
SIDE_EDGES = {
    side: ((f"face-top{side}", "side-topcorner"), (f"face-bottom{side}", "side-bottomcorner"))
    for side in ("left", "right")
}


def shape(
    annotation: Mapping[str, Any],
    color: int = 0,
    kind: str = "",
    mask_url: str | None = None,
    radius: float = POINT_RADIUS,
) -> Markup | None:
    """Return the SVG element of an annotation; None for one that has no place in an image. `radius` is that of a point."""
    geometry = annotation["geometry"]
    try:
        name, attributes, inside = _element(annotation["type"], geometry, mask_url, radius)
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    area = " area" if annotation["type"] in ("box", "polygon", "ellipse", "point") else ""
    classes = f"shape{area} alt{color}{f' {kind}' if kind else ''}"
    attributes = {
        "class": classes,
        "data-annotation": key_of(annotation),
        "data-type": annotation["type"],
        "data-label": annotation["label"] or "",
        **attributes,
    }
    # Not with Markup.format, which takes four times as long: a page may have 50,000 shapes.
    written = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    title = escape(" · ".join(filter(None, (annotation["label"], annotation["type"]))))
    return Markup(f"<{name}{written}>{inside}<title>{title}</title></{name}>")


def key_of(annotation: Mapping[str, Any]) -> str:
    """Return what links the shape and the row of an annotation: its position, which counts within a file."""
    file, position = annotation.get("file") or 0, annotation["position"]
    return f"{file}-{position}" if file > 1 else f"{position}"


def _element(
    type_: str, geometry: Mapping[str, Any], mask_url: str | None, radius: float
) -> tuple[str, dict[str, Any], Markup]:
    nothing = Markup("")
    if type_ == "box":
        return "rect", _box(geometry), nothing
    if type_ == "polygon":
        return "polygon", {"points": _points(vertices(geometry))}, nothing
    if type_ == "line":
        return "polyline", {"points": _points(vertices(geometry))}, nothing
    if type_ == "point":
        return "circle", {"cx": geometry["x"], "cy": geometry["y"], "r": f"{radius:g}"}, nothing
    if type_ == "ellipse":
        centre_x, centre_y, radius_x, radius_y, angle = ellipse_axes(geometry)
        place = {"cx": centre_x, "cy": centre_y, "rx": radius_x, "ry": radius_y}
        return "ellipse", {**place, **_turn(angle, centre_x, centre_y)}, nothing
    if type_ == "cuboid":
        return "g", {}, _cuboid(geometry)
    if type_ == "mask" and geometry.get("pixels"):
        return "g", {}, _mask(geometry, mask_url)
    raise ValueError(type_)


def _box(geometry: Mapping[str, Any]) -> dict[str, Any]:
    left, top, width, height = (geometry[key] for key in ("left", "top", "width", "height"))
    place = {
        "x": min(left, left + width),
        "y": min(top, top + height),
        "width": abs(width),
        "height": abs(height),
    }
    if not is_rotated(geometry):
        return place
    return {**place, **_turn(geometry["rotation"], left + width / 2, top + height / 2)}


def _turn(radians: float, x: float, y: float) -> dict[str, str]:
    return {"transform": f"rotate({math.degrees(radians):.6g} {x:g} {y:g})"} if radians else {}


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.12g},{y:.12g}" for x, y in points)


def _cuboid(geometry: Mapping[str, Any]) -> Markup:
    """Return the edges, and an area within them that can be pointed at."""
    edges = geometry.get("edges") or []
    if edges:
        lines = [((edge["x1"], edge["y1"]), (edge["x2"], edge["y2"])) for edge in edges]
    else:
        named = {one.get("description"): (one["x"], one["y"]) for one in geometry["vertices"]}
        side = (
            "left" if named.get("side-topcorner", (0,))[0] < named.get("face-topleft", (0,))[0] else "right"
        )
        pairs = (*CUBOID_EDGES, *SIDE_EDGES[side])
        lines = [(named[start], named[end]) for start, end in pairs if start in named and end in named]
        if not lines:
            points = vertices(geometry)
            lines = list(zip(points, [*points[1:], points[0]], strict=True))
    drawn = "".join(f"M{x1:.12g} {y1:.12g}L{x2:.12g} {y2:.12g}" for (x1, y1), (x2, y2) in lines)
    area = _points([point for line in lines for point in line])
    return Markup('<path d="{}"/><polygon class="inside" points="{}"/>').format(drawn, area)


def _mask(geometry: Mapping[str, Any], mask_url: str | None) -> Markup:
    place = {
        "x": geometry["left"],
        "y": geometry["top"],
        "width": geometry["width"],
        "height": geometry["height"],
    }
    written = Markup(" ").join(Markup('{}="{}"').format(Markup(key), value) for key, value in place.items())
    outline = Markup("<rect {}/>").format(written)
    if mask_url is None:
        return outline
    return Markup('<image href="{}" {}/>').format(mask_url, written) + outline


def from_above(annotation: Mapping[str, Any], color: int = 0, kind: str = "") -> Markup | None:
    """Return an annotation of a lidar scene seen from above: metres, x to the right and y up. None without a place."""
    if annotation["type"] != "cuboid3d":
        flat = shape(annotation, color, kind, radius=POINT_METRES)
        return None if flat is None else Markup('<g transform="scale(1 -1)">{}</g>').format(flat)
    corners = cuboid_corners(annotation["geometry"])
    if corners is None:
        return None
    front = [corners[2], corners[3]]
    return Markup(
        '<g class="shape area alt{}{}" data-annotation="{}" data-type="{}" data-label="{}">'
        '<polygon points="{}"/><polyline class="front" points="{}"/><title>{}</title></g>'
    ).format(
        color,
        f" {kind}" if kind else "",
        key_of(annotation),
        annotation["type"],
        annotation["label"] or "",
        _points(corners),
        _points(front),
        annotation["label"] or "",
    )


def cuboid_corners(geometry: Mapping[str, Any]) -> list[tuple[float, float]] | None:
    """Return the corners of a lidar cuboid from above, turned by its yaw, y downwards; None without a place."""
    try:
        x, y = geometry["position"]["x"], geometry["position"]["y"]
        width, length = geometry["dimensions"]["x"], geometry["dimensions"]["y"]
        yaw = geometry.get("yaw") or 0.0
        cosine, sine = math.cos(yaw), math.sin(yaw)
        around = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        turned = [(right * width / 2, ahead * length / 2) for right, ahead in around]
        return [
            (x + right * cosine - ahead * sine, -(y + right * sine + ahead * cosine))
            for right, ahead in turned
        ]
    except (KeyError, TypeError):
        return None


def cuboids(
    annotations: Sequence[Mapping[str, Any]], color_of: Callable[[str | None], int]
) -> list[dict[str, Any]]:
    """Return {position, dimensions, yaw, color} of lidar cuboids: metres and radians, z up."""
    found = []
    for one in annotations:
        if one["type"] != "cuboid3d" or cuboid_corners(one["geometry"]) is None:
            continue
        geometry = one["geometry"]
        spans = {
            key: {axis: float(geometry[key].get(axis) or 0) for axis in "xyz"}
            for key in ("position", "dimensions")
        }
        found.append({**spans, "yaw": float(geometry.get("yaw") or 0), "color": color_of(one["label"])})
    return found


def view_from_above(annotations: Sequence[Mapping[str, Any]]) -> tuple[float, float, float, float]:
    """Return left, top, width and height around what lies in a lidar scene, in metres, with a margin."""
    points: list[tuple[float, float]] = []
    for one in annotations:
        if one["type"] == "cuboid3d":
            points += cuboid_corners(one["geometry"]) or []
            continue
        try:
            points += [(x, -y) for x, y in vertices(one["geometry"])]
        except (KeyError, TypeError):
            continue
    if not points:
        return -50, -50, 100, 100
    left, top, right, bottom = bounds(points)
    margin = max(2.0, (right - left) / 20)
    return left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin


def largest_first(annotations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return annotations in the order in which they are drawn: none hides a smaller one from the pointer."""
    return sorted(annotations, key=lambda one: -extent(one))


def extent(annotation: Mapping[str, Any]) -> float:
    """Return the area of the bounding box in square pixels; 0 for one that has none."""
    geometry = annotation["geometry"]
    try:
        if "width" in geometry:
            return float(abs(geometry["width"] * geometry["height"]))
        left, top, right, bottom = bounds(vertices(geometry))
    except (KeyError, TypeError, ValueError):
        return 0.0
    return float((right - left) * (bottom - top))


def size_of_shapes(annotations: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return a size that holds every shape, for an image whose own size is not known."""
    right = bottom = 1.0
    for one in annotations:
        try:
            if one["type"] == "box":
                points = corners(one["geometry"])
            elif one["type"] == "point":
                points = [(one["geometry"]["x"], one["geometry"]["y"])]
            else:
                points = vertices(one["geometry"])
            _, _, far, low = bounds(points)
        except (KeyError, TypeError, ValueError):
            continue
        right, bottom = max(right, min(far, MAX_PIXELS)), max(bottom, min(low, MAX_PIXELS))
    return math.ceil(right), math.ceil(bottom)


def text_parts(
    text: str, spans: Sequence[Mapping[str, Any]], color_of: Callable[[str | None], int]
) -> tuple[Markup, list[Mapping[str, Any]]]:
    """Return the text as HTML with a `mark` for each span, and the spans that have no mark.

    A span within another one is a mark within its mark. One that crosses the end of another has none.
    """
    placed = [(place, one) for one in spans if (place := span_place(text, one["geometry"])) is not None]
    placed.sort(key=lambda item: (item[0][0], -item[0][1]))
    written: list[Markup] = []
    open_ends: list[int] = []
    left_out = [one for one in spans if span_place(text, one["geometry"]) is None]
    at = 0
    for (start, end), span in placed:
        at = _close_marks(written, open_ends, text, at, start)
        if open_ends and end > open_ends[-1]:
            left_out.append(span)
            continue
        written.append(escape(text[at:start]))
        written.append(
            Markup(
                '<mark class="alt{}" data-annotation="{}" data-type="{}" data-label="{}" title="{}">'
            ).format(
                color_of(span["label"]),
                span["position"],
                span["type"],
                span["label"] or "",
                span["label"] or "",
            )
        )
        open_ends.append(end)
        at = start
    at = _close_marks(written, open_ends, text, at, len(text) + 1)
    return Markup("").join([*written, escape(text[at:])]), left_out


def _close_marks(written: list[Markup], open_ends: list[int], text: str, at: int, until: int) -> int:
    """Close every mark that ends at `until` or before. Return up to where the text is written."""
    while open_ends and open_ends[-1] <= until:
        end = open_ends.pop()
        written += [escape(text[at:end]), Markup("</mark>")]
        at = end
    return at


def span_place(text: str, geometry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return start and end of a span: where its words are, if the offsets say something else than the words do."""
    start, end, words = geometry.get("start"), geometry.get("end"), geometry.get("text")
    if isinstance(words, str) and words:
        near = start if type(start) is int and start >= 0 else 0
        for found in (near if text.startswith(words, near) else -1, text.find(words)):
            if found >= 0:
                return found, found + len(words)
    if type(start) is int and type(end) is int and 0 <= start < end <= len(text):
        return start, end
    return None
