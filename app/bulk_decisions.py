"""Decide about many follow-ups, for the API, the commands and the console: in transactions of a bounded size.

Planning again is not a decision alone, because it has a preview: see `preview_replan` and `replan_many`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import Connection

from app.extensions import service
from pipeline.follow_ups import decisions, replan
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.follow_ups.prices import Cost, cost_of_follow_ups
from pipeline.follow_ups.recording import count_approved
from pipeline.operations.queries import NotFound
from pipeline.operations.queries.follow_ups import count_by_state, get_follow_up, matching_unique_ids

BATCH_SIZE = 500
"""Decisions in one transaction."""

Decide = Callable[[Connection, str, str], list[UUID]]


def approve(connection: Connection, unique_id: str, actor: str) -> list[UUID]:
    """Approve one follow-up. Limits do not hold it again, but they count it."""
    job_ids = decisions.approve(connection, unique_id, actor)
    count_approved(connection, service(), unique_id)
    return job_ids


class Decision(NamedTuple):
    """A decision, and the states of the follow-ups that it selects by filters."""

    decide: Decide
    states: tuple[str, ...]
    past: str


DECISIONS: Mapping[str, Decision] = {
    "approve": Decision(approve, ("held",), "Approved"),
    "cancel": Decision(decisions.cancel, ("held", "planned", "created"), "Canceled"),
    "retry": Decision(decisions.retry, ("failed",), "Retried"),
}


def select_follow_ups(
    name: str, filters: Mapping[str, Any], *, limit: int | None = None, sample: int | None = None
) -> Sequence[str]:
    """Return the unique_ids that the decision `name` selects: the oldest `limit`, or a random `sample`."""
    with service().reader.begin() as connection:
        return matching_unique_ids(connection, filters, DECISIONS[name].states, limit=limit, sample=sample)


def cost_of(unique_ids: Sequence[str]) -> Cost:
    """Return the expected cost of follow-ups that are not created yet."""
    with service().reader.begin() as connection:
        return cost_of_follow_ups(connection, service().prices, unique_ids)


def states_of(unique_ids: Sequence[str]) -> dict[str, int]:
    """Return state → number of these follow-ups; `created` ones are tasks at Scale."""
    with service().reader.begin() as connection:
        return count_by_state(connection, unique_ids)


def select_to_replan(
    filters: Mapping[str, Any],
    states: Sequence[str],
    *,
    limit: int | None = None,
    sample: int | None = None,
) -> Sequence[str]:
    """Return the unique_ids of the follow-ups in these states that match: the oldest `limit`, or a random `sample`."""
    with service().reader.begin() as connection:
        return matching_unique_ids(connection, filters, states, limit=limit, sample=sample)


def preview_replan(unique_ids: Sequence[str]) -> tuple[list[dict[str, Any]], Cost]:
    """Return what each follow-up would become if it were planned again (see replan.describe), and the cost of all."""
    previews = list(replan.preview(service(), unique_ids))
    return [replan.describe(service(), one) for one in previews], replan.cost_of(service(), previews)


def replan_many(
    unique_ids: Sequence[str], actor: str, dispatch: Callable[[Sequence[UUID]], None]
) -> list[dict[str, Any]]:
    """Plan the follow-ups again. Return what became of each: see replan.describe."""
    done: list[dict[str, Any]] = []
    for one, job_ids in replan.replan(service(), unique_ids, actor):
        done.append(replan.describe(service(), one))
        dispatch(job_ids)
    return done


def decide_many(
    name: str, unique_ids: Sequence[str], actor: str, dispatch: Callable[[Sequence[UUID]], None]
) -> tuple[list[str], dict[str, Exception]]:
    """Return the unique_ids that were decided about, and the error of each other one: NotFound or InvalidTransition."""
    decided: list[str] = []
    errors: dict[str, Exception] = {}
    for batch in chunked(unique_ids, BATCH_SIZE):
        job_ids: list[UUID] = []
        with service().engine.begin() as connection:
            for unique_id in batch:
                try:
                    get_follow_up(connection, unique_id)
                    job_ids += DECISIONS[name].decide(connection, unique_id, actor)
                    decided.append(unique_id)
                except (NotFound, InvalidTransition) as error:
                    errors[unique_id] = error
        dispatch(job_ids)
    return decided, errors
