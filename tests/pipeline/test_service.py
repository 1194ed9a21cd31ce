"""What every part works with: the workflow files as they are at this moment, whatever else lies in their folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.service import Service
from tests.pipeline.bodies import boxes, callback, take


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workflows"


def test_what_an_editor_leaves_beside_a_workflow_keeps_no_callback_out(
    open_service: Callable[..., Service], folder: Path
) -> None:
    """Emacs marks a file that is being edited with a link to nothing."""
    (folder / "w.yaml").write_text(
        "workflow: w\nsteps: {s: {after: {type: imageannotation}, create: {type: annotation, params: {}}}}"
    )
    (folder / ".#w.yaml").symlink_to("somebody@laptop.1234:1700000000")
    here = open_service()
    assert take(here, callback(boxes("car"))).status == "processed"
    assert [one.path for one in (*here.workflows.loaded, *here.workflows.invalid)] == [str(folder / "w.yaml")]


def test_a_folder_that_is_gone_keeps_no_callback_out(
    open_service: Callable[..., Service], folder: Path
) -> None:
    here = open_service()
    folder.rmdir()
    folder.write_text("no folder any more")
    assert take(here, callback(boxes("car"))).status == "processed"
    assert [broken.path for broken in here.workflows.invalid] == [str(folder)]
