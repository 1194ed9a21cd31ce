from tests.workflows.kit import REQUEST, TASK_ID, made_by, request_of, seen, step, workflow
from workflows.definition.model import Workflow
from workflows.planning.plan import PlannedFollowUp, plan
from workflows.planning.view import View

ERROR = {
    "error": "could not be downloaded",
    "attachments": [{"statusCode": 403, "url": "https://images.example/a.png"}],
}


FIRST = f"w.ask.{TASK_ID}.u.1"


def failed(attempt: int = 1) -> View:
    unique_id, first = (FIRST, None) if attempt == 1 else (f"{FIRST}.retry-{attempt - 1}", FIRST)
    source = made_by(
        "ask",
        unique_id,
        annotation="u",
        response="d",
        request=REQUEST,
        first_unique_id=first,
        attempt=attempt,
    )
    return seen(
        "annotation",
        ERROR,
        task={"status": "error", "metadata": {"backup": "b.png"}},
        task_id="child",
        source=source,
        depth=1,
    )


def asking(on_error: object) -> Workflow:
    return workflow({"ask": step(on_error=on_error)})


def one(found: list[PlannedFollowUp]) -> PlannedFollowUp:
    assert len(found) == 1, found
    return found[0]


def test_a_failed_task_is_asked_again_as_a_follow_up_of_the_same_source() -> None:
    follow_up = one(plan(failed(), asking({"retry": 2})))
    assert follow_up.unique_id == f"w.ask.{TASK_ID}.u.1.retry-1"
    assert (follow_up.source_task_id, follow_up.source_annotation, follow_up.source_response) == (
        TASK_ID,
        "u",
        "d",
    )
    assert (follow_up.request, follow_up.task_type, follow_up.depth) == (REQUEST, "annotation", 1)
    assert (follow_up.state, follow_up.reason) == ("planned", "retry 1 of 2")


def test_retries_end() -> None:
    second = one(plan(failed(attempt=2), asking({"retry": 2})))
    assert (second.unique_id, second.attempt, second.first_unique_id) == (f"{FIRST}.retry-2", 3, FIRST)
    assert plan(failed(attempt=3), asking({"retry": 2})) == []


def test_a_retry_can_change_the_request_and_mirror_its_file() -> None:
    changed = {
        "retry": 1,
        "params": {"attachment": "${{ task.metadata.backup }}", "priority": 30},
        "mirror": "attachment",
    }
    follow_up = one(plan(failed(), asking(changed)))
    assert request_of(follow_up) == {
        **REQUEST,
        "priority": 30,
        "attachment": {"$file": {"make": "mirror", "of": "b.png"}},
    }


def test_a_retry_that_could_not_be_sent_is_skipped_and_says_why() -> None:
    follow_up = one(
        plan(failed(), asking({"retry": 1, "params": {"instruction": "see ${{ task.missing }}"}}))
    )
    assert (follow_up.state, follow_up.reason) == (
        "skipped",
        "on_error: `task.missing` is null inside a text",
    )


def test_a_held_step_holds_its_retries_too() -> None:
    assert one(plan(failed(), workflow({"ask": step(on_error={"retry": 1}, hold=True)}))).state == "held"


def test_an_error_is_left_alone_unless_the_step_says_otherwise() -> None:
    assert plan(failed(), workflow({"ask": step()})) == []
    assert plan(failed(), asking("stop")) == []


def test_a_completed_task_is_not_retried() -> None:
    fine = seen("annotation", {"annotations": []}, task_id="child", source=made_by("ask", request=REQUEST))
    assert plan(fine, asking({"retry": 2})) == []


def test_an_error_can_start_another_step() -> None:
    loaded = workflow(
        {"ask": step(on_error={"start": "elsewhere"}), "elsewhere": {"create": step()["create"]}}
    )
    follow_up = one(plan(failed(), loaded))
    assert (follow_up.unique_id, follow_up.source_task_id) == ("w.elsewhere.child", "child")
    assert one(plan(seen(), loaded)).step == "ask"  # a result from outside does not start it
    later = seen("annotation", ERROR, task_id="later", source=made_by("elsewhere"))
    assert plan(later, loaded) == []


def test_a_step_that_an_error_starts_can_also_look_for_itself() -> None:
    steps = {
        "ask": step(on_error={"start": "both"}),
        "both": step(after={"type": "cuboidannotation"}, when="error || annotations"),
    }
    assert one(plan(failed(), workflow(steps))).step == "both"
    cuboid = {"annotations": [{"vertices": [{"x": 1, "y": 1}]}]}
    assert one(plan(seen("cuboidannotation", cuboid), workflow(steps))).step == "both"
