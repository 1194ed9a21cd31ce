from tests.workflows.kit import REQUEST, TASK_ID, errors, made_by, seen, step, workflow
from workflows.definition.model import Workflow
from workflows.planning.plan import plan
from workflows.planning.view import View

FIRST = f"w.ask.{TASK_ID}"
AGAIN = {
    "retry": 2,
    "params": {"instruction": "Attempt ${{ attempt }}: ${{ join('; ', previous.review.comments) }}"},
}


def attempt(number: int, *comments: str, previous: View | None = None, **task: object) -> View:
    unique_id = FIRST if number == 1 else f"{FIRST}.retry-{number - 1}"
    source = made_by(
        "ask", unique_id, request=REQUEST, attempt=number, first_unique_id=None if number == 1 else FIRST
    )
    reviewed = {"customer_review_status": "rejected", "customer_review_comments": [*comments, "", None]}
    return seen(
        "annotation",
        {"annotations": []},
        task={**reviewed, **task},
        task_id=f"child-{number}",
        source=source,
        previous=previous,
        depth=1,
    )


def asking(**keys: object) -> Workflow:
    return workflow({"ask": step(on_rejected=AGAIN, **keys)})


def test_a_rejected_task_is_sent_again_with_the_comments_as_often_as_the_step_says() -> None:
    first = attempt(1, "Too large", "One is missing")
    (retry,) = plan(first, asking())
    assert (retry.unique_id, retry.attempt, retry.reason) == (f"{FIRST}.retry-1", 2, "retry 1 of 2")
    assert retry.source_task_id == TASK_ID
    assert retry.request == {**REQUEST, "instruction": "Attempt 2: Too large; One is missing"}
    second = attempt(2, previous=first)
    assert [one.request["instruction"] for one in plan(second, asking())] == ["Attempt 3: "]
    assert plan(attempt(3, previous=second), asking()) == []


def test_an_accepted_task_is_not_sent_again() -> None:
    assert plan(attempt(1, customer_review_status="accepted"), asking()) == []


def test_errors_and_rejections_count_apart() -> None:
    both = asking(on_error={"retry": 1})
    failed = seen("annotation", {"error": "gone"}, source=attempt(1).source, task_id="child-1")
    (retry,) = plan(failed, both)
    assert retry.reason == "retry 1 of 1"
    second = attempt(2, previous=failed)
    (retry,) = plan(second, both)
    assert retry.reason == "retry 1 of 2"
    third = attempt(3, previous=second)
    assert [one.attempt for one in plan(third, both)] == [4]
    assert plan(attempt(4, previous=third), both) == []


def test_a_request_sees_every_earlier_attempt() -> None:
    params = {"metadata": {"first": "${{ previous.previous.review.comments[0] }}"}}
    loaded = workflow({"ask": step(on_rejected={"retry": 3, "params": params})})
    (retry,) = plan(attempt(2, "b", previous=attempt(1, "a")), loaded)
    assert retry.request["metadata"] == {"first": "a"}


def test_the_review_can_be_used_in_every_expression() -> None:
    loaded = workflow(
        {"next": step(after={"type": "annotation"}, when="review.status == 'rejected' && review.comments")}
    )
    outside = {"customer_review_status": "rejected", "customer_review_comments": ["a"]}
    assert plan(seen("annotation", {"annotations": []}, task=outside), loaded)
    assert not plan(seen("annotation", {"annotations": []}), loaded)


def test_a_mistake_is_reported() -> None:
    assert errors({"ask": step(on_rejected={"retries": 2})}).keys() == {
        "steps.ask.on_rejected.retries",
        "steps.ask.on_rejected",
    }
    named = errors({"ask": step(when="previous.answer")})
    assert "only in the `params` of `on_error` and `on_rejected`" in named["steps.ask.when"]
