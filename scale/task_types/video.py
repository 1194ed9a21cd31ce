"""Annotations over the frames of a video: the response points to files, which are read when they have been fetched."""

from scale.task_types.base import TaskType, files, inline
from scale.task_types.request import BASE_ANNOTATIONS, PADDING, UNDOCUMENTED, Parameters

_SHAPES = ("box", "polygon", "line", "point", "cuboid", "ellipse", "event")


def _request(layers: str | None, *optional: str) -> Parameters:
    return Parameters(
        required=(("attachment", "attachments"), ("geometries",)),
        optional=(
            *("annotation_attributes", "events_to_annotate", "links", "context_attachments"),
            *("frame_rate", "start_time", "duration_time"),
            *PADDING,
            *BASE_ANNOTATIONS,
            *optional,
        ),
        attachment_types=("image", "video"),
        layers=layers,
        hypothesis="file",
    )


def _named_only(name: str, description: str, implied: str | None, creatable: bool = True) -> TaskType:
    """Return a type of which only the name is documented: most likely a file; a list in the response is read as rows."""
    yields = (implied,) if implied else _SHAPES
    request = UNDOCUMENTED if creatable else None
    return TaskType(name, description, yields, "file", inline(implied), implied, request)


VIDEO = (
    TaskType(
        "videoannotation",
        "Shapes and events over a video, as a list of frames",
        _SHAPES,
        "file",
        files,
        request=_request("file"),
    ),
    TaskType(
        "videoplaybackannotation",
        "Shapes and events over a video, as objects with their frames",
        _SHAPES,
        "file",
        files,
        request=_request(None, "annotation_frame_rate", "video_frame_rate"),
    ),
    _named_only("videoboxannotation", "Boxes over a video", "box"),
    _named_only("videocuboidannotation", "Cuboids over a video", "cuboid"),
    _named_only("videopolygonannotation", "Polygons over a video", "polygon", creatable=False),
    _named_only("federal2dvideoannotation", "Shapes over a video", None),
    _named_only("laneannotation", "Lanes", None),
)
