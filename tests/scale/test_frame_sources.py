"""The time and the image of an annotation's frame."""

from typing import Any

import pytest

from scale.frame_sources import FrameSource, frame_source

IMAGES = {
    "attachment_type": "image",
    "attachments": ["https://a/0.png", "https://a/1.png", {"attachment": "https://a/2.png"}],
}
VIDEO = {"attachment_type": "video", "attachment": "https://a/v.mp4"}


@pytest.mark.parametrize(
    ("params", "frame", "task_type", "source"),
    [
        (IMAGES, 1, "videoannotation", FrameSource(None, "https://a/1.png")),
        (IMAGES, 2, "videoannotation", FrameSource(None, "https://a/2.png")),
        (IMAGES, 9, "videoannotation", FrameSource(None, None)),
        (
            {"attachments": ["https://a/0.json"], "attachment_type": "json"},
            0,
            "lidarannotation",
            FrameSource(None, "https://a/0.json"),
        ),
        (VIDEO, 3, "videoannotation", FrameSource(3.0, "https://a/v.mp4")),
        (
            {**VIDEO, "frame_rate": 4, "start_time": 10, "duration_time": 2},
            3,
            "videoannotation",
            FrameSource(10.75, "https://a/v.mp4"),
        ),
        (
            {**VIDEO, "frame_rate": "2", "start_time": "1.5"},
            1,
            "videoannotation",
            FrameSource(2.0, "https://a/v.mp4"),
        ),
        ({**VIDEO, "frame_rate": 0}, 1, "videoannotation", FrameSource(None, "https://a/v.mp4")),
        (
            {**VIDEO, "frame_rate": {}, "start_time": None},
            1,
            "videoannotation",
            FrameSource(1.0, "https://a/v.mp4"),
        ),
        (
            {**VIDEO, "frame_rate": 1, "video_frame_rate": 30},
            45,
            "videoplaybackannotation",
            FrameSource(1.5, "https://a/v.mp4"),
        ),
        ({**VIDEO, "frame_rate": 1}, 45, "videoplaybackannotation", FrameSource(None, "https://a/v.mp4")),
        ({**VIDEO, "frame_rate": 1}, 3, "videoboxannotation", FrameSource(None, "https://a/v.mp4")),
        (
            {"attachments": ["https://a/0.json"]},
            0,
            "lidarsegmentation",
            FrameSource(None, "https://a/0.json"),
        ),
        ({"lidar_task": "a", "frame_rate": 2}, 3, "lidarlinking", FrameSource(None, None)),
        ({}, 0, None, FrameSource(None, None)),
    ],
)
def test_a_frame_has_the_time_and_the_attachment_that_the_parameters_give(
    params: dict[str, Any], frame: int, task_type: str | None, source: FrameSource
) -> None:
    assert frame_source(params, frame, task_type) == source


BOTH = {
    "attachment": "https://a/v.mp4",
    "attachments": [f"https://a/{n}.png" for n in range(7)],
    "video_frame_rate": 30,
    "annotation_frame_rate": 5,
}


@pytest.mark.parametrize(
    ("frame", "image"),
    [
        (0, "https://a/0.png"),
        (6, "https://a/1.png"),
        (36, "https://a/6.png"),
        (7, None),
        (42, None),
        (999, None),
    ],
)
def test_images_of_a_playback_video_are_counted_at_their_own_rate(frame: int, image: str | None) -> None:
    assert frame_source(BOTH, frame, "videoplaybackannotation") == FrameSource(frame / 30, image)


@pytest.mark.parametrize("missing", ["video_frame_rate", "annotation_frame_rate"])
def test_without_both_rates_no_image_is_guessed(missing: str) -> None:
    params = {key: value for key, value in BOTH.items() if key != missing}
    assert frame_source(params, 6, "videoplaybackannotation").attachment is None


@pytest.mark.parametrize(
    ("task_type", "geometry", "time"),
    [
        ("videoplaybackannotation", {"timestamp": 0.21}, 0.21),
        ("videoplaybackannotation", {"timestamp": 99, "timestamp_secs": 0.22}, 0.22),
        ("videoannotation", {"timestamp_secs": 3}, 3.0),
        ("videoplaybackannotation", {"timestamp": "soon"}, 0.2),
        ("lidarannotation", {"timestamp": 1_700_000_000_000_000}, None),
        ("laneannotation", {"timestamp": 5}, None),
    ],
)
def test_the_time_of_the_file_comes_first_where_its_unit_is_known(
    task_type: str, geometry: dict[str, Any], time: float | None
) -> None:
    assert frame_source(BOTH, 6, task_type, geometry).time == time
