"""Annotations over the frames of a video: the response points to files, which are read when they have been fetched."""

from scale.task_types.base import TaskType, files, inline

_SHAPES = ("box", "polygon", "line", "point", "cuboid", "ellipse", "event")
_FRAMES = "attachments|attachment"


def _named_only(name: str, summary: str, implied: str | None) -> TaskType:
    """A type of which only the name is documented: most likely a file; a list in the response is read as rows."""
    yields = (implied,) if implied else _SHAPES
    return TaskType(name, summary, yields, "file", False, (_FRAMES,), inline(implied), implied)


VIDEO = (
    TaskType(
        "videoannotation",
        "Shapes and events over a video, as a list of frames",
        _SHAPES,
        "file",
        True,
        (_FRAMES, "geometries"),
        files,
    ),
    TaskType(
        "videoplaybackannotation",
        "Shapes and events over a video, as objects with their frames",
        _SHAPES,
        "file",
        False,
        (_FRAMES, "geometries"),
        files,
    ),
    _named_only("videoboxannotation", "Boxes over a video", "box"),
    _named_only("videocuboidannotation", "Cuboids over a video", "cuboid"),
    _named_only("videopolygonannotation", "Polygons over a video", "polygon"),
    _named_only("federal2dvideoannotation", "Shapes over a video", None),
    _named_only("laneannotation", "Lanes", None),
)
