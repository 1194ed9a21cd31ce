"""Files of a request: recipes are objects while planning, and are stored next to the request by their path."""

import copy
import json
from typing import Any

import pytest

from tests.workflows.kit import made_by, seen
from workflows.definition.crops import Rect
from workflows.definition.expressions import ExpressionError, compile_expression
from workflows.definition.recipes import (
    MAX_FRAMES,
    Cut,
    HypothesisFile,
    LayersFile,
    Mirror,
    OwnUrl,
    Renewal,
    RequestFile,
    crop_of,
    displayed,
    from_json,
    hypothesis_file,
    join_files,
    layers_file,
    mirrored,
    replace_at,
    split_files,
    to_json,
)

BOX = {"type": "box", "left": 100, "top": 50, "width": 20, "height": 10}
TRIANGLE = {"type": "polygon", "vertices": [{"x": 0, "y": 0}, {"x": 9, "y": 0}, {"x": 0, "y": 9}]}
CUT = Cut(Mirror("a.png"), Rect(100, 50, 64, 64))
RECIPES = [
    CUT,
    Mirror("b.png", CUT),
    LayersFile("1", "d"),
    LayersFile("1", None, ("car",)),
    HypothesisFile("1", "d", 10, True),
    Renewal("https://here.example/files/x", LayersFile("1", "d")),
]


def test_the_files_of_a_request_are_split_off_with_their_paths_and_put_back() -> None:
    request = {"attachment": CUT, "attachments": ["b", Mirror("c")], "layers": {"url": LayersFile("1", "d")}}
    plain, files = split_files(request)
    assert plain == {"attachment": None, "attachments": ["b", None], "layers": {"url": None}}
    assert [file.path for file in files] == [("attachment",), ("attachments", 1), ("layers", "url")]
    assert json.loads(json.dumps(plain)) == plain
    assert join_files(plain, files) == request
    assert displayed(plain, files)["attachments"][1] == {"$file": {"make": "mirror", "of": "c"}}
    urls = replace_at(plain, [(file.path, f"https://here.example/{n}") for n, file in enumerate(files)])
    assert urls["layers"] == {"url": "https://here.example/2"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_stored_recipe_is_read_back_as_the_same(recipe: Any) -> None:
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe
    file = RequestFile(("attachment", 1), recipe)
    assert RequestFile.from_json(json.loads(json.dumps(file.to_json()))) == file


@pytest.mark.parametrize(
    "value",
    [
        {"$file": {"make": "mirror", "of": "http://10.0.0.1/"}},
        {"make": "mirror", "of": "http://10.0.0.1/"},
        {"path": ["attachment"], "recipe": {"make": "mirror", "of": "http://10.0.0.1/"}},
        [{"$file": 5}, {"$file": {"make": ["x"]}}, {"$file": {}}],
        {"recipe": {"url": "x", "original": {"make": "layers"}}},
    ],
    ids=str,
)
def test_data_in_the_form_of_a_recipe_stays_data(value: Any) -> None:
    request = {"attachment": value, "metadata": {"inner": [value]}}
    assert split_files(copy.deepcopy(request)) == (request, ())
    assert split_files(mirrored({"metadata": value}, ("attachment",))) == ({"metadata": value}, ())


def test_urls_are_mirrored_and_files_that_are_built_here_are_not() -> None:
    fields = ("attachment", "attachments")
    assert mirrored({"attachment": "a", "attachments": ["b"], "text": "c"}, fields) == {
        "attachment": Mirror("a"),
        "attachments": [Mirror("b")],
        "text": "c",
    }
    assert mirrored({"attachment": CUT}, fields) == {"attachment": CUT}
    assert crop_of([RequestFile(("attachment",), CUT)]) == Rect(100, 50, 64, 64)
    assert crop_of([RequestFile(("attachment",), Mirror("a"))]) is None
    assert crop_of([RequestFile(("context", "attachment"), CUT)]) is None


def test_a_url_that_this_service_gave_to_scale_is_renewed_where_it_is_used_again() -> None:
    files = (RequestFile(("attachment",), CUT),)
    source = made_by("x", request={"attachment": None}, files=files)
    params = {"attachment": "https://here.example/files/old", "note": "https://here.example/files/old"}
    child = seen("annotation", {"annotations": []}, source=source, task={"params": params})
    own = child.task["params"]["attachment"]
    assert isinstance(own, OwnUrl)
    assert own == params["attachment"]
    plain, found = split_files({"attachment": own, "metadata": {"note": child.task["params"]["note"]}})
    assert found == (RequestFile(("attachment",), Renewal(str(own), CUT)),)
    assert plain["metadata"] == {"note": params["note"]}
    again = made_by("y", request=plain, files=found)
    (renewed,) = split_files(seen("annotation", {}, source=again, task={"params": params}).task["params"])[1]
    assert renewed.recipe == Renewal(params["attachment"], CUT)


def test_the_result_of_a_cut_is_seen_in_the_coordinates_of_its_image() -> None:
    child = seen(
        "annotation",
        {"annotations": [{"left": 1, "top": 2, "width": 3, "height": 4}]},
        source=made_by("x", request={"attachment": None}, files=(RequestFile(("attachment",), CUT),)),
    )
    assert child.annotations[0]["left"] == 1
    assert (child.uncropped[0]["left"], child.uncropped[0]["top"]) == (101, 52)
    assert seen("annotation", {"annotations": [BOX]}).uncropped[0]["left"] == 100


def test_a_layers_file_has_one_object_for_each_frame_also_the_empty_ones() -> None:
    annotations = [
        {**BOX, "label": "car", "frame": 1},
        {**BOX, "label": "bus", "frame": 4},
        {**TRIANGLE, "label": "car", "frame": 1},
    ]
    content = layers_file(annotations, 3)
    assert [sorted(one) for one in content] == [[], ["boxes", "polygons"], [], [], ["boxes"]]
    assert [sorted(one) for one in layers_file(annotations, 3, ["bus"])] == [[], [], [], [], ["boxes"]]
    assert "frame" not in content[1]["boxes"][0]


def test_a_frame_number_beyond_any_video_is_refused_instead_of_filling_the_memory() -> None:
    assert len(layers_file([{**BOX, "frame": 9_999}], 0)) == 10_000
    with pytest.raises(ValueError, match="at most 1,000,000"):
        layers_file([{**BOX, "frame": MAX_FRAMES}], 0)
    with pytest.raises(ValueError, match="2,147,483,648 frames"):
        layers_file([{**BOX, "frame": 2**31 - 1}], 3)
    assert layers_file([{**BOX, "frame": -1}], 1) == [{}]


def test_a_hypothesis_is_spread_over_more_frames_or_thinned_out() -> None:
    annotations = [{"type": "box", "label": "car", "frame": frame, "left": frame} for frame in (0, 2, 3)]
    drawn = [{"geometry": "box", "label": "car", "left": frame} for frame in range(4)]
    spread = hypothesis_file(annotations, 4, 3, spread=True)
    assert [frame["annotations"] for frame in spread] == [
        [drawn[0]], [], [], [], [], [], [drawn[2]], [], [], [drawn[3]], [], [],
    ]  # fmt: skip
    thin = hypothesis_file(annotations, 4, 2, spread=False)
    assert [frame["annotations"] for frame in thin] == [[drawn[0]], [drawn[2]]]
    with pytest.raises(ValueError, match="at most"):
        hypothesis_file(annotations, 1_000_000, 2, spread=True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("spread(hypothesis, `10`)", "only the hypothesis of a video result"),
        ("thin(hypothesis, `0.5`)", "a whole number of frames"),
    ],
)
def test_only_a_file_of_frames_can_be_spread(source: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        compile_expression(source).evaluate({"hypothesis": {"annotations": []}})
