"""Sensor fusion: cuboids, links and point segmentations over lidar frames, in files that the response points to."""

from scale.task_types.base import TaskType, files, inline

LIDAR = (
    TaskType(
        "lidarannotation",
        "Cuboids in lidar frames",
        ("cuboid3d",),
        "file",
        False,
        ("attachments", "labels"),
        inline("cuboid3d", discriminated=False),
        "cuboid3d",
    ),
    TaskType(
        "lidarlinking",
        "Shapes in camera images, linked to lidar cuboids",
        ("box", "polygon", "line", "point", "cuboid", "ellipse"),
        "file",
        False,
        ("lidar_task|attachments",),
        files,
    ),
    TaskType(
        "lidarsegmentation",
        "A label for each lidar point",
        ("cuboid3d", "segment3d"),
        "file",
        False,
        ("lidar_task|attachments", "labels"),
        files,
    ),
    TaskType(
        "lidartopdown",
        "Polygons, lines and points on lidar seen from above",
        ("polygon", "line", "point"),
        "file",
        False,
        ("attachments|attachment", "geometries"),
        inline(None),
    ),
    TaskType(
        "sensorfusion", "Lidar and camera frames together", (), "file", False, ("attachments",), inline(None)
    ),
)
