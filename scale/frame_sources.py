"""Where the frame of an annotation comes from: its time in the video, and the attachment that shows it.

A value is given only where Scale's documentation says what a frame number means; everything else is null.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from scale.fields import is_number


class FrameSource(NamedTuple):
    """Seconds from the start of the video, and the address of the attachment."""

    time: float | None
    attachment: str | None


def frame_source(
    params: Mapping[str, Any],
    frame: int,
    task_type: str | None = None,
    geometry: Mapping[str, Any] | None = None,
) -> FrameSource:
    """Return the source of a row's `frame`. A time that the file itself gives comes first.

    In a list of images a frame is a position. A video is sampled from start_time on, frame_rate (1) times a second. In a
    playback file a frame counts the video's own frames, video_frame_rate of them a second; images in addition to the video
    are annotation_frame_rate a second.
    Source: docs "General Video Annotation", "Video Playback"; FiftyOne's importer.
    """
    images = params.get("attachments")
    images = images if type(images) is list else []
    video = params.get("attachment")
    video = video if type(video) is str else None
    if task_type == "videoplaybackannotation":
        return _playback(params, frame, geometry or {}, images, video)
    if images and params.get("attachment_type") != "video":
        return FrameSource(_own_time(geometry, task_type), _address(images, frame))
    time = _own_time(geometry, task_type)
    if time is None and task_type == "videoannotation" and video is not None:
        start, rate = _number(params.get("start_time"), 0.0), _number(params.get("frame_rate"), 1.0)
        time = start + frame / rate if rate > 0 else None
    return FrameSource(time, video)


def _playback(
    params: Mapping[str, Any], frame: int, geometry: Mapping[str, Any], images: list[Any], video: str | None
) -> FrameSource:
    rate = _number(params.get("video_frame_rate"), 0.0)
    time = _own_time(geometry, "videoplaybackannotation")
    if time is None and rate > 0:
        time = frame / rate
    if not images or params.get("attachment_type") == "video":
        return FrameSource(time, video)
    if video is None:
        return FrameSource(time, _address(images, frame))
    place = frame * _number(params.get("annotation_frame_rate"), 0.0) / rate if rate > 0 else 0.0
    is_sampled = place > 0 or (frame == 0 and _number(params.get("annotation_frame_rate"), 0.0) > 0 < rate)
    return FrameSource(time, _address(images, int(place)) if is_sampled and place.is_integer() else None)


def _own_time(geometry: Mapping[str, Any] | None, task_type: str | None) -> float | None:
    """Return the file's own time of a video's frame, in seconds; of other types the unit is not documented."""
    if geometry is None or task_type not in ("videoannotation", "videoplaybackannotation"):
        return None
    for key in ("timestamp_secs", "timestamp"):
        if is_number(value := geometry.get(key)):
            return float(value)  # type: ignore[arg-type]
    return None


def _address(images: list[Any], place: int) -> str | None:
    image = images[place] if 0 <= place < len(images) else None
    if type(image) is dict:
        image = image.get("attachment") or image.get("url")
    return image if type(image) is str else None


def _number(value: Any, default: float) -> float:
    """Return a number, also one that is written as text, as Scale accepts it."""
    if type(value) is str:
        try:
            value = float(value)
        except ValueError:
            return default
    return float(value) if is_number(value) and 0 <= value < 1e9 else default
