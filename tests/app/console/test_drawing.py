"""What the browser draws lies where the result says, within half a pixel of the original picture."""

import io
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.app.console import gallery
from tests.app.console.browsing import TIMEOUT_MS, Console, Window, window

PLACES = """shapes => shapes.map(shape => {
  const element = shape.matches('g') ? shape.querySelector('rect, polygon, path, image') : shape;
  const svg = shape.closest('svg');
  const box = element.getBBox();
  const toImage = svg.getScreenCTM().inverse().multiply(element.getScreenCTM());
  const corners = [[box.x, box.y], [box.x + box.width, box.y], [box.x + box.width, box.y + box.height],
    [box.x, box.y + box.height]];
  return corners.map(([x, y]) => { const p = new DOMPoint(x, y).matrixTransform(toImage); return [p.x, p.y]; });
})"""
"""The corners of each shape's box, in pixels of the image: what the browser really draws."""


@pytest.fixture
def opened(browser: Browser, console: Console) -> Iterator[Window]:
    with window(browser, console) as opened:
        yield opened


def corners(opened: Window, position: int) -> list[Any]:
    found: list[Any] = opened.page.locator(f'svg [data-annotation="{position}"]').evaluate_all(PLACES)[0]
    return found


def box(left: float, top: float, width: float, height: float) -> list[Any]:
    right, bottom = left + width, top + height
    return [
        pytest.approx(corner, abs=0.5)
        for corner in ([left, top], [right, top], [right, bottom], [left, bottom])
    ]


def picture_lies_under_the_drawing(opened: Window) -> bool:
    image = opened.page.locator(".stack img").bounding_box()
    drawing = opened.page.locator(".stack svg").bounding_box()
    assert image is not None
    assert drawing is not None
    return all(image[key] == pytest.approx(drawing[key], abs=0.05) for key in ("x", "y", "width", "height"))


def test_every_shape_is_drawn_where_the_result_says(opened: Window) -> None:
    page = opened.open("tasks/drawn?response=1")
    assert page.locator(".stack svg").get_attribute("viewBox") == "0 0 640 480"
    assert picture_lies_under_the_drawing(opened)
    assert corners(opened, 0) == box(100, 50, 200, 100)
    assert corners(opened, 2) == box(10, 300, 590, 160)
    assert corners(opened, 3) == box(5, 190, 625, 30.5)
    assert corners(opened, 4) == box(36, 56, 8, 8)
    assert corners(opened, 5) == box(100, 170, 100, 60)
    assert corners(opened, 6) == box(330, 240, 120, 12)
    assert [one["type"] for one in gallery.SHAPES] == [
        page.locator(f'svg [data-annotation="{number}"]').get_attribute("data-type") for number in range(7)
    ]
    assert page.locator('svg [data-annotation="2"]').get_attribute("data-label") == gallery.HOSTILE


def test_a_rotated_box_is_turned_clockwise_about_its_centre(opened: Window) -> None:
    opened.open("tasks/drawn?response=1")
    # (400, 100) + R(0.5) · (∓100, ∓50)
    expected = [[336.21, 8.18], [511.73, 104.06], [463.79, 191.82], [288.27, 95.94]]
    assert corners(opened, 1) == [pytest.approx(corner, abs=0.5) for corner in expected]


@pytest.mark.parametrize(("name", "size"), [("turned", gallery.TURNED), ("photo", gallery.PHOTO)])
def test_a_turned_and_a_large_picture_keep_the_pixels_of_the_original(
    opened: Window, name: str, size: tuple[int, int]
) -> None:
    sent = []
    opened.page.on("response", lambda answer: sent.append(answer) if "/attachments/" in answer.url else None)
    page = opened.open(f"tasks/{name}")
    page.wait_for_load_state("networkidle")
    width, height = size
    assert page.locator(".stack svg").get_attribute("viewBox") == f"0 0 {width} {height}"
    assert corners(opened, 0) == box(width / 4, height / 4, width / 2, height / 2)
    assert picture_lies_under_the_drawing(opened)
    shown = page.locator(".stack img").evaluate("image => image.naturalWidth / image.naturalHeight")
    assert shown == pytest.approx(width / height, rel=0.01)
    assert len(sent[0].body()) * 2 < len(gallery.photo()) or name == "turned"


def test_a_mask_fills_its_bounding_box(opened: Window) -> None:
    opened.open("tasks/masks")
    assert corners(opened, 1) == box(100, 60, 50, 40)


def test_each_label_of_a_request_has_its_color_in_the_drawing_and_in_the_list(opened: Window) -> None:
    labels = ["car", "van", "pedestrian"]  # by their names alone, two of them had the same
    opened.console.deliver(
        "annotation/accepted",
        task_id="colors",
        params={"attachment_type": "image", "objects_to_annotate": labels},
        response={"annotations": [{**gallery.BOX, "label": label, "uuid": label} for label in labels]},
    )
    page = opened.open("tasks/colors")
    drawn, listed = (
        [
            page.locator(selector.format(label)).evaluate(f"one => getComputedStyle(one).{style}")
            for label in labels
        ]
        for selector, style in (
            ("svg [data-label={}]", "stroke"),
            ("label:has([value={}]) .key", "backgroundColor"),
        )
    )
    assert drawn == listed
    assert len(set(drawn)) == len(labels)


def test_the_pixels_of_a_mask_have_the_color_of_its_outline(opened: Window) -> None:
    page = opened.open("tasks/masks")
    colors = []
    for position in (0, 1):
        mask = page.locator(f'svg [data-annotation="{position}"]')
        stroke = mask.evaluate("one => getComputedStyle(one).stroke")
        sent = page.request.get(f"{opened.console.address}..{mask.locator('image').get_attribute('href')}")
        pixels = Image.open(io.BytesIO(sent.body())).convert("RGBA")
        center = pixels.getpixel((pixels.width // 2, pixels.height // 2))
        assert stroke == "rgb({}, {}, {})".format(*center[:3])
        colors.append(stroke)
    assert colors[0] != colors[1]


def test_a_high_picture_is_seen_whole_until_it_is_zoomed(opened: Window) -> None:
    page = opened.open("tasks/turned")
    place = page.locator(".picture")
    expect(place).to_have_js_property("scrollHeight", place.evaluate("one => one.clientHeight"))
    assert picture_lies_under_the_drawing(opened)
    page.get_by_role("button", name="Zoom in").click()
    assert place.evaluate("one => one.scrollHeight > one.clientHeight")


def test_events_and_segments_are_listed_on_every_frame(opened: Window) -> None:
    for frame in (0, 2):
        page = opened.open(f"tasks/video?frame={frame}")
        expect(page.get_by_role("row", name="turns event")).to_be_visible()
        expect(page.get_by_role("row", name=f"car box {frame}")).to_be_visible()
    page = opened.open("tasks/segments?frame=1")
    expect(page.get_by_role("row", name="ground segment3d")).to_be_visible()


def test_the_slider_steps_through_frames_and_keeps_the_focus(opened: Window) -> None:
    page = opened.open("tasks/video")
    slider = page.get_by_role("slider")
    slider.focus()
    for frame in (1, 2):
        page.keyboard.press("ArrowRight")
        expect(page.locator(f'svg [data-annotation="{frame}"]')).to_have_count(1, timeout=TIMEOUT_MS)
        expect(page.locator("svg [data-annotation]")).to_have_count(1)
        assert page.url.endswith(f"frame={frame}")
        assert corners(opened, frame) == box(50 + 100 * frame, 40, 80, 60)
        expect(slider).to_be_focused()


def test_a_video_shows_the_moment_of_the_frame_under_its_shapes(opened: Window) -> None:
    page = opened.open("tasks/clip?frame=1")
    drawing, video = page.locator(".stack svg"), page.locator(".stack video")
    expect(drawing).to_have_attribute("viewBox", "0 0 160 120", timeout=TIMEOUT_MS)
    expect(video).to_have_js_property("currentTime", 0.5)
    assert corners(opened, 1) == box(150, 40, 80, 60)
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("svg [data-annotation]")).to_have_attribute("data-annotation", "2")
    expect(page.locator(".stack video")).to_have_js_property("currentTime", 1)


def test_lidar_cuboids_are_seen_from_above_turned_by_their_yaw(opened: Window) -> None:
    page = opened.open("tasks/lidar?frame=1")
    points = page.locator("svg g[data-annotation] :first-child").first.get_attribute("points") or ""
    drawn = [tuple(map(float, point.split(","))) for point in points.split()]
    # (11, 5) + R(0.7) · (±1, ±2.25); y is drawn downwards
    expected = [(11.685, -2.635), (13.214, -3.923), (10.315, -7.365), (8.786, -6.077)]
    assert drawn == [pytest.approx(corner, abs=0.01) for corner in expected]


def test_a_lidar_scene_is_drawn_in_3d_and_turned_by_the_keyboard(opened: Window) -> None:
    page = opened.open("tasks/lidar")
    scene = page.locator("canvas.points")
    expect(scene).to_have_attribute("data-drawn", "4000 points, 1 cuboids")
    before = scene.screenshot()
    scene.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    assert scene.screenshot() != before
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("canvas.points")).to_have_attribute(
        "data-points", "/console/tasks/lidar/points/1?response=1"
    )
    expect(page.locator("canvas.points")).to_have_attribute("data-drawn", "4000 points, 1 cuboids")


def test_a_lidar_scene_without_its_points_says_so(opened: Window) -> None:
    opened.console.deliver(
        "lidarannotation/file_of_cuboids",
        task_id="pointless",
        params={"attachments": [f"{opened.console.files}/cuboids.json"], "attachment_type": "json"},
        response={"annotations": {"url": f"{opened.console.files}/cuboids.json"}},
    )
    page = opened.open("tasks/pointless")
    expect(page.get_by_text("The points of this frame cannot be shown.")).to_be_visible()


def test_points_have_the_color_of_their_segment(opened: Window) -> None:
    page = opened.open("tasks/segments")
    expect(page.locator("canvas.points")).to_have_attribute("data-drawn", "4000 points, 1 cuboids")
    sent = page.request.get(f"{opened.console.address}tasks/segments/points/0?response=1").body()
    colors = Counter(array("f", sent)[3::4])
    assert colors == {0: 1000, 1: 2000, -1: 1000}


def test_a_row_of_another_file_marks_no_shape(opened: Window) -> None:
    page = opened.open("tasks/segments")
    page.get_by_role("row", name="tractor segment3d").hover()
    expect(page.locator(".marked")).to_have_count(1)
    page.get_by_role("row", name="tractor cuboid3d").hover()
    expect(page.locator("svg .marked")).to_have_count(1)


def test_linked_shapes_lie_on_the_image_of_their_camera(opened: Window) -> None:
    for camera, left in ((0, 100), (1, 300)):
        page = opened.open(f"tasks/cameras?camera={camera}")
        page.wait_for_load_state("networkidle")
        assert page.locator(".stack svg").get_attribute("viewBox") == "0 0 640 480"
        assert page.locator(".stack img").evaluate("image => image.naturalWidth") == 640
        assert picture_lies_under_the_drawing(opened)
        expect(page.locator("svg [data-annotation]")).to_have_count(1)
        assert corners(opened, camera) == box(left, 50, 200, 100)
    page.get_by_role("link", name="Camera 0").click()
    expect(page.locator('svg [data-annotation="0"]')).to_have_count(1)


def test_the_attachment_of_a_text_collection_is_shown_and_nothing_where_there_is_none(opened: Window) -> None:
    page = opened.open("tasks/collected")
    expect(page.locator(".stack img")).to_have_js_property("naturalWidth", 640)
    for name in ("asked", "chat"):
        page = opened.open(f"tasks/{name}")
        expect(page.get_by_role("heading", name="Answer")).to_be_visible()
        expect(page.locator(".picture")).to_have_count(0)
        expect(page.get_by_text("No annotations")).to_have_count(0)


def test_a_conversation_reads_as_one(opened: Window) -> None:
    page = opened.open("tasks/talk")
    conversation = page.locator(".conversation")
    assert conversation.inner_text().split() == ["user", "Is", "it", "open?", "tone", "calm"]


def test_a_document_has_pages(opened: Window) -> None:
    page = opened.open("tasks/document")
    expect(page.locator("svg [data-annotation]")).to_have_count(1)
    expect(page.locator('tr[data-row="0"] q')).to_have_text("12.50")
    page.get_by_role("link", name="Next page").click()
    expect(page.locator('svg [data-annotation="1"]')).to_have_count(1)
    expect(page.locator('[data-annotation="2"]')).to_have_count(1)


def test_spans_are_marked_in_the_text(opened: Window) -> None:
    page = opened.open("tasks/text")
    assert page.locator("mark[data-annotation]").all_inner_texts()[:2] == ["Old Mill", "Anna"]


def test_audio_plays_from_the_console(opened: Window) -> None:
    page = opened.open("tasks/audio")
    assert page.locator("audio").get_attribute("src") == "/console/attachments/audio/0"
    assert page.request.get(f"{opened.console.address}attachments/audio/0").body() == gallery.sound()
    expect(page.get_by_text("Gate open.", exact=True)).to_be_visible()


def test_what_cannot_be_fetched_is_explained(opened: Window) -> None:
    page = opened.open("tasks/expired")
    expect(page.get_by_text("The attachment cannot be shown")).to_be_visible()
    expect(page.locator(".stack img")).to_have_count(0)
    assert corners(opened, 0) == box(100, 50, 200, 100)


def test_a_presigned_address_is_inside_raw_data_only(opened: Window) -> None:
    for name in ("drawn", "expired", "audio", "masks"):
        page = opened.open(f"tasks/{name}")
        page.evaluate("document.querySelectorAll('pre').forEach(raw => raw.remove())")
        assert "secret-part" not in page.content()


@pytest.mark.parametrize("name", ["car", "polygon"])
def test_a_checkbox_hides_and_shows_a_label_or_type(opened: Window, name: str) -> None:
    page = opened.open("tasks/drawn")
    shape = page.locator(f'svg [data-label="{name}"], svg [data-type="{name}"]').first
    checkbox = page.get_by_role("checkbox", name=name, exact=True)
    checkbox.uncheck()
    expect(shape).to_be_hidden()
    checkbox.check()
    expect(shape).to_be_visible()


def test_rows_and_shapes_mark_each_other(opened: Window) -> None:
    page = opened.open("tasks/drawn")
    shape, row = page.locator('svg [data-annotation="0"]'), page.locator('tr[data-row="0"]')
    for act in (lambda: row.hover(), lambda: row.get_by_role("button").focus(), lambda: shape.hover()):
        act()
        for one in (shape, row):
            assert "marked" in (one.get_attribute("class") or "")
        page.mouse.move(0, 0)
        page.locator("body").press("Escape")
        page.evaluate("document.activeElement.blur()")
        assert "marked" not in (shape.get_attribute("class") or "")


def test_zoom_makes_the_picture_larger(opened: Window) -> None:
    page = opened.open("tasks/drawn")
    before = page.locator(".stack").bounding_box()
    page.get_by_role("button", name="Zoom in").click()
    after = page.locator(".stack").bounding_box()
    assert before is not None
    assert after is not None
    assert after["width"] == pytest.approx(1.5 * before["width"], rel=0.01)


def test_versions_are_compared_on_the_picture(opened: Window) -> None:
    page = opened.open("tasks/drawn/compare?old=1&new=2")
    expect(page.get_by_text("0 added, 1 removed, 1 moved, 1 relabeled")).to_be_visible()
    for kind in ("removed", "changed"):
        expect(page.locator(f"svg .shape.{kind}").first).to_be_visible()
    expect(page.get_by_role("row", name="car bus")).to_be_visible()


def test_five_thousand_boxes_are_drawn_once_each(opened: Window) -> None:
    boxes = [
        {**gallery.BOX, "uuid": str(n), "left": n % 100 * 6, "top": n // 100 * 9, "width": 5, "height": 5}
        for n in range(5000)
    ]
    params = {"attachment": f"{opened.console.files}/street.png", "attachment_type": "image"}
    opened.console.deliver(
        "annotation/accepted",
        task_id="many",
        type="imageannotation",
        params=params,
        response={"annotations": boxes},
    )
    page = opened.open("tasks/many")
    expect(page.locator("svg rect[data-annotation]")).to_have_count(5000, timeout=TIMEOUT_MS)
    expect(page.locator("tr[data-row]")).to_have_count(5000, timeout=TIMEOUT_MS)
    drawn = page.locator("svg [data-annotation]").evaluate_all(
        "all => all.map(one => one.dataset.annotation)"
    )
    assert sorted(map(int, drawn)) == [*range(5000)]
    assert corners(opened, 4999) == box(99 * 6, 49 * 9, 5, 5)
