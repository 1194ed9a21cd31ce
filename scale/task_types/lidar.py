"""Sensor fusion: cuboids, links and point segmentations over lidar frames, in files that the response points to."""

from scale.task_types.base import TaskType, files, inline
from scale.task_types.request import Parameters


def _request(*required: tuple[str, ...]) -> Parameters:
    """Return a request of which the documentation shows no complete table."""
    return Parameters(required, complete=False)


LIDAR = (
    TaskType(
        "lidarannotation",
        "Cuboids in lidar frames",
        ("cuboid3d",),
        "file",
        inline("cuboid3d", discriminated=False),
        "cuboid3d",
        _request(("attachments",), ("labels",)),
    ),
    TaskType(
        "lidarlinking",
        "Shapes in camera images, linked to lidar cuboids",
        ("box", "polygon", "line", "point", "cuboid", "ellipse"),
        "file",
        files,
        request=_request(("attachments", "lidar_task")),
    ),
    TaskType(
        "lidarsegmentation",
        "A label for each lidar point",
        ("cuboid3d", "segment3d"),
        "file",
        files,
        request=_request(("attachments", "lidar_task"), ("labels",)),
    ),
    TaskType(
        "lidartopdown",
        "Polygons, lines and points on lidar seen from above",
        ("polygon", "line", "point"),
        "file",
        inline(None),
        request=_request(),
    ),
    TaskType(
        "sensorfusion", "Lidar and camera frames together", (), "file", inline(None), request=_request()
    ),
)
