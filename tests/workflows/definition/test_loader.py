import hashlib
from pathlib import Path

import pytest

from tests.workflows.kit import REQUEST, errors, errors_of, step, workflow, written
from workflows.definition.loader import load, load_file
from workflows.definition.model import InvalidWorkflow, Workflow, Workflows, has_workflow_for

GOOD = written({"boxes": step()})


def test_a_workflow_knows_its_file_and_the_digest_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (found,) = load(tmp_path).loaded
    assert (found.name, found.path) == ("w", str(tmp_path / "a.yaml"))
    assert found.digest == hashlib.sha256(GOOD.encode()).hexdigest()


def test_an_invalid_file_is_not_loaded_and_the_others_are(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "workflow: a\nsteps:\n  x:\n    after: {type: annotation}\n    create: {}\n"
    )
    (tmp_path / "b.yml").write_text(GOOD)
    (tmp_path / "notes.txt").write_text("not a workflow")
    found = load(tmp_path)
    assert [one.name for one in found.loaded] == ["w"]
    (broken,) = found.invalid
    assert broken.name == "a"
    assert str(broken.errors[0]) == f"{tmp_path}/a.yaml:5: steps.x.create.params: is required"


def test_all_errors_of_a_file_are_reported_at_once_with_line_and_field(tmp_path: Path) -> None:
    text = """\
workflow: Street Scenes
steps:
  boxes:
    on: {type: polygonannotation}
    after: {typ: polygonannotation, state: approved}
    when: length(annotations) > 0
    for_each: annotation
    copies: many
    create:
      type: annotation
      params:
        attachment: ${{ laers }}
        callback_url: https://here.example/
        objects_to_annotate: [a, b, c, d, e, f, g]
"""
    (tmp_path / "a.yaml").write_text(text)
    (broken,) = load(tmp_path).invalid
    assert [(problem.line, problem.field) for problem in broken.errors] == [
        (1, "workflow"),
        (4, "steps.boxes.on"),
        (5, "steps.boxes.after.state"),
        (5, "steps.boxes.after.typ"),
        (6, "steps.boxes.when"),
        (8, "steps.boxes.copies"),
        (12, "steps.boxes.create.params.attachment"),
        (13, "steps.boxes.create.params.callback_url"),
        (14, "steps.boxes.create.params.objects_to_annotate"),
    ]


def test_on_instead_of_after_is_answered_with_the_right_word() -> None:
    text = (
        "workflow: w\nsteps:\n  x:\n    on: {type: annotation}\n    create: {type: annotation, params: {}}\n"
    )
    assert "is called `after` here" in errors_of(text)["steps.x.on"]


def test_an_unknown_key_is_reported_with_the_nearest_known_one() -> None:
    assert "did you mean `for_each`?" in errors({"x": step(foreach="annotation")})["steps.x.foreach"]


def test_two_files_can_not_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)
    found = load(tmp_path)
    assert [one.path for one in found.loaded] == [str(tmp_path / "a.yaml")]
    assert "is taken by" in found.invalid[0].errors[0].message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a",
        b"\xff\xfe",
        b"a: [",
        b"workflow: w",
        b"workflow: w\nsteps: {}",
        b"workflow: w\nsteps: []",
        b"x" * (1024 * 1024 + 1),
    ],
)
def test_a_file_that_is_no_workflow_is_broken_and_nothing_is_raised(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    assert isinstance(load_file(tmp_path / "a.yaml"), InvalidWorkflow)


def test_a_missing_folder_is_a_broken_one(tmp_path: Path) -> None:
    assert "is not a folder" in load(tmp_path / "missing").invalid[0].errors[0].message
    assert load(tmp_path) == Workflows()


@pytest.mark.parametrize("name", ["Boxes", "a.b", "a_b", "", "ä", "a b"])
def test_a_name_that_could_not_stand_in_a_unique_id_is_refused(name: str) -> None:
    assert "expected a name of a-z, 0-9 and -" in errors({"x": step()}, workflow=name)["workflow"]
    assert "expected a name of a-z, 0-9 and -" in "".join(errors({name: step()}).values())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("when", True, "expected a JMESPath expression"),
        ("when", None, "has no value"),
        ("for_each", 3, "expected annotation, label, frame or a JMESPath expression"),
        ("sample", "0%", "expected a fraction"),
        ("sample", 5, "expected a fraction"),
        ("copies", 0, "expected a whole number from 1 to 100"),
        ("join", {"within": "999999999d"}, "expected at most ten years"),
        ("copies", "3", "expected a whole number"),
        ("copies", True, "expected a whole number"),
        ("repeat", "always", "expected each_response"),
        ("hold", "yes", "expected true or false"),
        ("dry_run", 1, "expected true or false"),
        ("limits", {"per_day": 0}, "a whole number from 1 to 2,147,483,647"),
        ("limits", {"total": 10**29}, "a whole number from 1 to 2,147,483,647"),
        ("limits", 5, "expected a mapping"),
        ("on_recall", "stop", "expected keep or cancel"),
        ("on_error", "retry", "expected stop, {retry: 2, …} or {start: step}"),
        ("on_error", {"retry": 0}, "expected a whole number from 1 to 10"),
        ("on_error", {}, "expected either `retry` or `start`"),
        ("on_error", {"retry": 1, "start": "x"}, "expected either `retry` or `start`"),
        ("mirror", [], "expected text or a list of texts"),
        ("after", {}, "matches every task"),
        ("after", {"state": "completed"}, "matches every task"),
        ("after", {"type": 3}, "expected text or a list of texts"),
        ("after", {"type": "annotation", "environment": "prod"}, "expected live or test"),
        ("after", "annotation", "expected a mapping"),
        ("create", {"type": "annotation", "params": "x"}, "expected a mapping: the body of the request"),
        ("python", "handlers.function", "expected module:function"),
    ],
)
def test_a_value_of_the_wrong_form_says_what_was_expected(key: str, value: object, said: str) -> None:
    found = errors({"x": step(**{key: value})})
    assert any(said in message for field, message in found.items() if field.startswith(f"steps.x.{key}")), (
        found
    )


@pytest.mark.parametrize(
    ("written_share", "share"),
    [("5%", 0.05), ("2.5 %", 0.025), (0.5, 0.5), ("1 in 20", 0.05), (1, 1.0), ("100%", 1.0)],
)
def test_a_share_can_be_written_in_several_ways(written_share: object, share: float) -> None:
    assert workflow({"x": step(sample=written_share)}).steps[0].sample == pytest.approx(share)


def test_the_types_that_any_step_could_look_at_are_known() -> None:
    loaded = workflow(
        {
            "a": step(after={"type": ["polygonannotation", "annotation"]}),
            "b": step(
                after={"step": "a"},
                create={"type": "cuboidannotation", "params": REQUEST},
                on_error={"retry": 1},
            ),
        }
    )
    workflows = Workflows((loaded,))
    assert workflows.types == {"polygonannotation", "annotation", "cuboidannotation"}
    assert has_workflow_for(workflows, "annotation")
    assert not has_workflow_for(workflows, "categorization")
    assert has_workflow_for(workflows, None)


def test_any_type_could_be_looked_at_when_a_step_names_none_or_a_file_is_broken() -> None:
    assert has_workflow_for(Workflows((workflow({"a": step(after={"project": "p"})}),)), "anything")
    assert has_workflow_for(Workflows((), (InvalidWorkflow("a.yaml", None, ()),)), "anything")
    assert not has_workflow_for(Workflows(), "anything")


def test_only_a_workflow_that_names_a_parent_needs_one() -> None:
    asking = {**REQUEST, "metadata": {"of": "${{ parent.task.task_id }}"}}
    assert not Workflows((workflow({"a": step()}),)).needs_parents
    assert Workflows((workflow({"a": step(create={"type": "annotation", "params": asking})}),)).needs_parents


def test_the_shipped_workflow_and_every_example_load() -> None:
    root = Path(__file__).parents[3]
    for folder, most in (("config/demonstration", 1), ("examples", 5)):
        found = load(root / folder)
        assert not found.invalid, [str(problem) for broken in found.invalid for problem in broken.errors]
        assert len(found.loaded) >= most
        assert all(isinstance(one, Workflow) and not one.warnings for one in found.loaded)
