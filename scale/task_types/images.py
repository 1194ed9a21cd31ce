"""Annotations drawn on one image: boxes, points, lines, polygons, cuboids, and all of them together."""

from scale.task_types.base import TaskType, inline

_DRAWN = ("attachment", "objects_to_annotate")

IMAGES = (
    TaskType("annotation", "Boxes on an image", ("box",), "inline", True, _DRAWN, inline("box"), "box"),
    TaskType(
        "pointannotation", "Points on an image", ("point",), "inline", True, _DRAWN, inline("point"), "point"
    ),
    TaskType(
        "lineannotation", "Lines on an image", ("line",), "inline", True, _DRAWN, inline("line"), "line"
    ),
    TaskType(
        "polygonannotation",
        "Polygons on an image",
        ("polygon",),
        "inline",
        True,
        _DRAWN,
        inline("polygon"),
        "polygon",
    ),
    TaskType(
        "cuboidannotation",
        "Cuboids seen in an image",
        ("cuboid",),
        "inline",
        True,
        _DRAWN,
        inline("cuboid"),
        "cuboid",
    ),
    TaskType(
        "imageannotation",
        "Boxes, polygons, lines, points, cuboids and ellipses on an image",
        ("box", "polygon", "line", "point", "cuboid", "ellipse"),
        "inline",
        True,
        ("attachment", "geometries"),
        inline(None),
    ),
)
