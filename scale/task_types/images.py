"""Annotations drawn on one image: boxes, points, lines, polygons, cuboids, and all of them together."""

from scale.task_types.base import TaskType, inline
from scale.task_types.request import BASE_ANNOTATIONS, PADDING, Parameters


def _drawn(name: str, description: str, shape: str, *optional: str, max_objects: int = 6) -> TaskType:
    """Return a task type that draws one shape, which its annotations need not name."""
    request = Parameters(
        required=(("attachment",), ("objects_to_annotate",)),
        optional=(
            *("with_labels", "examples", "annotation_attributes", "context_attachments"),
            *PADDING,
            *optional,
        ),
        max_items={"objects_to_annotate": max_objects},
        attachment_types=("image",),
        layers="objects",
    )
    return TaskType(name, description, (shape,), "inline", inline(shape), shape, request)


_SIZE = ("min_width", "min_height")
_VERTICES = ("min_vertices", "max_vertices")
_COUNT = ("min_annotations", "max_annotations")
_CAMERA = ("camera_intrinsics", "camera_rotation_quaternion", "camera_height")

IMAGES = (
    _drawn("annotation", "Boxes on an image", "box", *_SIZE, *_COUNT, "integer_pixels", "can_rotate"),
    _drawn("pointannotation", "Points on an image", "point", *_COUNT),
    _drawn("lineannotation", "Lines on an image", "line", *_VERTICES, *_COUNT, "splines", max_objects=3),
    _drawn("polygonannotation", "Polygons on an image", "polygon", *_VERTICES, *_COUNT),
    _drawn("cuboidannotation", "Cuboids seen in an image", "cuboid", *_SIZE, *_COUNT, *_CAMERA),
    TaskType(
        "imageannotation",
        "Boxes, polygons, lines, points, cuboids and ellipses on an image",
        ("box", "polygon", "line", "point", "cuboid", "ellipse"),
        "inline",
        inline(None),
        request=Parameters(
            required=(("attachment",), ("geometries",)),
            optional=(
                *("annotation_attributes", "context_attachments", "links", "image_metadata"),
                *PADDING,
                *BASE_ANNOTATIONS,
            ),
            attachment_types=("image",),
            layers="objects",
            hypothesis="annotations",
        ),
    ),
)
