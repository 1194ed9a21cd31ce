"""Annotations over the frames of a video: the response points to files, which are read when they were fetched."""

from scale.task_types.reading import TaskType, files

_SHAPES = ("box", "polygon", "line", "point", "cuboid", "ellipse", "event")

VIDEO = (
    TaskType(
        "videoannotation",
        "Shapes and events over a video, a list of frames",
        _SHAPES,
        "file",
        True,
        ("attachments|attachment", "geometries"),
        files,
    ),
    TaskType(
        "videoplaybackannotation",
        "Shapes and events over a video, by object",
        _SHAPES,
        "file",
        False,
        ("attachment|attachments", "geometries"),
        files,
    ),
)
