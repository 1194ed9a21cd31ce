import io
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from scale import masks
from scale.masks import (
    UnreadableMask,
    artifact_indexes,
    compare_with_index_image,
    complete_geometry,
    disagreements,
    read_index_image,
)

SCENE = np.array(
    [
        [0, 0, 1, 1, 0],
        [0, 2, 1, 1, 0],
        [0, 2, 2, 3, 0],
    ]
)
ROWS = [
    ("road", {"index": 1, "color": "#ff0000", "numPixels": 4}),
    ("car", {"index": 2, "color": "#00ff00", "instance": 0}),
    ("car", {"index": 3, "color": "#00ff00", "instance": 1}),
    ("sky", {"index": 4, "color": "#0000ff"}),
]


def png(pixels: Any, mode: str | None = None, **how: Any) -> io.BytesIO:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, "PNG", **how)
    file.seek(0)
    return file


def grey(scene: Any = SCENE) -> io.BytesIO:
    return png(np.asarray(scene, np.uint8))


def extended(scene: Any) -> np.ndarray:
    """RGBA, red the least significant byte of the index."""
    scene = np.asarray(scene, np.uint32)
    return np.stack([scene & 255, scene >> 8 & 255, scene >> 16 & 255, np.full_like(scene, 255)], -1).astype(
        np.uint8
    )


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> io.BytesIO:
    """A PNG written by hand: for headers and depths that Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + body)


def test_each_index_has_its_count_its_box_and_its_rle() -> None:
    pixels = read_index_image(grey())
    assert (pixels.width, pixels.height, pixels.unlabeled) == (5, 3, 7)
    assert pixels.indexes == [0, 1, 2, 3]
    car = pixels.geometry(2)
    assert {key: car[key] for key in ("pixels", "left", "top", "width", "height")} == {
        "pixels": 3,
        "left": 1,
        "top": 1,
        "width": 2,
        "height": 2,
    }
    assert np.array_equal(coco.decode(car["rle"]), SCENE == 2)
    assert json.loads(json.dumps(car)) == car


def test_a_row_is_completed_also_where_its_index_has_no_pixels() -> None:
    pixels = read_index_image(grey())
    sky = complete_geometry(ROWS[3][1], pixels)
    assert sky == {
        **ROWS[3][1],
        "pixels": 0,
        "left": 0,
        "top": 0,
        "width": 0,
        "height": 0,
        "rle": {
            "size": [3, 5],
            "counts": coco.encode(np.zeros((3, 5), np.uint8, order="F"))["counts"].decode(),
        },
    }
    assert complete_geometry({"value": "no entry"}, pixels) == {"value": "no entry"}


@settings(deadline=None)
@given(st.data())
def test_any_image_has_the_boxes_and_rles_that_pycocotools_gives(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    row = st.lists(st.sampled_from([0, 1, 2, 300, 70_000]), min_size=width, max_size=width)
    scene = np.array(data.draw(st.lists(row, min_size=height, max_size=height)))
    strip = data.draw(st.sampled_from([1, 7, 30, 1000]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "STRIP_PIXELS", strip)
        pixels = read_index_image(png(extended(scene)), extended=True)
    assert pixels.indexes == sorted(set(scene.ravel().tolist()))
    for index in [0, 1, 2, 300, 70_000]:
        geometry = pixels.geometry(index)
        one = np.asfortranarray(scene == index, np.uint8)
        encoded = coco.encode(one)
        assert geometry["pixels"] == one.sum()
        assert geometry["rle"]["counts"] == encoded["counts"].decode()
        if one.any():
            box = [geometry[key] for key in ("left", "top", "width", "height")]
            assert box == coco.toBbox(encoded).astype(int).tolist()


def test_red_is_the_least_significant_byte() -> None:
    scene = np.array([[1, 256, 65_536, 0x030201]])
    image = extended(scene)
    assert image[0, 3].tolist() == [1, 2, 3, 255]
    assert read_index_image(png(image), extended=True).indexes == [1, 256, 65_536, 0x030201]
    assert read_index_image(png(image[..., :3]), extended=True).indexes == [1, 256, 65_536, 0x030201]


def test_transparency_does_not_hide_an_index() -> None:
    image = extended([[7]])
    image[..., 3] = 0
    assert read_index_image(png(image), extended=True).indexes == [7]


def palette(scene: Any, colours: list[int]) -> Image.Image:
    image = Image.fromarray(np.asarray(scene, np.uint8), "L").copy()
    image.putpalette(colours)
    return image


@pytest.mark.parametrize(
    "file",
    [
        png(np.asarray(SCENE, np.uint8)),
        png(np.asarray(SCENE, np.uint16)),
        png(np.asarray(SCENE, np.uint8), "LA"),
        png(np.asarray(SCENE, np.uint8), "RGB"),
        png(np.asarray(SCENE, np.uint8), "RGBA"),
        png(extended(SCENE)),
        png(palette(SCENE, [9, 9, 9, 200, 0, 0, 0, 200, 0, 200, 0, 0])),
        png(palette(SCENE, [9, 9, 9, 200, 0, 0, 0, 200, 0, 200, 0, 0]), bits=2),
        raw_png(5, 3, 2, 0, b"\0\x05\0" + b"\0\x25\0" + b"\0\x2b\0"),
        raw_png(5, 3, 4, 0, b"\0\x00\x11\x00" + b"\0\x02\x11\x00" + b"\0\x02\x23\x00"),
    ],
    ids=[
        "L",
        "I;16",
        "LA",
        "RGB",
        "RGBA",
        "extended",
        "palette",
        "palette of 2 bits",
        "grey of 2 bits",
        "grey of 4 bits",
    ],
)
def test_every_form_of_png_gives_the_same_indexes(file: io.BytesIO) -> None:
    pixels = read_index_image(file)
    assert {index: pixels.count(index) for index in pixels.indexes} == {0: 7, 1: 4, 2: 3, 3: 1}


def test_indexes_beyond_a_byte_are_read_from_16_bits() -> None:
    assert read_index_image(png(np.array([[0, 255, 256, 65_535]], np.uint16))).indexes == [
        0,
        255,
        256,
        65_535,
    ]


def test_an_image_of_one_bit_holds_index_0_and_1() -> None:
    assert read_index_image(png(Image.fromarray(SCENE == 1))).count(1) == 4


def test_a_palette_of_an_extended_image_is_looked_up() -> None:
    image = palette([[0, 1]], [0, 0, 0, 1, 2, 3])
    assert read_index_image(png(image), extended=True).indexes == [0, 0x030201]


def test_the_colours_of_the_mapping_are_never_looked_at() -> None:
    one_colour = palette(SCENE, [255, 0, 0] * 4)
    assert read_index_image(png(one_colour)).indexes == [0, 1, 2, 3]


def test_a_header_of_100000_by_100000_pixels_is_refused_at_once() -> None:
    with pytest.raises(UnreadableMask, match="100,000 × 100,000 pixels"):
        read_index_image(raw_png(100_000, 100_000, 8, 0, b""))


def test_a_second_header_does_not_pass_the_bound() -> None:
    small, large = raw_png(5, 3, 8, 0, b"").getvalue(), raw_png(20_000, 4_000, 8, 0, b"").getvalue()
    with pytest.raises(UnreadableMask, match="20,000 × 4,000 pixels are more"):
        read_index_image(io.BytesIO(small[:33] + large[8:]))


def test_the_bound_on_pixels_can_be_set() -> None:
    with pytest.raises(UnreadableMask, match="more than 14"):
        read_index_image(grey(), max_pixels=14)
    assert read_index_image(grey(), max_pixels=15).indexes


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a PNG"),
        (b"\x89PNG\r\n\x1a\n", "not a PNG"),
        (b'{"annotations": []}' * 5, "not a PNG"),
        (grey().getvalue()[:50], "broken"),
        (raw_png(50, 30, 8, 0, b"\0" * 70).getvalue(), "broken"),
        (raw_png(0, 3, 8, 0, b"").getvalue(), "broken"),
        (raw_png(1, 1, 16, 2, b"\0" * 7).getvalue(), "16 bits a colour"),
        (raw_png(1, 1, 16, 6, b"\0" * 9).getvalue(), "16 bits a colour"),
    ],
)
def test_what_is_no_index_image_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableMask, match=reason):
        read_index_image(io.BytesIO(content))


def test_a_jpeg_is_no_index_image() -> None:
    file = io.BytesIO()
    Image.fromarray(SCENE.astype(np.uint8)).save(file, "JPEG")
    file.seek(0)
    with pytest.raises(UnreadableMask, match="not a PNG"):
        read_index_image(file)


def test_noise_is_refused_before_it_fills_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MAX_RUNS", 10_000)
    noise = np.random.default_rng(1).integers(0, 9, (300, 300), np.uint8)
    with pytest.raises(UnreadableMask, match="noise"):
        read_index_image(png(noise))


def test_counts_that_agree_are_not_reported() -> None:
    assert disagreements(ROWS, read_index_image(grey())) == []


def test_counts_that_differ_and_indexes_without_an_entry_are_reported() -> None:
    rows = [
        ("road", {"index": 1, "numPixels": 9}),
        ("sky", {"index": 4, "numPixels": 2}),
        ("odd", {"value": 1}),
    ]
    assert disagreements(rows, read_index_image(grey())) == [
        "label 'road', index 1: numPixels is 9, the image has 4",
        "label 'sky', index 4: numPixels is 2, the image has 0",
        "index 2 has 3 pixels and no entry in labelMapping",
        "index 3 has 1 pixels and no entry in labelMapping",
    ]


def test_many_stray_indexes_are_counted_not_listed() -> None:
    problems = disagreements([], read_index_image(png(np.arange(1, 101, dtype=np.uint8)[None])))
    assert len(problems) == 21
    assert problems[-1] == "… and 80 more indexes have no entry in labelMapping"


@pytest.mark.parametrize(
    ("role", "indexes"),
    [
        ("unlabeled", [0]),
        ("labeled:road", [1]),
        ("labeled:car", [2, 3]),
        ("labeled:car:1", [3]),
        ("labeled:road:0", [1]),
        ("labeled:road:1", []),
        ("labeled:a:b", [9]),
        ("labeled:nothing", []),
    ],
)
def test_a_role_names_its_indexes(role: str, indexes: list[int]) -> None:
    assert artifact_indexes(role, [*ROWS, ("a:b", {"index": 9})]) == indexes


def shown(scene: np.ndarray) -> list[io.BytesIO]:
    """The ways in which a label's image may mark its pixels."""
    ones = scene.astype(np.uint8)
    alpha = np.stack([ones * 0, ones * 0, ones * 0, ones * 255], -1)
    opaque = np.stack([ones * 200, ones * 0, ones * 0, ones * 0 + 255], -1)
    return [
        png(ones),
        png(ones * 255),
        png(ones.astype(bool)),
        png(ones.astype(np.uint16) * 65_535),
        png(alpha),
        png(opaque),
        png(opaque[..., :3]),
        png(palette(ones, [0, 0, 0, 10, 200, 30])),
        png(palette(ones, [255, 255, 255, 255, 255, 255]), transparency=0),
    ]


def test_the_image_of_a_label_is_compared_pixel_by_pixel() -> None:
    pixels = read_index_image(grey())
    for file in shown(np.isin(SCENE, (2, 3))):
        assert compare_with_index_image("labeled:car", [2, 3], file, pixels) is None
    wrong = SCENE == 2
    wrong[0, 0] = wrong[0, 1] = True
    for file in shown(wrong):
        problems = compare_with_index_image("labeled:car", [2, 3], file, pixels)
        assert problems == "the image 'labeled:car' lacks 1 pixels of the index image and has 2 others"
    assert compare_with_index_image("unlabeled", [0], png((SCENE == 0).astype(np.uint8)), pixels) is None
    assert compare_with_index_image("labeled:sky", [4], png(np.zeros((3, 5), np.uint8)), pixels) is None
    assert compare_with_index_image("labeled:none", [], png(np.zeros((3, 5), np.uint8)), pixels) is None


def test_the_image_of_a_label_of_another_size_is_reported() -> None:
    problems = compare_with_index_image(
        "labeled:car", [2], png(np.zeros((4, 5), np.uint8)), read_index_image(grey())
    )
    assert problems == "the image 'labeled:car' is 5 × 4, the index image 5 × 3"
