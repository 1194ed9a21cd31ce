"""Subscribers: who receives events, and what became of each notification."""

from __future__ import annotations

from uuid import UUID

from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.api.blueprint import check_text
from app.console import session
from app.console.frame import blueprint, page, sentence
from app.console.lists import download
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.events import subscriptions
from pipeline.operations.queries import subscribers as queries


@blueprint.get("/subscribers")
def subscribers() -> Response:
    """List subscribers, newest first."""
    with service().reader.begin() as connection:
        found = queries.list_subscribers(connection)
    fields = ("id", "url", "events", *subscriptions.FILTERS, "enabled", "reason", "created_at")
    if (answer := download(fields, found.rows)) is not None:
        return answer
    return page("subscribers.html", "Subscribers", rows=found.rows, filters=subscriptions.FILTERS)


@blueprint.get("/subscribers/<uuid:subscriber_id>")
def subscriber(subscriber_id: UUID) -> Response:
    """Show one subscriber with its notifications."""
    with service().reader.begin() as connection:
        row = queries.get_subscriber(connection, subscriber_id)
        found = queries.list_notifications(
            connection, subscriber_id, {}, limit=50, cursor=request.args.get("cursor") or None
        )
    fields = ("id", "event", "state", "attempts", "created_at", "delivered_at")
    if (answer := download(fields, found.rows)) is not None:
        return answer
    return page(
        "subscriber.html",
        "Subscriber",
        row=row,
        events=subscriptions.EVENTS,
        filters=subscriptions.FILTERS,
        rows=found.rows,
        next_cursor=found.next_cursor,
    )


@blueprint.post("/subscribers/<uuid:subscriber_id>/events")
def select_events(subscriber_id: UUID) -> Response:
    """Replace the events of a subscriber, and what they are filtered by."""
    session.require_role(OPERATE)
    events = [*request.form.getlist("group"), *_lines("single")]
    filters = {name: _lines(name) for name in subscriptions.FILTERS}
    try:
        with service().engine.begin() as connection:
            queries.get_subscriber(connection, subscriber_id)
            subscriptions.select_events(connection, session.actor(), subscriber_id, events, filters)
    except subscriptions.InvalidSubscriber as problem:
        abort(400, f"{sentence(str(problem))}.")
    flash("The subscriber receives these events from now on.")
    return redirect(url_for("console.subscriber", subscriber_id=subscriber_id))


def _lines(name: str) -> list[str]:
    """Return the lines of a field of the form that are not blank."""
    text = request.form.get(name, "")
    check_text(text)
    return [line for one in text.splitlines() if (line := one.strip())]


@blueprint.post("/subscribers/<uuid:subscriber_id>/<any(enable, disable):verb>")
def switch_subscriber(subscriber_id: UUID, verb: str) -> Response:
    """Enable or disable a subscriber."""
    session.require_role(OPERATE)
    with service().engine.begin() as connection:
        queries.get_subscriber(connection, subscriber_id)
        subscriptions.enable(connection, session.actor(), subscriber_id, verb == "enable")
    flash(f"Subscriber {verb}d.")
    return redirect(url_for("console.subscriber", subscriber_id=subscriber_id))


@blueprint.post("/notifications/<uuid:notification_id>/replay")
def replay_notification(notification_id: UUID) -> Response:
    """Send a notification again."""
    session.require_role(OPERATE)
    with service().engine.begin() as connection:
        queries.get_notification(connection, notification_id)
        job_ids = subscriptions.replay(connection, session.actor(), notification_id)
    dispatcher().dispatch(job_ids)
    flash("The notification is sent again.")
    return redirect(session.local_path(request.form.get("next", "")))
