"""What every part works with: the workflow files as they are at this moment, whatever else lies in their folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.service import Service
from tests.factories.callbacks import boxes, callback, receive_callback


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
    service = open_service()
    assert receive_callback(service, callback(boxes("car"))).status == "processed"
    assert [one.path for one in (*service.workflows.loaded, *service.workflows.invalid)] == [
        str(folder / "w.yaml")
    ]


def test_a_folder_that_is_gone_keeps_no_callback_out(
    open_service: Callable[..., Service], folder: Path
) -> None:
    service = open_service()
    folder.rmdir()
    folder.write_text("no folder any more")
    assert receive_callback(service, callback(boxes("car"))).status == "processed"
    assert [broken.path for broken in service.workflows.invalid] == [str(folder)]
