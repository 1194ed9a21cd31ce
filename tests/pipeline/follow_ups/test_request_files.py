"""The files of a request: cut, copied and written before it is sent, and read by Scale at an address that expires."""

import io
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from pipeline.follow_ups import views
from pipeline.follow_ups.request_files import RequestFileError, crop_image
from tests.factories.pictures import BOX, QUESTION, Pictures, path_of, picture, sent, step
from tests.factories.pipelines import Pipeline


def test_scale_gets_the_cut_around_an_annotation_at_an_address_that_works(
    chain: Pipeline, pictures: Pictures, web: FlaskClient
) -> None:
    chain.workflow({"each": step(for_each="annotation", crop={"padding": 5})})
    chain.receive({"annotations": [BOX]}, params={"attachment": pictures.url})
    (request,) = sent(chain)
    answer = web.get(path_of(request["attachment"]))
    assert (answer.status_code, answer.mimetype) == (200, "image/png")
    cut = Image.open(io.BytesIO(answer.data))
    assert cut.size == (50, 30)
    assert cut.getpixel((0, 0)) == (15, 5, 0)


def test_twenty_cuts_of_one_image_fetch_it_once(chain: Pipeline, pictures: Pictures) -> None:
    chain.workflow({"each": step(for_each="annotation", crop={"padding": 0})})
    boxes = [{**BOX, "uuid": f"b{n}", "left": n} for n in range(20)]
    chain.receive({"annotations": boxes}, params={"attachment": pictures.url})
    assert len(sent(chain)) == 20
    assert len(pictures.peer.requests) == 1


def test_results_on_a_cut_are_seen_in_coordinates_of_the_image(chain: Pipeline, pictures: Pictures) -> None:
    params = {"instruction": "Draw", "geometries": {"box": {"objects_to_annotate": ["wheel"]}}}
    wheels = step(
        for_each="annotation",
        crop={"padding": 5},
        create={"type": "imageannotation", "params": params},
    )
    check = {
        "after": {"step": "wheels"},
        "for_each": "uncropped",
        "create": {
            "type": "categorization",
            "params": {
                **QUESTION,
                "attachment_type": "text",
                "attachment": "${{ item.left }}/${{ item.top }}",
            },
        },
    }
    chain.workflow({"wheels": wheels, "check": check})
    chain.receive({"annotations": [BOX]}, params={"attachment": pictures.url})
    (child,) = chain.children("wheels")
    wheel = {"type": "box", "label": "wheel", "uuid": "w1", "left": 1, "top": 2, "width": 3, "height": 4}
    chain.finish(child, {"annotations": [wheel]})
    assert sent(chain)[-1]["attachment"] == "16/7"


def test_an_attachment_is_mirrored_before_its_own_address_expires(
    chain: Pipeline, pictures: Pictures, web: FlaskClient
) -> None:
    chain.workflow({"again": step(mirror="attachment")})
    chain.receive({"annotations": [BOX]}, params={"attachment": pictures.url})
    pictures.served.clear()
    (request,) = sent(chain)
    answer = web.get(path_of(request["attachment"]))
    assert answer.data == picture()
    assert web.get(path_of(request["attachment"]), headers={"Range": "bytes=0-3"}).data == b"\x89PNG"


def test_an_image_on_a_host_that_nobody_named_fails_with_the_reason(chain: Pipeline) -> None:
    chain.workflow({"each": step(for_each="annotation", crop={"padding": 0})})
    chain.receive({"annotations": [BOX]}, params={"attachment": "http://127.0.0.1:1/secret.png"})
    (row,) = chain.follow_ups().values()
    assert row["state"] == "failed"
    assert "127.0.0.1:1 is not among the hosts" in row["reason"]
    assert sent(chain) == []


def test_an_image_that_is_not_there_yet_is_requested_again(chain: Pipeline, pictures: Pictures) -> None:
    chain.workflow({"again": step(mirror="attachment")})
    there = pictures.served.pop("/street.png")
    chain.receive({"annotations": [BOX]}, params={"attachment": pictures.url})
    (job,) = chain.jobs()
    assert "answered 404" in job["last_error"]
    pictures.served["/street.png"] = there
    chain.skip_waiting()
    assert len(sent(chain)) == 1


def test_an_annotation_outside_of_its_image_fails_with_the_reason(
    chain: Pipeline, pictures: Pictures
) -> None:
    chain.workflow({"each": step(for_each="annotation", crop={"padding": 0})})
    chain.receive({"annotations": [{**BOX, "left": 500}]}, params={"attachment": pictures.url})
    (row,) = chain.follow_ups().values()
    assert (row["state"], row["reason"]) == (
        "failed",
        "a file of its request cannot be built: the annotation lies outside the image, which has 100 × 50 pixels",
    )


def test_a_video_gives_its_layers_as_a_file_of_frames(
    chain: Pipeline, pictures: Pictures, web: FlaskClient
) -> None:
    frames = [
        {"annotations": [{**BOX, "uuid": "t1"}]},
        {"annotations": []},
        {"annotations": [{**BOX, "uuid": "t1", "left": 30}, {**BOX, "uuid": "t2", "label": "van"}]},
    ]
    pictures.served["/result.json"] = json.dumps(frames).encode()
    chain = Pipeline(renamed(chain, artifact_hosts=(pictures.host,)), chain.sandbox, chain.folder)
    images = [f"https://images.example/{n}.png" for n in range(4)]
    video = {
        "instruction": "Look",
        "attachment_type": "image",
        "attachments": "${{ task.params.attachments }}",
        "geometries": {"box": {"objects_to_annotate": ["car"]}},
        "layers": "${{ layers }}",
    }
    chain.workflow(
        {
            "pass": {
                "after": {"type": "videoannotation"},
                "create": {"type": "videoannotation", "params": video},
            }
        }
    )
    chain.receive(
        {"annotations": {"url": f"{pictures.peer.url}/result.json"}},
        type="videoannotation",
        params={"attachment_type": "image", "attachments": images},
    )
    (request,) = sent(chain)
    answer = web.get(path_of(request["layers"]["url"]))
    assert answer.mimetype == "application/json"
    said = [[(box["uuid"], box["left"]) for box in frame.get("boxes", [])] for frame in answer.json]
    assert said == [[("t1", 20)], [], [("t1", 30), ("t2", 20)], []]


def test_the_files_of_a_hypothesis_are_passed_on_from_our_own_store(
    chain: Pipeline, pictures: Pictures, web: FlaskClient
) -> None:
    pictures.served["/result.json"] = json.dumps([{"annotations": [BOX]}]).encode()
    chain = Pipeline(renamed(chain, artifact_hosts=(pictures.host,)), chain.sandbox, chain.folder)
    video = {
        "instruction": "Once more",
        "attachment_type": "image",
        "attachments": "${{ task.params.attachments }}",
        "geometries": {"box": {"objects_to_annotate": ["car"]}},
        "hypothesis": "${{ hypothesis }}",
    }
    again = {"after": {"type": "videoannotation"}, "mirror": "hypothesis"}
    chain.workflow({"again": {**again, "create": {"type": "videoannotation", "params": video}}})
    chain.receive(
        {"annotations": {"url": f"{pictures.peer.url}/result.json"}},
        type="videoannotation",
        params={"attachment_type": "image", "attachments": ["https://images.example/0.png"]},
    )
    (request,) = sent(chain)
    assert (
        web.get(path_of(request["hypothesis"]["annotations"]["url"])).data == pictures.served["/result.json"]
    )
    assert len(pictures.peer.requests) == 1


def test_annotations_of_files_are_read_only_where_a_workflow_uses_them(
    chain: Pipeline, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    reads = views.annotations_of_files
    monkeypatch.setattr(views, "annotations_of_files", lambda *given: read.append(given) or reads(*given))
    pictures.served["/result.json"] = json.dumps([{"annotations": [BOX, {**BOX, "uuid": "b2"}]}]).encode()
    chain = Pipeline(renamed(chain, artifact_hosts=(pictures.host,)), chain.sandbox, chain.folder)
    question = {**QUESTION, "attachment_type": "text", "attachment": "${{ task.task_id }}"}
    ask = {"after": {"type": "videoannotation"}, "create": {"type": "categorization", "params": question}}
    chain.workflow({"ask": {**ask, "when": "response.annotations.url"}}, "blind")
    video = {"type": "videoannotation", "params": {"attachments": ["https://images.example/0.png"]}}
    chain.receive({"annotations": {"url": f"{pictures.peer.url}/result.json"}}, **video)
    assert (list(chain.states().values()), read) == (["created"], [])
    chain.workflow({"ask": {**ask, "when": "length(annotations) == `2`"}}, "seeing")
    chain.receive({"annotations": {"url": f"{pictures.peer.url}/result.json"}}, **video, tags=["again"])
    assert (list(chain.states().values()), len(read)) == (["created", "created"], 1)


def renamed(chain: Pipeline, **settings: Any) -> Any:
    from dataclasses import replace

    from pipeline.bootstrap import build_service

    return build_service(
        replace(chain.service.settings, **settings), engine=chain.service.engine, cache_seconds=0
    )


def test_a_jpeg_stays_a_jpeg_and_anything_else_becomes_a_png() -> None:
    for form, kind in (
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/png"),
        ("GIF", "image/png"),
    ):
        cut, media_type = crop_image(io.BytesIO(picture(form)), (10, 10, 30, 20))
        assert media_type == kind
        assert Image.open(io.BytesIO(cut)).size == (20, 10)


@pytest.mark.parametrize(("form", "mode"), [("PNG", "L"), ("PNG", "1"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "I;16"),
                                            ("JPEG", "L"), ("JPEG", "CMYK"), ("TIFF", "RGB")])  # fmt: skip
def test_every_kind_of_image_can_be_cut(form: str, mode: str) -> None:
    source = picture(form, mode=mode) if mode != "I;16" else sixteen_bits()
    cut, _ = crop_image(io.BytesIO(source), (0, 0, 10, 10))
    assert Image.open(io.BytesIO(cut)).size == (10, 10)


def sixteen_bits() -> bytes:
    written = io.BytesIO()
    Image.new("I;16", (20, 20), 40_000).save(written, "PNG")
    return written.getvalue()


def test_coordinates_are_those_of_the_image_as_people_see_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter when it is shown: 50 wide and 100 high
    cut, _ = crop_image(io.BytesIO(picture("JPEG", exif=exif, quality=95)), (0, 60, 50, 100))
    assert Image.open(io.BytesIO(cut)).size == (50, 40)


def test_the_cut_ends_where_the_image_ends() -> None:
    cut, _ = crop_image(io.BytesIO(picture()), (90, 40, 200, 200))
    assert Image.open(io.BytesIO(cut)).size == (10, 10)


def test_a_bomb_and_what_is_no_image_are_refused_before_they_are_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.follow_ups import request_files

    monkeypatch.setattr(request_files, "MAX_PIXELS", 1000)
    with pytest.raises(RequestFileError, match="100 × 50 pixels"):
        crop_image(io.BytesIO(picture()), (0, 0, 10, 10))
    monkeypatch.undo()
    header = bytearray(picture())
    header[16:24] = (100_000).to_bytes(4) * 2
    with pytest.raises(RequestFileError):
        crop_image(io.BytesIO(bytes(header)), (0, 0, 10, 10))
    for content in (b"", b"<svg/>", picture()[:100]):
        with pytest.raises(RequestFileError):
            crop_image(io.BytesIO(content), (0, 0, 10, 10))
