"""Workflow files are loaded outside of the path of a callback, and again when they change."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import workflow_files
from pipeline.service import Service
from pipeline.workflow_files import WorkflowFiles
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.servers import wait_until
from tests.workflows.kit import step, written
from workflows.definition.model import Workflows


def names(found: Workflows) -> list[str]:
    return [workflow.name for workflow in found.loaded]


def test_a_changed_file_is_loaded_by_a_thread(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(written({"x": step()}, workflow="a"))
    files = WorkflowFiles([tmp_path], cache_seconds=0.01)
    assert names(files.read()) == ["a"]
    (tmp_path / "b.yaml").write_text(written({"x": step()}, workflow="b"))
    wait_until(lambda: names(files.read()) == ["a", "b"], what="both files")


def test_while_files_are_loaded_the_last_workflows_are_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text(written({"x": step()}, workflow="a"))
    files = WorkflowFiles([tmp_path], cache_seconds=0.01)
    assert names(files.read()) == ["a"]
    released, load = threading.Event(), workflow_files.load

    def slow(*folders: Path, **options: object) -> Workflows:
        released.wait()
        return load(*folders, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(workflow_files, "load", slow)
    (tmp_path / "b.yaml").write_text(written({"x": step()}, workflow="b"))
    for _ in range(100):
        assert names(files.read()) == ["a"]
    released.set()
    wait_until(lambda: names(files.read()) == ["a", "b"], what="both files")


def test_before_the_first_load_has_finished_every_result_counts_as_one_that_a_workflow_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(workflow_files, "FIRST_LOAD_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(workflow_files, "load", lambda *folders, **options: released.wait() and Workflows())
    files = WorkflowFiles([tmp_path])
    found = files.read()
    assert found.types is None
    assert "are still being loaded" in str(found.invalid[0].errors[0])
    released.set()
    wait_until(lambda: files.read().types == frozenset(), what="the loaded workflows")


def test_a_copy_with_the_same_name_does_not_displace_the_workflow_that_runs(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(written({"x": step()}, workflow="w"))
    files = WorkflowFiles([tmp_path], cache_seconds=0)
    assert [one.path for one in files.read().loaded] == [str(tmp_path / "w.yaml")]
    (tmp_path / "a-copy.yaml").write_text(written({"y": step()}, workflow="w"))
    found = files.read()
    assert [one.path for one in found.loaded] == [str(tmp_path / "w.yaml")]
    (displaced,) = found.invalid
    assert displaced.path == str(tmp_path / "a-copy.yaml")
    assert f"is taken by {tmp_path / 'w.yaml'}" in displaced.errors[0].message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workflows"


def test_what_an_editor_leaves_in_the_folder_keeps_no_callback_out(
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
