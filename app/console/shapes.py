"""Annotations as SVG elements, in pixels of the image. Pure: the text of labels is escaped here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from exports.geometry import bounds, corners, ellipse_axes, is_rotated, vertices

POINT_RADIUS = 4
COLORS = 6
"""Classes alt0 … alt5 of the style sheet."""
CUBOID_EDGES = (
    ("face-topleft", "face-topright"),
    ("face-topright", "face-bottomright"),
    ("face-bottomright", "face-bottomleft"),
    ("face-bottomleft", "face-topleft"),
    ("side-topcorner", "side-bottomcorner"),
)
"""Edges between the vertices that Scale names, for a cuboid that lists none. Source: docs, "Cuboid Annotation"."""


def shape(
    annotation: Mapping[str, Any], color: int = 0, kind: str = "", mask_url: str | None = None
) -> Markup | None:
    """Return the SVG element of an annotation; None for one that has no place in an image."""
    geometry = annotation["geometry"]
    try:
        name, attributes, inside = _element(annotation["type"], geometry, mask_url)
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    area = " area" if annotation["type"] in ("box", "polygon", "ellipse") else ""
    classes = f"shape{area} alt{color % COLORS}{f' {kind}' if kind else ''}"
    attributes = {
        "class": classes,
        "data-annotation": annotation["position"],
        "data-type": annotation["type"],
        "data-label": annotation["label"] or "",
        **attributes,
    }
    written = Markup("").join(
        Markup(' {}="{}"').format(Markup(key), value) for key, value in attributes.items()
    )
    title = Markup("<title>{}</title>").format(
        " · ".join(filter(None, (annotation["label"], annotation["type"])))
    )
    return Markup("<{0}{1}>{2}{3}</{0}>").format(Markup(name), written, title, inside)


def _element(
    type_: str, geometry: Mapping[str, Any], mask_url: str | None
) -> tuple[str, dict[str, Any], Markup]:
    nothing = Markup("")
    if type_ == "box":
        return "rect", _box(geometry), nothing
    if type_ == "polygon":
        return "polygon", {"points": _points(vertices(geometry))}, nothing
    if type_ == "line":
        return "polyline", {"points": _points(vertices(geometry))}, nothing
    if type_ == "point":
        return "circle", {"cx": geometry["x"], "cy": geometry["y"], "r": POINT_RADIUS}, nothing
    if type_ == "ellipse":
        centre_x, centre_y, radius_x, radius_y, angle = ellipse_axes(geometry)
        place = {"cx": centre_x, "cy": centre_y, "rx": radius_x, "ry": radius_y}
        return "ellipse", {**place, **_turn(angle, centre_x, centre_y)}, nothing
    if type_ == "cuboid":
        return "path", {"d": _cuboid(geometry)}, nothing
    if type_ == "mask" and geometry.get("pixels"):
        return "g", {}, _mask(geometry, mask_url)
    raise ValueError(type_)


def _box(geometry: Mapping[str, Any]) -> dict[str, Any]:
    left, top, width, height = (geometry[key] for key in ("left", "top", "width", "height"))
    place = {"x": left, "y": top, "width": abs(width), "height": abs(height)}
    if not is_rotated(geometry):
        return place
    return {**place, **_turn(geometry["rotation"], left + width / 2, top + height / 2)}


def _turn(radians: float, x: float, y: float) -> dict[str, str]:
    return {"transform": f"rotate({math.degrees(radians):.6g} {x:g} {y:g})"} if radians else {}


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.12g},{y:.12g}" for x, y in points)


def _cuboid(geometry: Mapping[str, Any]) -> str:
    edges = geometry.get("edges") or []
    if edges:
        lines = [((edge["x1"], edge["y1"]), (edge["x2"], edge["y2"])) for edge in edges]
    else:
        named = {one.get("description"): (one["x"], one["y"]) for one in geometry["vertices"]}
        lines = [(named[start], named[end]) for start, end in CUBOID_EDGES if start in named and end in named]
        if not lines:
            points = vertices(geometry)
            lines = list(zip(points, [*points[1:], points[0]], strict=True))
    return "".join(f"M{x1:.12g} {y1:.12g}L{x2:.12g} {y2:.12g}" for (x1, y1), (x2, y2) in lines)


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


def cuboid_from_above(annotation: Mapping[str, Any], color: int = 0) -> Markup | None:
    """Return a lidar cuboid seen from above, turned by its yaw: metres, x to the right and y up. None without a place."""
    geometry = annotation["geometry"]
    try:
        x, y = geometry["position"]["x"], geometry["position"]["y"]
        width, length = geometry["dimensions"]["x"], geometry["dimensions"]["y"]
    except (KeyError, TypeError):
        return None
    yaw = geometry.get("yaw") or 0.0
    corner = (
        (-width / 2, -length / 2),
        (width / 2, -length / 2),
        (width / 2, length / 2),
        (-width / 2, length / 2),
    )
    turned = [
        (
            x + across * math.cos(yaw) - ahead * math.sin(yaw),
            -(y + across * math.sin(yaw) + ahead * math.cos(yaw)),
        )
        for across, ahead in corner
    ]
    return Markup(
        '<g class="shape alt{}" data-annotation="{}" data-type="{}" data-label="{}"><polygon points="{}"/><title>{}</title></g>'
    ).format(
        color % COLORS,
        annotation["position"],
        annotation["type"],
        annotation["label"] or "",
        _points(turned),
        annotation["label"] or "",
    )


def view_from_above(annotations: Sequence[Mapping[str, Any]]) -> tuple[float, float, float, float]:
    """Return left, top, width and height around lidar cuboids, in metres, with a margin."""
    places = [
        (
            one["geometry"]["position"]["x"],
            -one["geometry"]["position"]["y"],
            max(one["geometry"]["dimensions"]["y"], one["geometry"]["dimensions"]["x"]),
        )
        for one in annotations
        if one["type"] == "cuboid3d"
    ]
    if not places:
        return -50, -50, 100, 100
    left, top = min(x - r for x, _, r in places) - 2, min(y - r for _, y, r in places) - 2
    right, bottom = max(x + r for x, _, r in places) + 2, max(y + r for _, y, r in places) + 2
    return left, top, right - left, bottom - top


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
        right, bottom = max(right, far), max(bottom, low)
    return math.ceil(right), math.ceil(bottom)


def text_parts(text: str, spans: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any] | None]]:
    """Return a text cut at its spans: (part, span or None). A span that overlaps an earlier one is left to the table."""
    parts: list[tuple[str, Mapping[str, Any] | None]] = []
    at = 0
    placed = [one for one in spans if _is_within(one["geometry"], len(text))]
    for span in sorted(placed, key=lambda one: (one["geometry"]["start"], -one["geometry"]["end"])):
        start, end = int(span["geometry"]["start"]), int(span["geometry"]["end"])
        if start < at:
            continue
        parts += [(text[at:start], None), (text[start:end], span)]
        at = end
    return [*parts, (text[at:], None)]


def _is_within(geometry: Mapping[str, Any], length: int) -> bool:
    start, end = geometry.get("start"), geometry.get("end")
    return isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= length
